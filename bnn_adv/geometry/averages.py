r"""Mean gradients over a posterior, against the number of draws.

The paper argues from Lemma 4 that normal gradients cancel under the posterior. Of gradients g_s at
one point, s = 1..S, the mean's norm falls as S^(-1/2) whatever they are, until it reaches
``|E g|``. The share that is left over,

    share = |E g| / E|g|,       0: all cancels,  1: all draws agree,

is therefore estimated without the bias of the norm of a mean: ``|E g|^2`` by the inner products of
the means of different groups of draws, which are independent chains where there are chains.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class MeanGradient(NamedTuple):
    """Hold how the mean gradient at P points behaves, over all of them.

    counts: Numbers of draws, int [K].
    norms: Median over points of the norm of the mean over ``counts[k]`` draws, averaged over
      random choices of the draws, [K].
    share: ``(sum_p |E g_p|^2 / sum_p (E|g_p|)^2)^(1/2)``, unbiased before the root; zero where
      the estimate of the numerator is not positive.
    typical: Median over points of the mean norm of a draw's gradient, ``E|g|``.
    zeros: Share of the gradients that are exactly zero in float32.
    """

    counts: np.ndarray
    norms: np.ndarray
    share: float
    typical: float
    zeros: float


def mean_gradient(
    gradients: np.ndarray,
    num_groups: int,
    counts: Sequence[int],
    *,
    num_orders: int = 20,
    seed: int = 0,
) -> MeanGradient:
    """Describe the mean of the draws' gradients.

    Args:
      gradients: Of S draws at P points, in any orthonormal basis of q directions, [S, P, q].
      num_groups: Independent groups G of equal size that follow one another, such as chains; G
        divides S.
      counts: Numbers of draws to average, each in 1..S.
      num_orders: Random choices of the draws for each of them.
      seed: Seed of these.

    Raises:
      ValueError: S is no multiple of G, G is below 2, or a count is out of range.
    """
    gradients = np.asarray(gradients, np.float64)
    total = len(gradients)
    if num_groups < 2 or total % num_groups:
        raise ValueError(
            f"num_groups must be at least 2 and divide the number of draws ({total}), "
            f"got {num_groups}."
        )
    if not (len(counts) and min(counts) >= 1 and max(counts) <= total):
        raise ValueError(f"counts must lie between 1 and {total}, got {list(counts)}.")
    rng = np.random.default_rng(seed)
    norms = np.zeros(len(counts))
    for _ in range(num_orders):
        running = np.cumsum(gradients[rng.permutation(total)], axis=0)
        for index, count in enumerate(counts):
            norms[index] += np.median(np.linalg.norm(running[count - 1] / count, axis=-1))
    lengths = np.linalg.norm(gradients, axis=-1)
    typical = lengths.mean(axis=0)
    means = gradients.reshape(num_groups, -1, *gradients.shape[1:]).mean(axis=1)
    pairs = [np.sum(a * b) for a, b in itertools.combinations(means, 2)]
    scale = float(np.sum(typical**2))
    share = float(np.sqrt(max(np.mean(pairs), 0.0) / scale)) if scale > 0 else 0.0
    return MeanGradient(
        np.asarray(counts),
        norms / num_orders,
        share,
        float(np.median(typical)),
        float(np.mean(lengths == 0)),
    )


class Interval(NamedTuple):
    """Hold a mean with its 95 % interval; the ends are NaN for a single value."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the mean and the ends of the interval."""
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def t_interval(values: Sequence[float]) -> Interval:
    """Return mean and Student's 95 % interval of independent values, such as of seeds.

    Raises:
      ValueError: There is no value.
    """
    if not len(values):
        raise ValueError("An interval needs one value at least, got none.")
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return Interval(mean, np.nan, np.nan)
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return Interval(mean, mean - half, mean + half)


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the least-squares slope of log y against log x: the power with which y follows x.

    Raises:
      ValueError: Fewer than two values, or one is not positive.
    """
    is_positive = all(value > 0 for value in (*x, *y))
    if len(x) < 2 or len(x) != len(y) or not is_positive:
        raise ValueError(f"A power law needs two positive pairs at least, got {x} and {y}.")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
