"""Tests of differences over the same images, and p-values that allow for how many were asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

LEVEL = 0.05
"""An adjusted p-value up to this tells a difference."""


def sign_test(first: np.ndarray, second: np.ndarray) -> float:
    """Return the two-sided p-value of the sign test over the images on which two differ.

    Args:
      first: What one keeps of every image, in [0, 1], [N].
      second: The same of the other.

    Returns:
      ``P(|K - n / 2| >= |k - n / 2|)`` with K of Binomial(n, 1/2), n images on which they differ
      and k on which the first is larger; 1 where they differ on none.
    """
    differ = int(np.sum(first != second))
    if not differ:
        return 1.0
    return float(binomtest(int(np.sum(first > second)), differ).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that one false rejection among all is as rare as their level.

    Holm (1979, Scandinavian Journal of Statistics 6, 65-70), for any dependence between the tests:
    with the m values sorted, ``p'_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))``.

    Args:
      p_values: Of m tests, in [0, 1].

    Returns:
      Adjusted values in the order given; a test is rejected at a level where its own is below it.

    Raises:
      ValueError: A value lies outside [0, 1].
    """
    given = np.asarray(p_values, np.float64)
    if not ((given >= 0) & (given <= 1)).all():
        raise ValueError(f"p-values lie in [0, 1], got {list(p_values)}.")
    order = np.argsort(given)
    scaled = np.minimum(1.0, np.arange(len(given), 0, -1) * given[order])
    adjusted = np.empty(len(given))
    adjusted[order] = np.maximum.accumulate(scaled)
    return adjusted.tolist()
