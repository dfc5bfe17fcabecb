r"""What a sample of i.i.d. numbers says of their mean: lower bounds that hold at a confidence.

*Numbers in an interval* of width b, with mean m and sample variance V of n of them (Maurer, Pontil
2009, arXiv 0907.3740, theorem 4, applied to 1 - Z): with probability at least 1 - delta

    E Z >= m - sqrt(2 V log(2 / delta) / n) - 7 b log(2 / delta) / (3 (n - 1)).

*Yes or no* (Clopper, Pearson 1934), k yes of n: the probability p of yes is, with probability at
least 1 - delta, above that p_0 at which k or more yes have the probability delta, which is the
delta-quantile of Beta(k, n - k + 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import betaincinv


def bernstein_lower(
    total: Any, squares: Any, count: int, *, delta: float, width: float
) -> np.ndarray:
    """Return the empirical Bernstein lower bound of a mean; see the module's equation.

    Args:
      total: Sum of n numbers of an interval, any shape.
      squares: Sum of their squares, the same shape.
      count: How many there are, n, at least 2.
      delta: Probability with which the bound may be wrong, in (0, 1).
      width: Of the interval, b.

    Returns:
      Lower bounds, of that shape; they may lie below the interval.
    """
    total, squares = np.asarray(total, np.float64), np.asarray(squares, np.float64)
    # What float64 may have lost in adding n squares up, and in the difference.
    slack = 2.0**-48 * count * squares / (count - 1)
    variance = np.maximum((squares - total**2 / count) / (count - 1), 0.0) + slack
    log_term = float(np.log(2 / delta))
    radius = np.sqrt(2 * variance * log_term / count) + 7 * width * log_term / (3 * (count - 1))
    found: np.ndarray = total / count - radius - 2.0**-48 * count * width
    return found


def clopper_pearson_lower(successes: Any, count: int, *, delta: float) -> np.ndarray:
    """Return the exact lower bound of a probability; see the module's text.

    Args:
      successes: How often it was yes, integers of any shape.
      count: Of how many times, n.
      delta: Probability with which the bound may be wrong, in (0, 1).

    Returns:
      Lower bounds in [0, 1], of that shape; 0 where nothing was yes.
    """
    successes = np.asarray(successes)
    some = np.maximum(successes, 1)
    found: np.ndarray = np.where(successes > 0, betaincinv(some, count - some + 1, delta), 0.0)
    return found
