"""Bounds of a batch of inputs: a first round, and others with lines that are made tight anew."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.bounds.balls import Ball, open_ball
from bnn_adv.certification import places
from bnn_adv.certification.predictive import FOLDING, Margin, Sums, Way, bound_draw, conclude
from bnn_adv.compute import programs
from bnn_adv.compute.streaming import fold_samples
from bnn_adv.posteriors.posterior import Posterior


class Rounds(NamedTuple):
    """What is certified of a batch, round by round.

    first: By the bounds of the first round, [B] each.
    best: By all rounds.
    counted: The last round that raised ``margin``, or what float32 leaves of it, and ``least``,
      [B, 2]; 0 is the first.
    shares: Places at which lines were made tight in rounds 1 to R, [R, B, C, 1, *D].
    """

    first: Margin
    best: Margin
    counted: Any
    shares: Any


@functools.partial(programs.jit, static_argnames=("network", "way", "num_rounds"))
def bound_batch(
    posterior: Posterior,
    x: jax.Array,
    y: jax.Array,
    threat: Any,
    *,
    network: Any,
    way: Way,
    num_rounds: int,
) -> Rounds:
    """Return what is certified of a batch; in float64.

    Args:
      posterior: S draws.
      x: Inputs, [B, ...].
      y: Labels, [B].
      threat: Norm, radii [B] and box.
      network: The network: ``read(draw) -> Graph``.
      way: How a draw is bounded.
      num_rounds: Times that lines are chosen anew.
    """
    wide = x[:, None].astype(jnp.float64)

    def ball_of(own: jax.Array, threat: Any) -> Ball:
        return open_ball(threat, own, threat.epsilon)

    def add_up(points: jax.Array | None) -> Sums:
        def one_draw(params: Any) -> Sums:
            graph = network.read(params)

            def one(own: jax.Array, y: jax.Array, threat: Any, points: Any) -> Sums:
                return bound_draw(graph, way, ball_of(own, threat), y, points)

            return jax.vmap(one)(wide, y, threat, points)

        found: Sums = fold_samples(
            one_draw, posterior.samples, FOLDING, chunk=1, shards=posterior.shards
        )
        return found

    def finish(sums: Sums) -> tuple[Margin, jax.Array]:
        def one(own: jax.Array, y: jax.Array, threat: Any, sums: Sums) -> Any:
            ball = ball_of(own, threat)
            margin, points = conclude(way.norm, ball, y, sums, posterior.num_samples)
            return margin, places.to_shares(ball, points)

        found: tuple[Margin, jax.Array] = jax.vmap(one)(wide, y, threat, sums)
        return found

    def place(shares: jax.Array) -> jax.Array:
        def one(own: jax.Array, threat: Any, shares: jax.Array) -> jax.Array:
            return places.to_points(ball_of(own, threat), shares)

        found: jax.Array = jax.vmap(one)(wide, threat, shares)
        return found

    sums = add_up(None)
    first, shares = finish(sums)
    counted = jnp.zeros((len(y), 2), int)
    if not num_rounds:
        return Rounds(first, first, counted, shares[None][:0])

    def one_round(carry: Any, number: jax.Array) -> tuple[Any, jax.Array]:
        best, mean, shares, counted = carry
        sums = add_up(place(shares))
        mean = jax.tree.map(lambda a, b: a + (b - a) / (number + 2), mean, sums)
        averaged, following = finish(mean)
        better = _choose_better(_choose_better(best, finish(sums)[0]), averaged)
        is_raised = (better.margin > best.margin) | (_left(better) > _left(best))
        raised = (is_raised, better.least > best.least)
        counted = jnp.where(jnp.stack(raised, axis=1), number + 1, counted)
        return (better, mean, following, counted), shares

    start = (first, sums, shares, counted)
    (best, _, _, counted), shares = jax.lax.scan(one_round, start, jnp.arange(num_rounds))
    return Rounds(first, best, counted, shares)


def _choose_better(first: Margin, second: Margin) -> Margin:
    """Return the larger margin, and of what float32 leaves of both the larger: both are bounds."""
    is_better = second.margin > first.margin
    found: Margin = jax.tree.map(lambda a, b: jnp.where(is_better, b, a), first, second)
    left = jnp.maximum(_left(first), _left(second))
    rounding = jnp.where(jnp.isfinite(left), found.margin - left, found.rounding)
    return found._replace(
        rounding=rounding,
        alone=jnp.maximum(first.alone, second.alone),
        least=jnp.maximum(first.least, second.least),
    )


def _left(own: Margin) -> jax.Array:
    found: jax.Array = own.margin - own.rounding
    return jnp.where(jnp.isnan(found), -jnp.inf, found)
