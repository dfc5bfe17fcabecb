"""Numbers that are reported, with their intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import ndtri, softmax


def accuracy(log_probs: Any, y: Any) -> float:
    """Return the share of rows whose argmax is the label, in [0, 1].

    Args:
      log_probs: [N, C].
      y: [N].
    """
    return float(np.mean(np.argmax(np.asarray(log_probs), axis=-1) == np.asarray(y)))


def wilson_interval(share: float, count: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a binomial share (Wilson 1927; Brown, Cai, DasGupta 2001).

    Args:
      share: Observed share of successes, in [0, 1].
      count: Number of trials, at least 1.
      confidence: Coverage, in (0, 1).

    Returns:
      Lower and upper end, in [0, 1]; never empty, also at shares 0 and 1.

    Raises:
      ValueError: An argument is out of range.
    """
    if not (0 <= share <= 1 and count >= 1 and 0 < confidence < 1):
        raise ValueError(f"Need a share in [0, 1] of at least 1 trial, got {share} of {count}.")
    z = float(ndtri(0.5 + confidence / 2))
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    half /= 1 + z**2 / count
    # The ends are exact where the share is 0 or 1; rounding must not move them inside.
    lower = 0.0 if share == 0 else max(0.0, centre - half)
    upper = 1.0 if share == 1 else min(1.0, centre + half)
    return lower, upper


def softmax_robustness(log_probs: Any, log_probs_adv: Any) -> float:
    """Return one minus the mean softmax difference (Carbone et al. 2020, section 5).

    ``1 - mean_i || pbar(x_i) - pbar(x_i^adv) ||_inf``

    Args:
      log_probs: Log of the posterior predictive at the clean inputs, [N, C].
      log_probs_adv: The same at the adversarial inputs.

    Returns:
      A number in [0, 1].
    """
    return _one_minus_difference(np.exp(np.asarray(log_probs)), np.exp(np.asarray(log_probs_adv)))


def published_softmax_robustness(log_probs: Any, log_probs_adv: Any) -> float:
    """Return softmax robustness as the published code computes it: on softmax of probabilities.

    The second softmax compresses differences: with ten classes the result cannot fall below 0.853,
    with two not below 0.538.
    """
    clean = softmax(np.exp(np.asarray(log_probs, np.float64)), axis=-1)
    adversarial = softmax(np.exp(np.asarray(log_probs_adv, np.float64)), axis=-1)
    return _one_minus_difference(clean, adversarial)


def _one_minus_difference(clean: np.ndarray, adversarial: np.ndarray) -> float:
    return 1.0 - float(np.abs(clean - adversarial).max(axis=-1).mean())
