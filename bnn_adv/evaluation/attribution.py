r"""Compare two rows on the same images, and share a difference out among its causes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy.special import ndtri


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


def shapley_values(value: Mapping[frozenset[str], Any], names: Iterable[str]) -> dict[str, Any]:
    r"""Share ``value(all) - value(none)`` out among causes whose effects interact.

    Each cause gets what it adds, averaged over all orders in which the causes could be turned on
    (Shapley 1953, A value for n-person games):

        phi_i = sum_{A without i} |A|! (n - |A| - 1)! / n!  ( value(A + i) - value(A) )

    The values of all causes add up to the whole difference, and one that never changes anything
    gets zero.

    Args:
      value: The number of every subset of the causes; or an array, of which each entry is shared
        out by itself: of one number an image, shares come with an interval by ``mean_change``.
      names: The causes, n.

    Returns:
      phi by name, in units of ``value`` and of its shape.

    Raises:
      ValueError: A subset has no value; the message names it.
    """
    names = sorted(names)
    size = len(names)
    subsets = [
        frozenset(name for bit, name in enumerate(names) if number >> bit & 1)
        for number in range(2**size)
    ]
    missing = [subset for subset in subsets if subset not in value]
    if missing:
        raise ValueError(
            f"Shapley values of {size} causes need all {2**size} subsets, {len(missing)} are "
            f"missing: {sorted(missing[0]) or 'the empty one'} among them."
        )
    weights = [
        math.factorial(k) * math.factorial(size - k - 1) / math.factorial(size) for k in range(size)
    ]
    return {
        name: np.sum(
            [
                weights[len(without)] * (np.asarray(value[without | {name}]) - value[without])
                for without in subsets
                if name not in without
            ],
            axis=0,
        )
        for name in names
    }
