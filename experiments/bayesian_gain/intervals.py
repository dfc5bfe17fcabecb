"""Intervals over images and repetitions: R repetitions of everything on the same N images.

Images and repetitions are crossed, and both are samples: of the images that could be asked for, and
of the random keys that could train. The variance of the mean of such a table is

    (MS_images + MS_repeats - MS_rest) / (R N)

with mean squares as in a two-way analysis of variance without replication (Searle, Casella,
McCulloch 1992, chapter 4), and Student's t with Satterthwaite's degrees of freedom (1946,
Biometrics Bulletin 2) allows for how few repetitions there are. With two of them, which differ more
than images do, such an interval misses up to one time in eight in place of twenty; with three it is
nearly what it says.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from bnn_adv.evaluation.metrics import mean_change, wilson_interval


class Share(NamedTuple):
    """An accuracy over R repetitions.

    value: Mean over images and repetitions, in [0, 1].
    low: Lower end of its 95 % interval over images and repetitions.
    high: Upper end.
    repeats: The accuracy of each repetition.
    """

    value: float
    low: float
    high: float
    repeats: tuple[float, ...]

    def __str__(self) -> str:
        """Return ``41.5 [34.8, 48.5]`` and, of several, ``(41.0, 42.0)``, in %."""
        text = f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        if len(self.repeats) == 1:
            return text
        return f"{text} ({', '.join(f'{100 * value:.1f}' for value in self.repeats)})"


class Difference(NamedTuple):
    """A difference of two accuracies on the same images.

    value: Second less first, in [-1, 1].
    low: Lower end of its interval over images and repetitions.
    high: Upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return ``+1.2 [-0.3, +2.7]``, in points."""
        return f"{100 * self.value:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def share(right: np.ndarray) -> Share:
    """Return an accuracy with its 95 % interval, the wider of two.

    Wilson's over images alone, which stays open at 0 and 1; and that over images and repetitions.

    Args:
      right: Whether an image is right, or how often, in [0, 1], [R, N].
    """
    right = np.asarray(right, np.float64)
    value = float(right.mean())
    low, high = wilson_interval(value, right.shape[1])
    half = half_width(right, 0.95)
    low, high = max(0.0, min(low, value - half)), min(1.0, max(high, value + half))
    return Share(value, low, high, tuple(float(one) for one in right.mean(axis=1)))


def difference(first: np.ndarray, second: np.ndarray, *, confidence: float = 0.95) -> Difference:
    """Return by how much a second accuracy is larger, with its interval, the wider of two.

    Agresti's and Min's over images alone, of the means over repetitions, which stays open where
    nothing changes; and that over images and repetitions.

    Args:
      first: Whether an image is right, or how often, in [0, 1], [R, N].
      second: The same of the other.
      confidence: Coverage, in (0, 1).

    Raises:
      ValueError: Shapes differ.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape:
        raise ValueError(
            "Need two tables of the same repetitions and images, got shapes "
            f"{first.shape} and {second.shape}."
        )
    change = second - first
    value, low, high = mean_change(change.mean(axis=0), confidence=confidence)
    half = half_width(change, confidence)
    return Difference(value, max(-1.0, min(low, value - half)), min(1.0, max(high, value + half)))


def half_width(table: np.ndarray, confidence: float) -> float:
    """Return half the interval of the mean of a crossed table, [R, N], see above.

    Zero with one repetition, which says nothing of others, or where nothing is left to vary.
    """
    repeats, images = table.shape
    if repeats < 2 or images < 2:
        return 0.0
    by_image, by_repeat = table.mean(axis=0), table.mean(axis=1)
    rest = table - by_image - by_repeat[:, None] + table.mean()
    squares = np.array(
        [
            repeats * by_image.var(ddof=1),
            images * by_repeat.var(ddof=1),
            (rest**2).sum() / ((repeats - 1) * (images - 1)),
        ]
    )
    total = float(squares @ (1, 1, -1))
    if total <= 0:
        return 0.0
    freedom = np.array([images - 1, repeats - 1, (repeats - 1) * (images - 1)])
    # Of a difference of mean squares they may fall below those of the repetitions alone.
    degrees = max(total**2 / float((squares**2 / freedom).sum()), repeats - 1)
    quantile = float(stdtrit(degrees, 0.5 + confidence / 2))
    return quantile * math.sqrt(total / table.size)
