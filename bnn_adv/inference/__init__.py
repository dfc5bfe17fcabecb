"""Turn (key, network, data, config) into a posterior and a diagnostics record.

One file a method. Kernels of Markov chains have Config, State, Info, build, run (``mcmc`` drives
them); methods that optimise have Config, State, init, step, run.
"""

from bnn_adv.inference import adjusted_mclmc, hmc, mclmc, nuts, sgd, svi
from bnn_adv.inference.base import InferenceResult
from bnn_adv.inference.densities import Data

METHODS = {
    "adjusted_mclmc": adjusted_mclmc,
    "hmc": hmc,
    "mclmc": mclmc,
    "nuts": nuts,
    "sgd": sgd,
    "svi": svi,
}

__all__ = ["METHODS", "Data", "InferenceResult"]
