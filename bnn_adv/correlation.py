"""Rank correlation with an interval."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

_LEAST = 4


class Correlation(NamedTuple):
    """Hold a rank correlation with its 95 % bootstrap interval.

    value: Spearman's rho, in [-1, 1].
    low: Lower end.
    high: Upper end.
    num_pairs: N.
    """

    value: float
    low: float
    high: float
    num_pairs: int

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves zero out, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        """Return ``0.31 [0.05, 0.60], n = 24``."""
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}], n = {self.num_pairs}"


def rank_correlation(
    x: Any, y: Any, *, seed: int = 0, num_resamples: int = 2000
) -> Correlation | None:
    """Return Spearman's rho of pairs: the correlation of their ranks, ties by mean rank.

    The interval is a percentile bootstrap over pairs; resamples without variance, in which the
    correlation is not defined, are left out.

    Args:
      x: [N].
      y: [N].
      seed: Of the bootstrap.
      num_resamples: Of the bootstrap.

    Returns:
      None for fewer than four pairs, or where x or y is constant.

    Raises:
      ValueError: The lengths differ.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"Need two vectors of one length, got shapes {x.shape} and {y.shape}.")
    if len(x) < _LEAST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    rows = np.random.default_rng(seed).integers(len(x), size=(num_resamples, len(x)))
    resampled = _correlate(x[rows], y[rows])
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Correlation(float(_correlate(x[None], y[None])[0]), float(low), float(high), len(x))


def _correlate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return rho of every row, NaN where one of the two is constant."""
    a, b = (rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (x, y))
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    covariance = (a * b).sum(axis=1)
    return np.divide(covariance, norm, out=np.full(len(x), np.nan), where=norm > 0)
