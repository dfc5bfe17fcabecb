r"""The referee's smallest value of a linear function within ball and box, by sorting.

With the change ``d``, ``low <= d <= high`` and coefficients a: over the box each coordinate goes to
its end; within an l1 ball those with the largest ``|a|`` go first, until the radius is used up;
within an l2 ball ``d = clip(-a / (2 lambda))`` with the lambda that uses the radius up. The value
returned is that of the Lagrange dual at this lambda, a lower bound whatever lambda is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bnn_adv.evaluation.verification_arrays import NORMS, ROUNDING

Array = np.ndarray


class Ball(NamedTuple):
    """What inputs may become, a little more than what a referee of attacks lets pass.

    norm: Name of the norm.
    x: Clean inputs, [B, d].
    radius: Radius with tolerance, [B].
    low: Smallest changes, [B, d].
    high: Largest changes, [B, d].
    """

    norm: str
    x: Array
    radius: Array
    low: Array
    high: Array

    def take(self, rows: Any) -> Ball:
        """Return that of some inputs."""
        return Ball(self.norm, *(value[rows] for value in self[1:]))


def open_ball(norm: str, x: Array, epsilon: Array, box: tuple[float, float]) -> Ball:
    """Return balls of a radius, [B], around inputs, [B, ...], cut with a box."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    epsilon = np.asarray(epsilon, np.float64)
    radius = epsilon + 2 * ROUNDING * (NORMS[norm](x) + 32 * epsilon)
    lower, upper = (float(np.float32(end)) for end in box)
    low = np.clip(lower - x, -radius[:, None], 0.0)
    return Ball(norm, x, radius, low, np.clip(upper - x, 0.0, radius[:, None]))


def minimise(ball: Ball, a: Array) -> Array:
    """Return ``min a d`` over ball and box, [B, R], for coefficients [B, R, d]."""
    low, high = ball.low[:, None], ball.high[:, None]
    a = np.broadcast_to(a, (len(ball.x), *a.shape[1:]))
    box: Array = np.where(a > 0, a * low, a * high).sum(axis=2)
    if ball.norm == "linf":
        return box
    size, radius = np.abs(a), ball.radius[:, None]
    room = np.where(a > 0, -low, np.broadcast_to(high, a.shape))
    if ball.norm == "l1":
        order = np.argsort(-size, axis=2)
        spent = np.cumsum(np.take_along_axis(room, order, 2), axis=2)
        # The price at which the radius is used up.
        count = np.minimum((spent < radius[:, :, None]).sum(axis=2), a.shape[2] - 1)
        price = np.take_along_axis(np.take_along_axis(size, order, 2), count[:, :, None], 2)
        dual = -(np.maximum(size - price, 0.0) * room).sum(axis=2) - price[:, :, 0] * radius
    else:
        scale = _use_up(size, room, radius)[:, :, None]
        step = np.minimum(size, 2 * scale * room) / np.where(scale > 0, 2 * scale, 1.0)
        step = np.where(scale > 0, step, room)
        dual = (-size * step + scale * step**2).sum(axis=2) - scale[:, :, 0] * radius**2
    found: Array = np.maximum(dual, box)
    return found


def _use_up(size: Array, room: Array, radius: Array) -> Array:
    """Return lambda with ``sum min(size / (2 lambda), room)^2 = radius^2``, [B, R]; 0 if none."""
    limit = size / np.where(room > 0, 2 * room, 1.0)
    # The larger size / room, the earlier a coordinate is at its wall.
    order = np.argsort(-np.where(room > 0, limit, np.inf), axis=2)
    sorted_size, sorted_room, sorted_limit = (
        np.take_along_axis(v, order, 2) for v in (size, room, np.where(room > 0, limit, np.inf))
    )
    walls = np.cumsum(sorted_room**2, axis=2) - sorted_room**2
    free = np.cumsum(np.where(sorted_room > 0, sorted_size**2, 0.0)[:, :, ::-1], axis=2)[:, :, ::-1]
    left = radius[:, :, None] ** 2 - walls
    # With the first coordinates at their walls and the others free; right where the first free one
    # is not at its wall either.
    guess = np.sqrt(free / np.where(left > 0, 4 * left, 1.0))
    is_right = (left > 0) & (guess >= sorted_limit)
    first = np.argmax(is_right, axis=2)[:, :, None]
    found = np.take_along_axis(guess, first, 2)[:, :, 0]
    used: Array = np.where(is_right.any(axis=2), found, 0.0)
    return used


def minimise_roughly(ball: Ball, a: Array) -> Array:
    """Return a lower bound of the same by ball or box alone, whichever is larger, [B, R]."""
    low, high = ball.low[:, None], ball.high[:, None]
    centre, half = (np.swapaxes(part, 1, 2) for part in ((low + high) / 2, (high - low) / 2))
    box: Array = (a @ centre - np.abs(a) @ half)[:, :, 0]
    if ball.norm == "linf":
        return box
    radius = ball.radius[:, None]
    by_ball = np.sqrt((a**2).sum(axis=2)) if ball.norm == "l2" else np.abs(a).max(axis=2)
    better: Array = np.maximum(box, -radius * by_ball * (1 + 1e-12))
    return better
