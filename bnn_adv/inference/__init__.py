"""Turn (key, network, data, config) into a posterior and a diagnostics record.

One file a method, with the same members in the same order: Config, State, init, step, run.
"""

from bnn_adv.inference import hmc, sgd, svi
from bnn_adv.inference.base import InferenceResult
from bnn_adv.inference.densities import Data

METHODS = {"hmc": hmc, "sgd": sgd, "svi": svi}

__all__ = ["METHODS", "Data", "InferenceResult"]
