"""Turn (key, network, data, config) into a posterior and a diagnostics record.

One file a method. Kernels of Markov chains have Config, State, Info, build, run (``mcmc`` drives
those of the full data, ``sgmcmc`` those of minibatches); methods that optimise have Config, State,
init, step, run.
"""

from bnn_adv.inference import (
    adjusted_mclmc,
    csgmcmc,
    hmc,
    mclmc,
    nuts,
    sgd,
    sghmc,
    sgld,
    svi,
)
from bnn_adv.inference.base import InferenceResult
from bnn_adv.inference.densities import Data

METHODS = {
    "adjusted_mclmc": adjusted_mclmc,
    "csgmcmc": csgmcmc,
    "hmc": hmc,
    "mclmc": mclmc,
    "nuts": nuts,
    "sgd": sgd,
    "sghmc": sghmc,
    "sgld": sgld,
    "svi": svi,
}

__all__ = ["METHODS", "Data", "InferenceResult"]
