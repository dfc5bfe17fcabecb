"""One attacked input of one model, as a report shows it."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One attacked input of one model.

    Args:
      index: Position in the test set.
      label: True class.
      clean: Clean input in [0, 1], [H, W, C] with C 1 or 3, [H, W], or a point [2].
      clean_prediction: Class predicted for it.
      clean_probability: Its probability, in [0, 1].
      adversarial: Adversarial input, of the same shape.
      adversarial_prediction: Class predicted for it.
      adversarial_probability: Its probability, in [0, 1].
      model: Name of the model.
      attack: Name of the attack; empty where the input withstood all.
    """

    index: int
    label: int
    clean: np.ndarray
    clean_prediction: int
    clean_probability: float
    adversarial: np.ndarray
    adversarial_prediction: int
    adversarial_probability: float
    model: str
    attack: str
