"""Running moments of a path of iterates, and draws of the Gaussian that SWAG makes of them.

Of iterates w_1, w_2, .. are kept the mean m_i, the mean square deviation s^2 and the last K of
``w_i - m_i`` as columns of D (Maddox et al. 2019, arXiv 1902.02476, algorithm 1 and eq. 1):

    w = m + diag(s^2)^(1/2) z_1 / sqrt(2) + D z_2 / sqrt(2 (K - 1)),    z_1, z_2 ~ N(0, I)
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.networks import Params


class Moments(NamedTuple):
    """What is kept of the iterates, every leaf with a leading axis of runs.

    mean: Their mean m.
    variance: Their mean square deviation s^2.
    deviations: The last K of ``w_i - m_i``, [runs, K, ...].
    """

    mean: Params
    variance: Params
    deviations: Params


def zeros(params: Params, rank: int) -> Moments:
    """Return the moments of no iterate; every leaf of ``params`` has a leading axis of runs."""
    none = jax.tree.map(jnp.zeros_like, params)
    columns = jax.tree.map(lambda w: jnp.zeros((w.shape[0], rank, *w.shape[1:]), w.dtype), params)
    return Moments(none, none, columns)


def add(moments: Moments, params: Params, number: jax.Array) -> Moments:
    """Return one run's moments with an iterate more.

    Args:
      moments: Of one run, without the leading axis.
      params: The iterate.
      number: Its number, from 1; where it is below one nothing is added.
    """
    count = jnp.maximum(number, 1)

    def mean(m: jax.Array, w: jax.Array) -> jax.Array:
        return m + (w - m) / count

    def variance(v: jax.Array, w: jax.Array, m: jax.Array, new: jax.Array) -> jax.Array:
        # The mean of w^2 less m^2 would lose the digits of a narrow distribution.
        return v + ((w - m) * (w - new) - v) / count

    def place(d: jax.Array, w: jax.Array, m: jax.Array) -> jax.Array:
        return d.at[(count - 1) % d.shape[0]].set(w - m)

    new = jax.tree.map(mean, moments.mean, params)
    found = Moments(
        new,
        jax.tree.map(variance, moments.variance, params, moments.mean, new),
        jax.tree.map(place, moments.deviations, params, new),
    )
    kept: Moments = jax.tree.map(lambda a, b: jnp.where(number > 0, a, b), found, moments)
    return kept


def draw(moments: Moments, rng_key: jax.Array) -> Params:
    """Draw from one of the runs' Gaussians, all equally likely."""
    run_key, low_rank_key, diagonal_key = jax.random.split(rng_key, 3)
    leaves, structure = jax.tree.flatten(moments.mean)
    index = jax.random.randint(run_key, (), 0, leaves[0].shape[0])
    rest = map(jax.tree.leaves, (moments.variance, moments.deviations))
    own = [tuple(leaf[index] for leaf in triple) for triple in zip(leaves, *rest, strict=True)]
    rank = own[0][2].shape[0]
    mixing = jax.random.normal(low_rank_key, (rank,)) / (2 * (rank - 1)) ** 0.5
    draws = []
    for number, (mean, variance, deviations) in enumerate(own):
        noise = jax.random.normal(jax.random.fold_in(diagonal_key, number), mean.shape)
        low_rank = jnp.tensordot(mixing, deviations, 1, precision="highest")
        draws.append(mean + jnp.sqrt(variance / 2) * noise + low_rank)
    return jax.tree.unflatten(structure, draws)
