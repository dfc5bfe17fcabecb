"""Numbers that are reported, with their intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri, softmax

from bnn_adv.compute.types import AnyArray, AnyClasses, AnyLogits
from bnn_adv.posteriors.decision import NO_CLASS, DecisionRule, predicted_class


def accuracy(log_probs: AnyLogits, y: AnyClasses) -> float:
    """Return the share of rows whose ``decision.predicted_class`` is the label, in [0, 1].

    Args:
      log_probs: [N, C].
      y: [N].
    """
    return float(np.mean(predicted_class(np.asarray(log_probs)) == np.asarray(y)))


def wilson_interval(share: float, count: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a binomial share (Wilson 1927; Brown, Cai, DasGupta 2001).

    ``scipy.stats.binomtest`` has it for whole numbers of successes only; the effective number of
    trials of a random prediction (``evaluation.fresh``) has none.

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


def paired_difference(
    first: Any, second: Any, *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return how much larger the second of two shares is, on the same N images, with its interval.

    The images are the same, so that only those count on which the two disagree, see
    ``mean_change``.

    Args:
      first: Whether an image counts, booleans [N]; or how often it does, in [0, 1].
      second: The same of the other row.
      confidence: Coverage, in (0, 1).

    Returns:
      The difference, and the ends of its interval, in [-1, 1].

    Raises:
      ValueError: Lengths differ, or there is no image.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(
            "Need two rows over the same images, one image at least, got shapes "
            f"{first.shape} and {second.shape}."
        )
    return mean_change(second - first, confidence=confidence)


def mean_change(changes: Any, *, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the mean of N changes in [-1, 1], one an image, with its interval.

    Agresti's and Min's interval of paired shares (2005, Statistics in Medicine 24, section 3):
    half an image is added to each of the four cells of the table of agreement, which keeps it open
    where nothing changes. With changes of -1, 0 and 1 it is theirs, ``sum d_i^2`` being the number
    of images that change:

        d = sum d_i / N,   d' = sum d_i / (N + 2)
        var = ((sum d_i^2 + 1) / (N + 2) - d'^2) / (N + 2)

    Args:
      changes: d_i, [N], N at least 1.
      confidence: Coverage, in (0, 1).

    Returns:
      The mean, and the ends of its interval, in [-1, 1].
    """
    changes = np.asarray(changes, np.float64)
    total, squares, count = math.fsum(changes), math.fsum(changes**2), changes.size + 2
    centre = total / count
    variance = ((squares + 1) / count - centre**2) / count
    half = float(ndtri(0.5 + confidence / 2)) * math.sqrt(variance)
    return total / changes.size, max(-1.0, centre - half), min(1.0, centre + half)


def softmax_robustness(
    log_probs: Float[AnyArray, "*S N C"], log_probs_adv: Float[AnyArray, "*S N C"]
) -> float:
    """Return one minus the mean softmax difference (Carbone et al. 2020, section 5).

    ``1 - mean_i || pbar(x_i) - pbar(x_i^adv) ||_inf``

    Args:
      log_probs: Log of the posterior predictive at the clean inputs, [N, C].
      log_probs_adv: The same at the adversarial inputs.

    Returns:
      A number in [0, 1].
    """
    return 1.0 - float(softmax_differences(log_probs, log_probs_adv).mean())


def softmax_differences(
    log_probs: Float[AnyArray, "*S N C"], log_probs_adv: Float[AnyArray, "*S N C"]
) -> Float[np.ndarray, "*S N"]:
    """Return the softmax difference of every input, ``|| pbar(x_i) - pbar(x_i^adv) ||_inf``.

    Args:
      log_probs: Log of the prediction at the clean inputs, [..., N, C].
      log_probs_adv: The same at the adversarial inputs.

    Returns:
      Numbers in [0, 1], [..., N]; 1 where a prediction is not finite.
    """
    return _largest_change(_probs(log_probs), _probs(log_probs_adv))


def published_softmax_robustness(
    log_probs: Float[AnyArray, "*S N C"],
    log_probs_adv: Float[AnyArray, "*S N C"],
    *,
    decision_rule: DecisionRule = "mean_probabilities",
) -> float:
    """Return softmax robustness as the published code computes it: on softmax of the output.

    A Bayesian network's output are mean probabilities: the second softmax compresses differences,
    so that with ten classes the result cannot fall below 0.853, with two not below 0.538. The
    output of a deterministic network or of an ensemble that averages logits enters one softmax
    only: there the number is ``softmax_robustness``.
    """
    if decision_rule == "mean_logits":
        return softmax_robustness(log_probs, log_probs_adv)
    return 1.0 - float(published_softmax_differences(log_probs, log_probs_adv).mean())


def published_softmax_differences(
    log_probs: Float[AnyArray, "*S N C"], log_probs_adv: Float[AnyArray, "*S N C"]
) -> Float[np.ndarray, "*S N"]:
    """Return ``softmax_differences`` of softmax of probabilities, as published, [..., N]."""
    clean = softmax(_probs(np.asarray(log_probs, np.float64)), axis=-1)
    adversarial = softmax(_probs(np.asarray(log_probs_adv, np.float64)), axis=-1)
    return _largest_change(clean, adversarial)


def _probs(log_probs: Any) -> np.ndarray:
    """Return probabilities, NaN in every class where a prediction is not finite."""
    log_probs = np.asarray(log_probs)
    is_class = predicted_class(log_probs)[..., None] != NO_CLASS
    probs: np.ndarray = np.exp(np.where(is_class, log_probs, np.nan))
    return probs


def _largest_change(clean: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
    change: np.ndarray = np.abs(clean - adversarial).max(axis=-1)
    # Where there is no prediction, all of it has changed.
    return np.where(np.isnan(change), 1.0, change).astype(change.dtype)
