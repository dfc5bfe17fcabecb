"""Predictors that draw anew: what is left of an attack whose draws they do not share."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnn_adv import metrics
from bnn_adv.evaluation.cascade import Settings, predict
from bnn_adv.evaluation.suite import ProtocolResult, intervals
from bnn_adv.posterior import Posterior


def evaluate_fresh(
    result: ProtocolResult, defender: Posterior, y: Any, *, settings: Settings = Settings()
) -> dict[str, Any]:
    """Let other draws predict the adversarial images of an attacker who did not know them.

    Args:
      result: What the attacker found with its own draws.
      defender: Fresh draws.
      y: Labels, [N].
      settings: Batch and chunk sizes.

    Returns:
      Accuracy by name of the attack, with intervals.
    """
    accuracies = {
        name: metrics.accuracy(predict(defender, images, settings), y)
        for name, images in result.adversarial.items()
    }
    return {**accuracies, "intervals": intervals(accuracies, len(np.asarray(y)))}
