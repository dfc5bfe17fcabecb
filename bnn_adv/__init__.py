"""Train Bayesian neural networks, attack them in expectation, report honestly how robust."""

from bnn_adv import zoo
from bnn_adv.attacks.objectives import Objective
from bnn_adv.attacks.threat import L1, L2, LInf
from bnn_adv.certification import (
    CertificationSettings,
    FreshCertificationSettings,
    bracket,
    certify,
    certify_fresh,
    verify_certificate,
)
from bnn_adv.compute.program_cache import enable_compilation_cache
from bnn_adv.evaluation import evaluate_fresh, run_suite
from bnn_adv.evaluation.evaluate import EvaluationSettings, evaluate
from bnn_adv.evaluation.records import Evaluation
from bnn_adv.evaluation.suites import SUITES, Entry, Suite, get_suite
from bnn_adv.evaluation.uncertainty import ShiftSettings, evaluate_shift, load_shift
from bnn_adv.evaluation.verification import verify_adversarial
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.posteriors.sampler import Sampler

__version__ = "0.1.0"

__all__ = [
    "L1",
    "L2",
    "SUITES",
    "CertificationSettings",
    "Entry",
    "Evaluation",
    "EvaluationSettings",
    "FreshCertificationSettings",
    "LInf",
    "Objective",
    "Posterior",
    "Sampler",
    "ShiftSettings",
    "Suite",
    "bracket",
    "certify",
    "certify_fresh",
    "enable_compilation_cache",
    "evaluate",
    "evaluate_fresh",
    "evaluate_shift",
    "get_suite",
    "load_shift",
    "run_suite",
    "verify_adversarial",
    "verify_certificate",
    "zoo",
]
