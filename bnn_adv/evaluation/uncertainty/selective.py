r"""Selective accuracy: how often a prediction is right that is not refused for its uncertainty.

Of N inputs the k most certain are answered. With ties among scores every order of the tied is as
likely as any other, so that the accuracy at k is an expectation, which is linear in k within a tie:

    accuracy(k) = (right before the tie + (k - before) * right in the tie / size of the tie) / k

and the area is ``(1/N) sum_k accuracy(k)``, one less the area under the risk-coverage curve of
Geifman, Uziel, El-Yaniv 2019 (arXiv 1805.08206, section 2).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bnn_adv.evaluation import metrics

_MOST_POINTS = 101


class Selective(NamedTuple):
    """Accuracy against the share of inputs that are refused.

    area: Mean accuracy over all numbers of answers, in [0, 1].
    answered: Some numbers of answers, falling.
    rejection: Shares refused, in [0, 1), rising.
    accuracy: Of those answered.
    intervals: 95 % Wilson intervals of each, over the inputs answered.
    """

    area: float
    answered: list[int]
    rejection: list[float]
    accuracy: list[float]
    intervals: list[list[float]]

    def at(self, rejection: float) -> tuple[float, list[float]]:
        """Return accuracy and interval at the smallest tabulated rejection of at least this."""
        place = min(int(np.searchsorted(self.rejection, rejection - 1e-9)), len(self.rejection) - 1)
        return self.accuracy[place], self.intervals[place]


def selective_accuracy(scores: Any, correct: Any) -> np.ndarray:
    """Return the accuracy of the k most certain of N inputs for k = 1..N, [N].

    Args:
      scores: Uncertainty of every input, [N]; larger ones are refused first.
      correct: Whether its prediction is right, [N].

    Raises:
      ValueError: Lengths differ, there is no input, or a score is NaN.
    """
    scores, correct = np.asarray(scores, np.float64), np.asarray(correct, np.float64)
    if scores.ndim != 1 or scores.shape != correct.shape or not scores.size:
        raise ValueError(
            "Need one score and one truth value of every input, and one input at least, got "
            f"shapes {scores.shape} and {correct.shape}."
        )
    if np.isnan(scores).any():
        raise ValueError("Scores must not be NaN: look for logits that are not finite.")
    _, tie, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    right = np.bincount(tie, weights=correct)
    # Within a tie every answer is right as often as the tie is.
    hits: np.ndarray = np.cumsum(np.repeat(right / sizes, sizes))
    # Where a tie ends, the count is whole.
    hits[np.cumsum(sizes) - 1] = np.cumsum(right)
    return hits / np.arange(1, len(hits) + 1)


def describe_selective(scores: Any, correct: Any) -> Selective:
    """Return area and curve, see ``selective_accuracy``.

    Args:
      scores: [N].
      correct: [N].
    """
    found = selective_accuracy(scores, correct)
    size = len(found)
    shares = np.linspace(0, 1, _MOST_POINTS)[:-1]
    answered = np.unique(np.ceil(size * (1 - shares) - 1e-9).astype(int))[::-1]
    accuracy = np.clip(found[answered - 1], 0.0, 1.0)
    return Selective(
        float(found.mean()),
        answered.tolist(),
        (1 - answered / size).tolist(),
        accuracy.tolist(),
        [
            list(metrics.wilson_interval(float(share), int(count)))
            for share, count in zip(accuracy, answered, strict=True)
        ],
    )
