"""From one draw's logits to the prediction of all: what is added up over draws, and its minimum.

Draws share the input. Per draw, a linear function of the input below the difference of two
probabilities is made; their sum over draws is minimised over the ball once, so that what cancels
between draws does not count. Beside it the smallest difference of every draw by itself, added up,
is a bound too, and the larger of both counts.

Each linear function may be tight at a place of one's choice. Where the sum is smallest is a good
place: made tight there, its minimum is elsewhere, and the mean of such sums, a bound too, comes
closer and closer to the best that lines can do (supporting planes of a convex function, averaged).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.bounds import balls
from bnn_adv.bounds.balls import Ball
from bnn_adv.bounds.graph import Graph
from bnn_adv.bounds.linear import (
    Range,
    bound_network,
    choose_at,
    minimise_merged,
    pull_back,
    rounding_factor,
)
from bnn_adv.certification.softmax import smallest_gap, support

LOG_ROUNDING = 2.0**-19
"""What float32 may lose between a draw's logits and its probabilities, in probability, but for the
sum over classes."""

_U32 = 2.0**-24

_ADDED = 2.0**-36
"""Relative error of a sum over up to 100,000 draws, of numbers that cancel, in float64."""


class Sums(NamedTuple):
    """What is added over draws (``least``: the smallest), for one input.

    gap: Smallest ``p_y - p_k`` of each draw by itself, [C]; by the rule of mean logits the smallest
      ``z_y - z_k``.
    rounded: The same where every difference of logits is also off by what float32 may add to it.
    rows: Coefficients on the input of what bounds it from below, [C, 1, *D].
    offset: Offsets, [C].
    sizes: Sum of absolute coefficients, [C]: what ``rows`` would weigh if nothing cancelled.
    error: What float32 may add, [C].
    reach: Largest absolute logit, by the rule of mean logits; 0 else.
    least: Smallest ``z_y - z_k`` less what float32 may add, over draws and k.
    """

    gap: Any
    rounded: Any
    rows: Any
    offset: Any
    sizes: Any
    error: Any
    reach: Any
    least: Any


FOLDING = Sums("sum", "sum", "sum", "sum", "sum", "sum", "sum", "min")
"""How ``streaming.fold_samples`` puts draws together."""


class Margin(NamedTuple):
    """What is certified of one input.

    margin: Lower bound over the ball of the smallest ``pbar_y - pbar_k`` in real arithmetic.
    rounding: What float32 may take from it.
    alone: The same bound without cancellation: every draw by itself.
    cancellation: ``|sum_s a_s| / sum_s |a_s|`` of the class that is nearest.
    nearest: That class.
    least: Lower bound of the smallest ``z_y - z_k`` of any draw, in float32.
    """

    margin: Any
    rounding: Any
    alone: Any
    cancellation: Any
    nearest: Any
    least: Any


class Way(NamedTuple):
    """How a draw is bounded.

    norm: Name of the norm.
    rule: The posterior's decision rule.
    method: ``"ibp"`` (intervals alone), ``"crown-ibp"`` (intervals, then backward from the
      logits), or ``"crown"`` and ``"alpha-crown"`` (backward from every layer).
    most_rows: See ``bound_network``.
    """

    norm: str
    rule: str
    method: str
    most_rows: int


def bound_draw(
    graph: Graph, way: Way, ball: Ball, y: jax.Array, points: jax.Array | None = None
) -> Sums:
    """Return what one draw adds.

    Args:
      graph: The network with the draw's weights.
      way: How it is bounded.
      ball: What the input may become.
      y: Label.
      points: For each class an input, [C, 1, *D], at which its bound shall be tight; None: at the
        clean input, with the lines of activations that are tight on the whole.
    """
    is_linear = way.method in ("crown", "alpha-crown")
    bounds = bound_network(graph, way.norm, ball, most_rows=way.most_rows, use_linear=is_linear)
    logits = bounds.ranges[graph.output.number]
    count = graph.output.shape[1]
    own = (jnp.arange(count) == y).astype(jnp.float64)
    differences = jnp.eye(count) - own[None, :]
    error = logits.error.reshape(count)

    def pull(rows: jax.Array, choices: Any = None) -> tuple[jax.Array, jax.Array]:
        shaped = rows.reshape(-1, *graph.output.shape)
        if way.method == "ibp":
            # Nothing is left of the input.
            return jnp.zeros((len(shaped), *graph.source.shape)), merged(rows)
        a, offset = pull_back(graph, bounds, graph.output, shaped, choices)
        paths = (jnp.abs(shaped) * logits.paths).reshape(len(shaped), -1).sum(axis=1)
        return a, offset - rounding_factor(graph) * paths

    def merged(rows: jax.Array) -> jax.Array:
        return minimise_merged(graph, bounds, rows.reshape(-1, *graph.output.shape))

    def smallest(a: jax.Array, offset: jax.Array) -> jax.Array:
        return value_at(a, ball.x) + offset + balls.minimise(way.norm, ball, a)

    below, above = pull(differences), pull(-differences)
    least_below = jnp.maximum(smallest(*below), merged(differences))
    largest = -jnp.maximum(smallest(*above), merged(-differences))
    if points is not None:
        above = pull(-differences, choose_at(graph, bounds, points))
        largest = jnp.minimum(largest, -smallest(*above))
    lower, upper = _difference_box(logits, y, least_below, largest)
    # What float32 may add to a difference; nothing to the label's with itself.
    apart = jnp.where(own > 0, 0.0, error + error @ own)
    least = jnp.where(own > 0, jnp.inf, -upper - apart).min()
    # Of the label's probability or logit less another's: a bound that is linear in the input.
    rows, offset = above
    # Offsets of draws may be large and cancel; what adding them up rounds is taken off before.
    offset, upper = offset - _ADDED * jnp.abs(offset), upper + _ADDED * jnp.abs(upper)
    if way.rule == "mean_logits":
        reach = (logits.magnitude + logits.error).max()
        rounded = -upper - apart
        return Sums(-upper, rounded, rows, offset, _sizes(rows), error + error @ own, reach, least)
    place = ball.x[None] if points is None else points
    slope, shift = support(lower, upper, -(value_at(rows, place) + offset))
    rows = -slope.reshape(count, *(1,) * (rows.ndim - 1)) * rows
    offset = shift - slope * offset
    widest = jnp.broadcast_to(error.max(), (count,))
    none = jnp.zeros(())
    gap, rounded = smallest_gap(lower, upper), smallest_gap(lower - apart, upper + apart)
    return Sums(gap, rounded, rows, offset, _sizes(rows), widest, none, least)


def _difference_box(
    logits: Range, y: jax.Array, lower: jax.Array, upper: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the box of ``z_j - z_y``, cut with that of the logits; zero for the label."""
    low, high = logits.lower.reshape(-1), logits.upper.reshape(-1)
    lower = jnp.maximum(lower, low - high[y])
    upper = jnp.minimum(upper, high - low[y])
    is_label = jnp.arange(len(low)) == y
    lower, upper = (jnp.where(is_label, 0.0, end) for end in (lower, upper))
    # What cannot be told apart in float64 is a point.
    return lower, jnp.maximum(lower, upper)


