"""Rank correlation with an interval, and a sign that is decided by a permutation test."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import permutation_test, rankdata

from experiments.launch.significance import LEVEL

_LEAST = 4


class Correlation(NamedTuple):
    """A rank correlation with its 95 % interval and its two-sided p-value.

    value: Spearman's rho, in [-1, 1].
    low: Lower end.
    high: Upper end.
    p_value: Of the permutation test, in (0, 1]; adjusted where many were asked.
    num_pairs: N.
    """

    value: float
    low: float
    high: float
    p_value: float
    num_pairs: int

    @property
    def sign(self) -> int:
        """1 or -1 where the permutation test tells rho from zero at 5 %, else 0."""
        return int(np.sign(self.value)) if self.p_value <= LEVEL else 0

    def __str__(self) -> str:
        """Return ``+0.31 [+0.05, +0.60], p = 0.03, n = 24``."""
        interval = f"[{self.low:+.2f}, {self.high:+.2f}]"
        return f"{self.value:+.2f} {interval}, p = {self.p_value:.2g}, n = {self.num_pairs}"


def rank_correlation(
    x: Any, y: Any, *, seed: int = 0, num_resamples: int = 9999
) -> Correlation | None:
    """Return Spearman's rho of pairs: the correlation of their ranks, ties by mean rank.

    The p-value is SciPy's two-sided permutation test: exact where N! is at most ``num_resamples``,
    so that four pairs never have a sign (their least is 2 / 4!), else of random permutations. The
    interval is ``spearman_interval``'s. The two are made by different means and can disagree at
    the margin: the sign is the test's.

    Args:
      x: [N].
      y: [N].
      seed: Of the permutations.
      num_resamples: Of the permutations.

    Returns:
      None for fewer than four pairs, or where x or y is constant or not finite throughout.

    Raises:
      ValueError: The lengths differ.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"Need two vectors of one length, got shapes {x.shape} and {y.shape}.")
    if len(x) < _LEAST or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    a, b = (rankdata(values) - (len(x) + 1) / 2 for values in (x, y))

    # Norms do not change with the order. Centred ranks are multiples of 1/4, whose sums are exact.
    def covariance(shuffled: np.ndarray, axis: int = -1) -> np.ndarray:
        return (shuffled * b).sum(axis=axis)

    test = permutation_test(
        (a,),
        covariance,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=num_resamples,
        rng=np.random.default_rng(seed),
    )
    value = float(covariance(a) / np.sqrt(np.sum(a**2) * np.sum(b**2)))
    return Correlation(value, *spearman_interval(value, len(x)), float(test.pvalue), len(x))


def spearman_interval(
    value: float, num_pairs: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the ends of an interval for Spearman's rho.

    Fisher's, with the standard error of Bonett and Wright (2000, Psychometrika 65, 23-28):

        tanh( atanh(rho) +- z sqrt( (1 + rho^2 / 2) / (N - 3) ) )

    A rho of 1 would have no interval: it is taken half a step lower, the step being from 1 to what
    follows where two neighbours swap, ``12 / (N^3 - N)``; the interval then ends at 1.

    Args:
      value: rho, in [-1, 1].
      num_pairs: N, at least 4.
      confidence: Coverage, in (0, 1), nearly reached for bivariate normal pairs.
    """
    most = 1 - 6 / (num_pairs**3 - num_pairs)
    quantile = float(ndtri(0.5 + confidence / 2))
    half = quantile * np.sqrt((1 + value**2 / 2) / (num_pairs - 3))
    centre = np.arctanh(np.clip(value, -most, most))
    low = -1.0 if value < -most else float(np.tanh(centre - half))
    return low, 1.0 if value > most else float(np.tanh(centre + half))
