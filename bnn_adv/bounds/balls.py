r"""The smallest value of a linear function within a ball, cut with the box of valid inputs.

With ``a`` the coefficients and ``d = x' - x`` the change, a lower bound that holds for every
``lambda >= 0`` is the Lagrange dual

    linf    min_d a d  over the box itself, which ball and box are
    l2      min_{d in box} a d + lambda (|d|^2 - epsilon^2)
    l1      min_{d in box} a d + lambda (|d|_1 - epsilon)

of which the first is exact and the others are at the best lambda, which bisection finds; a lambda
that is not quite the best makes the bound a little smaller, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_HALVINGS = 40


class Ball(NamedTuple):
    """What one input may become, in float64.

    x: The clean input, [1, *D].
    epsilon: Radius.
    low: Smallest change of every coordinate that box and ball allow, at most 0.
    high: Largest change, at least 0.
    """

    x: jax.Array
    epsilon: jax.Array
    low: jax.Array
    high: jax.Array


def open_ball(threat: Any, x: jax.Array, epsilon: jax.Array) -> Ball:
    """Return the ball around an input, a little larger than what float32 inputs can reach.

    Whoever checks adversarial inputs allows for their rounding: ``2^-23 (|x|_p + 32 epsilon)``.

    Args:
      threat: Norm and box.
      x: The input, [1, *D], float64.
      epsilon: Radius, float64.
    """
    size = {"linf": jnp.abs(x).max(), "l2": jnp.sqrt((x**2).sum()), "l1": jnp.abs(x).sum()}
    wide = epsilon + 2.0**-23 * (size[threat.norm] + 32 * epsilon)
    # The box's ends in float32: an input is compared with those.
    lower, upper = (float(np.float32(end)) for end in (threat.lower, threat.upper))
    low = jnp.minimum(jnp.maximum(lower - x, -wide), 0.0)
    high = jnp.maximum(jnp.minimum(upper - x, wide), 0.0)
    return Ball(x, wide, low, high)


def minimise(norm: str, ball: Ball, a: jax.Array) -> jax.Array:
    """Return a lower bound of ``a (x' - x)`` over a ball, for each of R rows; exact but rounding.

    Args:
      norm: Name of the norm.
      ball: The ball.
      a: Coefficients, [R, 1, *D].
    """
    found: jax.Array = MINIMISERS[norm](ball, a.reshape(a.shape[0], -1))
    return found


def minimise_roughly(norm: str, ball: Ball, a: jax.Array) -> jax.Array:
    """Return a lower bound without bisection: that of the box, or of the ball if it is better."""
    flat = a.reshape(a.shape[0], -1)
    box = _minimise_box(ball, flat)
    if norm == "l2":
        return jnp.maximum(box, -ball.epsilon * jnp.sqrt((flat**2).sum(axis=1)) * (1 + 1e-12))
    if norm == "l1":
        return jnp.maximum(box, -ball.epsilon * jnp.abs(flat).max(axis=1))
    return box


def minimiser(norm: str, ball: Ball, a: jax.Array) -> jax.Array:
    """Return where in the box the dual's minimum lies, [R, 1, *D]: a point to look at, no more."""
    flat = a.reshape(a.shape[0], -1)
    low, high = _ends(ball)
    if norm == "l2":
        scale = _bisect_l2(ball, flat)
        moved = jnp.clip(-flat / (2 * scale)[:, None], low, high)
    else:
        moved = jnp.where(flat > 0, low, high)
        if norm == "l1":
            moved = jnp.where(jnp.abs(flat) > _bisect_l1(ball, flat)[:, None], moved, 0.0)
    return ball.x + moved.reshape(a.shape)


def _ends(ball: Ball) -> tuple[jax.Array, jax.Array]:
    return ball.low.reshape(-1), ball.high.reshape(-1)


def _minimise_box(ball: Ball, a: jax.Array) -> jax.Array:
    low, high = _ends(ball)
    # As centre and radius: two matrix products where the rows are those of many inputs.
    return a @ ((low + high) / 2) - jnp.abs(a) @ ((high - low) / 2)


def _minimise_l2(ball: Ball, a: jax.Array) -> jax.Array:
    low, high = _ends(ball)
    scale = jax.lax.stop_gradient(_bisect_l2(ball, a))[:, None]
    moved = jnp.clip(-a / (2 * scale), low, high)
    dual = (a * moved + scale * moved**2).sum(axis=1) - scale[:, 0] * ball.epsilon**2
    return jnp.maximum(dual, _minimise_box(ball, a))


def _bisect_l2(ball: Ball, a: jax.Array) -> jax.Array:
    """Return the lambda at which the unrestricted step, cut with the box, has length epsilon."""
    low, high = _ends(ball)
    norm = jnp.sqrt((a**2).sum(axis=1))
    top = norm / (2 * jnp.maximum(ball.epsilon, 1e-250)) + 1e-250

    def is_long(scale: jax.Array) -> jax.Array:
        moved = jnp.clip(-a / (2 * scale)[:, None], low, high)
        return (moved**2).sum(axis=1) > ball.epsilon**2

    return _halve(is_long, top)


def _minimise_l1(ball: Ball, a: jax.Array) -> jax.Array:
    low, high = _ends(ball)
    level = jax.lax.stop_gradient(_bisect_l1(ball, a))
    room = jnp.where(a > 0, -low, high)
    gain = jnp.maximum(jnp.abs(a) - level[:, None], 0.0) * room
    return jnp.maximum(-gain.sum(axis=1) - level * ball.epsilon, _minimise_box(ball, a))


def _bisect_l1(ball: Ball, a: jax.Array) -> jax.Array:
    """Return the level above which coordinates, gone to their walls, use up epsilon."""
    low, high = _ends(ball)
    room = jnp.where(a > 0, -low, high)

    def is_long(level: jax.Array) -> jax.Array:
        return jnp.where(jnp.abs(a) > level[:, None], room, 0.0).sum(axis=1) > ball.epsilon

    return _halve(is_long, jnp.abs(a).max(axis=1) + 1e-250)


def _halve(is_long: Callable[[jax.Array], jax.Array], top: jax.Array) -> jax.Array:
    """Return about the smallest level at which a step is not too long."""

    def body(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        long = is_long(middle)
        return jnp.where(long, middle, low), jnp.where(long, high, middle)

    found: jax.Array = jax.lax.fori_loop(0, _HALVINGS, body, (jnp.zeros_like(top), top))[1]
    return found


MINIMISERS: dict[str, Callable[[Ball, jax.Array], jax.Array]] = {
    "linf": _minimise_box,
    "l2": _minimise_l2,
    "l1": _minimise_l1,
}
"""By the norm: ``(ball, a [R, d]) -> lower bounds [R]``."""