def value_at(a: jax.Array, x: jax.Array) -> jax.Array:
    """Return rows applied to an input, [R]."""
    found: jax.Array = jnp.sum((a * x).reshape(a.shape[0], -1), axis=1)
    return found


def _sizes(a: jax.Array) -> jax.Array:
    return jnp.abs(a).reshape(a.shape[0], -1).sum(axis=1)


def mean_rounding(num_classes: int, num_samples: int, reach: jax.Array) -> jax.Array:
    """Return what float32 may lose between logits and the mean over draws, in any order of sums.

    A softmax adds up C exponentials, of which the sum errs by a share of C u. The logarithm of the
    sum over S draws is carried from draw to draw, and errs each time by at most 3 u of itself and
    one, where it matters at most ``log(S C) + 1``. Of S logits of mean size r the sum errs by up to
    S u times ``S r``, for the label and another class.

    Args:
      num_classes: C.
      num_samples: Draws, S.
      reach: Mean over draws of the largest absolute logit where logits are averaged, r; else 0.
    """
    carried = 3 * num_samples * (math.log(num_samples * num_classes) + 2)
    return LOG_ROUNDING + _U32 * (2 * num_classes + carried + 2.02 * num_samples * reach)


def conclude(
    norm: str, ball: Ball, y: jax.Array, sums: Sums, num_samples: int
) -> tuple[Margin, jax.Array]:
    """Return what the sums over all draws certify of one input.

    Args:
      norm: Name of the norm.
      ball: What the input may become.
      y: Label.
      sums: Over all draws.
      num_samples: Draws, S.

    Returns:
      What is certified; and for each class where in the ball the linear bound is smallest,
      [C, 1, *D].
    """
    together = balls.minimise(norm, ball, sums.rows) + value_at(sums.rows, ball.x) + sums.offset
    # Sums of S numbers of at most these sizes, and their products with the input.
    far = jnp.max(jnp.abs(ball.x)) + ball.epsilon
    terms = num_samples + sums.rows[0].size
    slack = 2.0**-50 * terms * (sums.sizes * far + jnp.abs(sums.offset) + num_samples)
    together = (together - slack) / num_samples
    alone, rounded = (
        (own - 2.0**-50 * num_samples * (num_samples + jnp.abs(own))) / num_samples
        for own in (sums.gap, sums.rounded)
    )
    is_label = jnp.arange(len(alone)) == y
    best = jnp.where(is_label, jnp.inf, jnp.maximum(alone, together))
    nearest = best.argmin()
    weight = sums.sizes[nearest]
    kept = jnp.abs(sums.rows[nearest]).sum() / jnp.where(weight > 0, weight, 1.0)
    averaging = mean_rounding(len(alone), num_samples, sums.reach / num_samples)
    moved = sums.error.max() / num_samples + averaging
    # Logits that are off move a difference of probabilities by less where these are small. An
    # infinite error leaves nothing.
    left = jnp.where(is_label, jnp.inf, jnp.maximum(best - moved, rounded - averaging)).min()
    margin = Margin(
        # What overflows is no number, and bounds nothing.
        margin=jnp.where(jnp.isnan(best.min()), -jnp.inf, best.min()),
        rounding=jnp.nan_to_num(
            jnp.where(jnp.isfinite(left), jnp.minimum(best.min() - left, moved), moved),
            nan=jnp.inf,
            posinf=jnp.inf,
        ),
        alone=jnp.where(is_label, jnp.inf, alone).min(),
        cancellation=jnp.where(weight > 0, kept, 1.0),
        nearest=nearest,
        least=jnp.where(jnp.isnan(sums.least), -jnp.inf, sums.least),
    )
    return margin, balls.minimiser(norm, ball, sums.rows)
