"""Many tests at once: p-values that allow for how many were asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
