"""Train Bayesian neural networks, attack them in expectation, report honestly how robust."""

from bnn_adv.assessment import Evaluation, evaluate
from bnn_adv.evaluation import evaluate_fresh, run_protocol
from bnn_adv.posterior import Posterior
from bnn_adv.protocols import PROTOCOLS, get_protocol
from bnn_adv.sampler import Sampler
from bnn_adv.threat import L1, L2, LInf
from bnn_adv.verification import verify_adversarial

__version__ = "0.1.0"

__all__ = [
    "L1",
    "L2",
    "PROTOCOLS",
    "Evaluation",
    "LInf",
    "Posterior",
    "Sampler",
    "evaluate",
    "evaluate_fresh",
    "get_protocol",
    "run_protocol",
    "verify_adversarial",
]
