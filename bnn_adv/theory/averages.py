r"""Mean gradients over a posterior, against the number of draws.

The paper argues from Lemma 4 that normal gradients cancel under the posterior. Of gradients g_s at
one point, s = 1..S, the mean's norm falls as S^(-1/2) whatever they are, until it reaches
``|E g|``. The share that is left over,

    share = |E g| / E|g|,       0: all cancels,  1: all draws agree,

is therefore estimated without the bias of the norm of a mean: ``|E g|^2`` by the inner products of
the means of different groups of draws, which are independent chains where there are chains. Such
an estimate is unbiased, and therefore negative by chance where nothing is left. Squares are
averaged over repetitions as they are: cut off at zero, their mean would exceed zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bnn_adv.theory.trend import Interval, t_interval


class MeanGradient(NamedTuple):
    """How the mean gradient at P points behaves, over all of them.

    counts: Numbers of draws, int [K].
    norms: Median over points of the norm of the mean over ``counts[k]`` draws, averaged over
      random choices of the draws, [K].
    square: ``sum_p |E g_p|^2 / sum_p (E|g_p|)^2``, the square of the share that is left. Its
      numerator is unbiased, so that it may be negative; 0 where every gradient is zero.
    typical: Median over points of the mean norm of a draw's gradient, ``E|g|``.
    zeros: Share of the gradients that are exactly zero in float32.
    """

    counts: np.ndarray
    norms: np.ndarray
    square: float
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
    return MeanGradient(
        np.asarray(counts),
        norms / num_orders,
        float(share_square(gradients, num_groups)),
        float(np.median(lengths.mean(axis=0))),
        float(np.mean(lengths == 0)),
    )


def share_square(gradients: np.ndarray, num_groups: int) -> np.ndarray:
    """Return ``MeanGradient.square`` of gradients [..., S, P, q], for every leading index."""
    *lead, total, _, _ = gradients.shape
    typical = np.linalg.norm(gradients, axis=-1).mean(axis=-2)
    split = gradients.reshape(*lead, num_groups, total // num_groups, -1)
    means = split.mean(axis=-2)
    # Of all products of groups' means, those of different groups.
    products = np.sum(means.sum(axis=-2) ** 2, axis=-1) - np.sum(means**2, axis=(-2, -1))
    scale = num_groups * (num_groups - 1) * np.sum(typical**2, axis=-1)
    square: np.ndarray = products / np.where(scale > 0, scale, 1)
    return square


def signed_root(square: float) -> float:
    """Return the root of an estimated square, negative where the estimate is."""
    return math.copysign(math.sqrt(abs(square)), square)


def share_interval(squares: Sequence[float] | np.ndarray) -> Interval:
    """Return the share that is left over, with its 95 % interval over repetitions.

    Student's interval of the squares, whose ends are then mapped by ``signed_root``: that keeps
    the coverage, also where nothing is left and many of the squares are negative.

    Args:
      squares: ``MeanGradient.square`` of independent repetitions.

    Raises:
      ValueError: There is no repetition.
    """
    return Interval(*map(signed_root, t_interval(squares)))
