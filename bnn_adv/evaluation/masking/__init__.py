"""Signs that an attack did not fail but was blind."""

from bnn_adv.evaluation.masking.base import Check, Evidence, Spared
from bnn_adv.evaluation.masking.gradients import zero_gradients
from bnn_adv.evaluation.masking.inspection import (
    CHECKS,
    MaskingSettings,
    gather,
    inspect,
    judge,
)

__all__ = [
    "CHECKS",
    "Check",
    "Evidence",
    "MaskingSettings",
    "Spared",
    "gather",
    "inspect",
    "judge",
    "zero_gradients",
]
