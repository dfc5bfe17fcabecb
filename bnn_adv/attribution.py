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

    The images are the same, so that only those count on which the two disagree. The interval is
    Agresti's and Min's (2005, Statistics in Medicine 24, section 3): half an image is added to each
    of the four cells of the table of agreement, which keeps it open where nothing disagrees.

        d = (b - c) / N,   d' = (b - c) / (N + 2),   var = ((b + c + 1) / (N + 2) - d'^2) / (N + 2)

    with b the images that only the second has, and c those that only the first has.

    Args:
      first: Booleans, [N].
      second: Booleans, [N].
      confidence: Coverage, in (0, 1).

    Returns:
      The difference, and the ends of its interval, in [-1, 1].

    Raises:
      ValueError: Lengths differ, or there is no image.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(
            "Need two rows of booleans over the same images, one image at least, got shapes "
            f"{first.shape} and {second.shape}."
        )
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    count = first.size + 2
    centre = (gained - lost) / count
    variance = ((gained + lost + 1) / count - centre**2) / count
    half = float(ndtri(0.5 + confidence / 2)) * math.sqrt(variance)
    return (gained - lost) / first.size, max(-1.0, centre - half), min(1.0, centre + half)


def shapley_values(value: Mapping[frozenset[str], float], names: Iterable[str]) -> dict[str, float]:
    r"""Share ``value(all) - value(none)`` out among causes whose effects interact.

    Each cause gets what it adds, averaged over all orders in which the causes could be turned on
    (Shapley 1953, A value for n-person games):

        phi_i = sum_{A without i} |A|! (n - |A| - 1)! / n!  ( value(A + i) - value(A) )

    The values of all causes add up to the whole difference, and one that never changes anything
    gets zero.

    Args:
      value: The number of every subset of the causes.
      names: The causes, n.

    Returns:
      phi by name, in units of ``value``.

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
        name: math.fsum(
            weights[len(without)] * (value[without | {name}] - value[without])
            for without in subsets
            if name not in without
        )
        for name in names
    }
