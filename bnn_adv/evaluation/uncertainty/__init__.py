"""Uncertainty under attack: measures, detectors, and attacks that evade them."""

from bnn_adv.evaluation.uncertainty.evasion import evasive_objective
from bnn_adv.evaluation.uncertainty.measures import (
    MEASURES,
    Measure,
    Uncertainty,
    log_entropy,
    measure,
)
from bnn_adv.evaluation.uncertainty.report import Condition, Detector, UncertaintyReport
from bnn_adv.evaluation.uncertainty.scenarios import UncertaintySettings, evaluate_uncertainty
from bnn_adv.evaluation.uncertainty.scores import Auroc, auroc, expected_calibration_error

__all__ = [
    "MEASURES",
    "Auroc",
    "Condition",
    "Detector",
    "Measure",
    "Uncertainty",
    "UncertaintyReport",
    "UncertaintySettings",
    "auroc",
    "evaluate_uncertainty",
    "evasive_objective",
    "expected_calibration_error",
    "log_entropy",
    "measure",
]
