"""Attack a posterior by a suite of attacks and say what is left, per image and in numbers."""

from bnn_adv.evaluation.cascade import Settings
from bnn_adv.evaluation.fresh import evaluate_fresh
from bnn_adv.evaluation.suite import ProtocolResult, run_protocol

__all__ = ["ProtocolResult", "Settings", "evaluate_fresh", "run_protocol"]
