"""Uncertainty under attack: measures, detectors, and attacks that evade them."""

from bnn_adv.evaluation.uncertainty.evasion import certain_objective, evasive_objective
from bnn_adv.evaluation.uncertainty.measures import (
    MEASURES,
    SCORES,
    Measure,
    Score,
    Uncertainty,
    log_doubt,
    log_entropy,
    measure,
)
from bnn_adv.evaluation.uncertainty.report import Condition, Detector, UncertaintyReport
from bnn_adv.evaluation.uncertainty.scenarios import UncertaintySettings, evaluate_uncertainty
from bnn_adv.evaluation.uncertainty.score_objectives import SCORE_OBJECTIVES, score_objective
from bnn_adv.evaluation.uncertainty.scores import Auroc, auroc, expected_calibration_error
from bnn_adv.evaluation.uncertainty.selective import (
    Selective,
    describe_selective,
    selective_accuracy,
)
from bnn_adv.evaluation.uncertainty.shift import ShiftSettings, evaluate_shift
from bnn_adv.evaluation.uncertainty.shift_report import Shift, ShiftReport, load_shift

__all__ = [
    "MEASURES",
    "SCORES",
    "SCORE_OBJECTIVES",
    "Auroc",
    "Condition",
    "Detector",
    "Measure",
    "Score",
    "Selective",
    "Shift",
    "ShiftReport",
    "ShiftSettings",
    "Uncertainty",
    "UncertaintyReport",
    "UncertaintySettings",
    "auroc",
    "certain_objective",
    "describe_selective",
    "evaluate_shift",
    "evaluate_uncertainty",
    "evasive_objective",
    "expected_calibration_error",
    "load_shift",
    "log_doubt",
    "log_entropy",
    "measure",
    "score_objective",
    "selective_accuracy",
]
