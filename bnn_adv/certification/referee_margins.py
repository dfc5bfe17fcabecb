r"""The referee's bound of a prediction: what draws add up to, and its smallest value on a ball.

With ``d_j = z_j - z_y`` in a box ``l <= d <= u``, ``p_y - p_k = (1 - e^{d_k}) / sum_j e^{d_j}`` is
smallest where ``d_k = u_k`` and every other ``d_j`` makes the denominator large if the numerator
is positive (``u_j``), or small if it is negative (``l_j``). The sum over draws of these minima is
one bound. The other adds up, before it is minimised, lines ``s d_k + c`` below

    h(t) = -1 + (2 + R) / (1 + R + e^t),    R = sum_{j != y, k} e^{u_j} at t <= 0, e^{l_j} at t > 0

which falls, is concave up to ``log(1 + R_l)`` and convex beyond; d_k being at most affine in x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bnn_adv.certification.referee_balls import Ball, minimise
from bnn_adv.certification.referee_bounds import (
    Bounds,
    Range,
    bound,
    lines_at,
    logits_at,
    minimise_merged,
    pull,
)
from bnn_adv.certification.referee_lines import Lines
from bnn_adv.certification.referee_network import Network

_ULP = 2.0**-52
_U32 = 2.0**-24
_LARGEST = 60.0
"""Differences above this have flat lines."""

Array = np.ndarray


class Way(NamedTuple):
    """How bounds are made; all ways are sound.

    rule: Decision rule of the posterior.
    is_linear: Whether lines are pulled back from hidden layers too.
    most_rows: Elements of a layer up to which they are.
    """

    rule: str
    is_linear: bool
    most_rows: int


class Sums(NamedTuple):
    """Sums over draws, for B inputs and C classes (``least``: smallest values).

    gap: Smallest difference of the label and a class, each draw by itself, [B, C].
    rounded: The same where float32 errs by as much as it may in every difference of logits.
    rows: Coefficients of the line below it, [B, C, d].
    offset: Its offsets, [B, C].
    sizes: Absolute coefficients and offsets, nothing cancelled, [B, C].
    error: Error of float32 logits, [B].
    size: Largest absolute logits, [B].
    slack: What the referee's own float64 was allowed to err by in a difference, [B].
    least: Smallest ``z_y - z_k`` less what float32 may err by, [B].
    """

    gap: Array
    rounded: Array
    rows: Array
    offset: Array
    sizes: Array
    error: Array
    size: Array
    slack: Array
    least: Array


class Found(NamedTuple):
    """What the referee bounds of B inputs.

    margin: Lower bound of the smallest difference of predictions.
    rounding: What float32 may take from it.
    least: Lower bound of any draw's smallest difference of logits.
    clean: The prediction at the input itself, by the referee's own reading of the network, [B, C].
    drift: What float32 may move any predicted difference by.
    slack: What was taken off the margin because float64 rounds: another one's may be above by that.
    """

    margin: Array
    rounding: Array
    least: Array
    clean: Array
    drift: Array
    slack: Array


def bound_prediction(
    draws: Callable[[int], Network],
    num_samples: int,
    ball: Ball,
    y: Array,
    way: Way,
    shares: list[Array],
) -> Found:
    """Bound the prediction of all draws on balls.

    Args:
      draws: Returns the network with the weights of a draw.
      num_samples: Draws, S.
      ball: What B inputs may become.
      y: Labels, [B].
      way: How bounds are made.
      shares: Of every input the places where lines are made tight, [rounds, C, d]: changes in units
        of the radius, any number of rounds.
    """
    count = len(ball.x)
    most = max((len(own) for own in shares), default=0)
    groups = [np.array([i for i in range(count) if len(shares[i]) > r], int) for r in range(most)]
    totals: list[Sums | None] = [None] * (most + 1)
    clean: Array | float = 0.0
    for number in range(num_samples):
        network = draws(number)
        logits = logits_at(network, ball.x[:, None])[:, 0]
        clean = clean + (logits if way.rule == "mean_logits" else _softmax(logits)) / num_samples
        bounds = bound(network, ball, is_linear=way.is_linear, most_rows=way.most_rows)
        totals[0] = _add(totals[0], _one_draw(network, bounds, ball, y, way, None))
        for r, rows in enumerate(groups):
            own = ball.take(rows)
            moved = np.stack([shares[i][r] for i in rows]).astype(np.float64)
            points = own.x[:, None] + own.radius[:, None, None] * moved
            part = _one_draw(network, _take(bounds, rows), own, y[rows], way, points)
            totals[r + 1] = _add(totals[r + 1], part)
        # A wide convolution takes gigabytes here: not two of them.
        del network, bounds
    first = totals[0]
    assert first is not None
    drift, least = _drift(first, num_samples, way), first.least.copy()
    averaging = _averaging(first, num_samples, way)
    margin, left = _conclude(ball, y, first, num_samples, drift, averaging)
    mean = Sums(*(part.copy() for part in first))
    for r, rows in enumerate(groups):
        found, inner = totals[r + 1], ball.take(rows)
        assert found is not None
        for whole, summand in zip(mean, found, strict=True):
            whole[rows] += (summand - whole[rows]) / (r + 2)
        averaged = Sums(*(whole[rows] for whole in mean))
        for sums in (found, averaged):
            better = _conclude(inner, y[rows], sums, num_samples, drift[rows], averaging[rows])
            margin[rows] = np.maximum(margin[rows], better[0])
            left[rows] = np.maximum(left[rows], better[1])
        least[rows] = np.maximum(least[rows], found.least)
    clean = _softmax(np.asarray(clean)) if way.rule == "mean_logits" else np.asarray(clean)
    # Both are bounds, of real and of float32 arithmetic: rounding is what is between them.
    rounding = np.where(np.isfinite(left), np.minimum(margin - left, drift), drift)
    return Found(margin, rounding, least, clean, drift, first.slack / num_samples)


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Array = powers / powers.sum(axis=1, keepdims=True)
    return found


def _add(total: Sums | None, own: Sums) -> Sums:
    if total is None:
        return own
    added = Sums(*(a + b for a, b in zip(total, own, strict=True)))
    return added._replace(least=np.minimum(total.least, own.least))


def _take(bounds: Bounds, rows: Array) -> Bounds:
    return Bounds(
        [Range(*(part[rows] for part in own)) for own in bounds.inputs],
        [Lines(*(part[rows] for part in own)) for own in bounds.lines],
        Range(*(part[rows] for part in bounds.logits)),
        bounds.factor,
        [Range(*(part[rows] for part in own)) for own in bounds.atoms],
    )


def _one_draw(
    network: Network, bounds: Bounds, ball: Ball, y: Array, way: Way, points: Array | None
) -> Sums:
    rows, offset, lower, upper = bound_differences(network, bounds, ball, y, points)
    logits, batch = bounds.logits, np.arange(len(y))
    is_label = np.arange(lower.shape[1]) == y[:, None]
    error = logits.error + logits.error[batch, y][:, None]
    error = np.where(is_label, 0.0, error)
    least = np.where(is_label, np.inf, -upper - error).min(axis=1)
    size = (logits.size + logits.error).max(axis=1)
    far = np.abs(ball.x).max(axis=1) + ball.radius
    # Of one logit; a difference of probabilities moves by no more than that, see ``_drift``.
    slack = bounds.factor * logits.paths.max(axis=1)
    if way.rule == "mean_logits":
        weight = np.abs(rows).sum(axis=2) * far[:, None] + np.abs(offset)
        widest = error.max(axis=1)
        return Sums(-upper, -upper - error, rows, offset, weight, widest, size, 2 * slack, least)
    place = ball.x[:, None] if points is None else points
    slope, shift = line_below(lower, upper, -((rows * place).sum(axis=2) + offset))
    rows, offset = -slope[:, :, None] * rows, shift - slope * offset
    weight = np.abs(rows).sum(axis=2) * far[:, None] + np.abs(offset)
    gap, rounded = smallest_gap(lower, upper), smallest_gap(lower - error, upper + error)
    widest = logits.error.max(axis=1)
    return Sums(gap, rounded, rows, offset, weight, widest, size, slack, least)


def bound_differences(
    network: Network, bounds: Bounds, ball: Ball, y: Array, points: Array | None = None
) -> tuple[Array, Array, Array, Array]:
    """Bound the differences ``z_k - z_y`` of one draw's logits.

    Returns:
      ``a`` [B, C, d] and ``b`` [B, C] with ``z_k - z_y <= -(a x + b)`` on the ball; the smallest
      and the largest difference, [B, C].
    """
    logits, batch = bounds.logits, np.arange(len(y))
    count = logits.lower.shape[1]
    rows = np.eye(count)[None] - np.eye(count)[y][:, None]
    slack = bounds.factor * (logits.paths + logits.paths[batch, y][:, None])

    def tie(signed: Array, lines: list[Lines]) -> tuple[Array, Array, Array]:
        a, b = pull(network, lines, network.logits, signed)
        b = b - slack
        return a, b, minimise(ball, a) + (a * ball.x[:, None]).sum(axis=2) + b

    lower = np.maximum(tie(rows, bounds.lines)[2], minimise_merged(network, bounds, rows))
    a, b, smallest = tie(-rows, bounds.lines)
    smallest = np.maximum(smallest, minimise_merged(network, bounds, -rows))
    if points is not None:
        a, b, again = tie(-rows, lines_at(network, bounds, points))
        smallest = np.maximum(smallest, again)
    lower = np.maximum(lower, logits.lower - logits.upper[batch, y][:, None])
    upper = np.minimum(-smallest, logits.upper - logits.lower[batch, y][:, None])
    is_label = np.arange(count) == y[:, None]
    lower, upper = (np.where(is_label, 0.0, end) for end in (lower, upper))
    return np.broadcast_to(a, (len(y), *a.shape[1:])), b, lower, np.maximum(lower, upper)


def smallest_gap(lower: Array, upper: Array) -> Array:
    """Return the smallest ``p_y - p_k`` of a box of differences, [B, C] for every k."""
    count = lower.shape[1]
    others = np.where(upper[:, :, None] <= 0, upper[:, None], lower[:, None])
    at = np.where(np.eye(count, dtype=bool), upper[:, :, None], others)
    top = at.max(axis=2)
    total = np.exp(at - top[:, :, None]).sum(axis=2)
    found: Array = (np.exp(-top) - np.exp(upper - top)) / total - 64 * count * _ULP
    return found


def line_below(lower: Array, upper: Array, at: Array) -> tuple[Array, Array]:
    """Return slope and offset of a line in ``d_k`` below every ``p_y - p_k``, high at a place.

    Args:
      lower: Smallest differences, [B, C].
      upper: Largest differences.
      at: Where the line shall be high, [B, C].
    """
    count = lower.shape[1]
    top = np.minimum(upper, _LARGEST)
    low = np.minimum(lower, top)
    rest_low, rest_high = (
        np.maximum((np.exp(np.minimum(end, 300.0)) @ (1 - np.eye(count))) - 1, 0.0)
        for end in (lower, upper)
    )

    def h(t: Array) -> Array:
        rest = np.where(t <= 0, rest_high, rest_low)
        found: Array = (1 - np.exp(t)) / (1 + np.exp(t) + rest)
        return found

    def slope_beyond(t: Array) -> Array:
        found: Array = -np.exp(t) * (2 + rest_low) / (1 + np.exp(t) + rest_low) ** 2
        return found

    def misses(t: Array) -> Array:
        """Return by how much the tangent at t is above h at the lower end."""
        found: Array = h(t) + slope_beyond(t) * (low - t) - h(low)
        return found

    # A tangent on the convex side is below there; below the concave side it is if it is below h at
    # the lower end, which it is from some place on.
    inflection = np.clip(np.log1p(rest_low), low, top)
    near, far = inflection, top
    for _ in range(60):
        middle = (near + far) / 2
        is_below = misses(middle) <= 0
        near, far = np.where(is_below, near, middle), np.where(is_below, middle, far)
    point = np.clip(at, far, top)
    has_tangent = (top > np.log1p(rest_low)) & (misses(far) <= 0) & (slope_beyond(point) < 0)
    is_wide = top - low > 1e-9
    chord = np.where(is_wide, (h(top) - h(low)) / np.where(is_wide, top - low, 1.0), 0.0)
    slope = np.minimum(np.where(has_tangent, slope_beyond(point), chord), 0.0)
    through = np.where(has_tangent, point, top)
    offset = h(through) - slope * through
    slack = 256 * count * _ULP * (1 + np.abs(slope) * (np.abs(low) + np.abs(top) + 1))
    is_flat = (upper > _LARGEST) | ~np.isfinite(slope) | ~np.isfinite(offset)
    flat = smallest_gap(lower, upper)
    return np.where(is_flat, 0.0, slope), np.where(is_flat, flat, offset - slack)


def _conclude(
    ball: Ball, y: Array, sums: Sums, num_samples: int, drift: Array, averaging: Array
) -> tuple[Array, Array]:
    """Return the smallest mean difference of the label and any other class on the balls, [B].

    Args:
      ball: What B inputs may become.
      y: Labels, [B].
      sums: Over all draws.
      num_samples: Draws, S.
      drift: What float32 may take from any difference, [B].
      averaging: The part of that which is no error of a draw's logits.

    Returns:
      The difference in real arithmetic, and in float32.
    """
    together = minimise(ball, sums.rows) + (sums.rows * ball.x[:, None]).sum(axis=2) + sums.offset
    terms = num_samples + sums.rows.shape[2] + 16
    together = together - 2 * _ULP * terms * (sums.sizes + num_samples)
    alone, rounded = (
        own - 2 * _ULP * num_samples * (num_samples + np.abs(own))
        for own in (sums.gap, sums.rounded)
    )
    best = np.maximum(together, alone) / num_samples
    left = np.maximum(best - drift[:, None], rounded / num_samples - averaging[:, None])
    for part in (best, left):
        part[np.arange(len(y)), y] = np.inf
    return best.min(axis=1), left.min(axis=1)


def _drift(sums: Sums, num_samples: int, way: Way) -> Array:
    """Return what float32 may take from a margin, wherever it is, [B].

    The difference of two probabilities moves by at most the largest error of a logit (the absolute
    derivatives ``4 p_y p_k + 2 (1 - p_y - p_k) max(p_y, p_k)`` are at most 1).
    """
    found: Array = sums.error / num_samples + _averaging(sums, num_samples, way)
    return found


def _averaging(sums: Sums, num_samples: int, way: Way) -> Array:
    """Return what float32 may take from a margin between logits and the mean over draws, [B].

    Log probabilities are added up one after the other at worst: the i-th sum P_i <= i errs by
    ``u (|log P_i| + 6)`` relative to itself, and all of them move a mean probability by less than
    ``u S (log S + 7)``. The same of log odds, where classes compete: both have about 1 / C or more.
    """
    count = sums.gap.shape[1]
    if way.rule == "mean_logits":
        summed = (2 * num_samples + 8) * sums.size / num_samples + 8 * math.log(count) + 16
    else:
        summed = np.full(len(sums.gap), num_samples * (math.log(num_samples * count) + 7))
        summed = summed + count + 16
    is_finite = np.isfinite(sums.size) & (sums.size < 1e37)
    found: Array = np.where(is_finite, _U32 * summed, np.inf)
    return found
