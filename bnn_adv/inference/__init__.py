"""Turn (key, network, data, config) into a posterior and a diagnostics record.

One file a method. Kernels of Markov chains have Config, State, Info, build, run (``mcmc`` drives
those of the full data, ``sgmcmc`` those of minibatches); methods that optimise have Config and run,
on the steps of ``members`` or their own, which ``epochs`` drives.
"""

from bnn_adv.inference import (
    adjusted_mclmc,
    csgmcmc,
    hmc,
    laplace,
    mc_dropout,
    mclmc,
    nuts,
    sgd,
    sghmc,
    sgld,
    svi,
    swag,
)
from bnn_adv.inference.base import InferenceResult, RunOptions
from bnn_adv.inference.densities import Data

METHODS = {
    "adjusted_mclmc": adjusted_mclmc,
    "csgmcmc": csgmcmc,
    "hmc": hmc,
    "laplace": laplace,
    "mc_dropout": mc_dropout,
    "mclmc": mclmc,
    "nuts": nuts,
    "sgd": sgd,
    "sghmc": sghmc,
    "sgld": sgld,
    "svi": svi,
    "swag": swag,
}

__all__ = ["METHODS", "Data", "InferenceResult", "RunOptions"]
