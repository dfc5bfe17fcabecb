r"""How far apart two classes' probabilities stay while logits move within a box.

Of one draw, with ``d_j = z_j - z_y`` the logits less the label's, ``l <= d <= u`` and ``d_y = 0``,

    g_k(d) = p_y - p_k = (1 - e^{d_k}) / sum_j e^{d_j}.

*Smallest value.* g_k falls with d_k, and with every other d_j falls or rises as its numerator is
positive or negative. So the minimum over the box is at ``d_k = u_k`` and every other ``d_j = u_j``
where ``u_k <= 0``, else ``l_j``; exactly.

*A line below.* Draws share the input, so that not each is at its worst at the same place. A
line ``g_k(d) >= s d_k + c`` is linear in the input once d_k is bounded by a linear function of it
(linear bounds of softmax: Wei et al. 2023, arXiv 2303.01713); lines of all draws are added before
anything is minimised.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_ULP = 2.0**-52
_LARGEST = 60.0
"""Differences above this have no lines but flat ones: e^d would use up the digits of float64."""


def smallest_gap(lower: jax.Array, upper: jax.Array) -> jax.Array:
    """Return the smallest ``p_y - p_k`` over the box, for every class k, [C]; exact but rounding.

    Args:
      lower: Smallest differences ``z_j - z_y``, [C]; zero for the label itself.
      upper: Largest ones, [C].
    """
    count = lower.shape[0]
    others = jnp.where(upper[:, None] <= 0, upper[None, :], lower[None, :])
    at = jnp.where(jnp.eye(count, dtype=bool), upper[None, :], others)
    # Each row is a vector of logits, among them the label's zero.
    top = at.max(axis=1)
    total = jnp.exp(at - top[:, None]).sum(axis=1)
    gap = (jnp.exp(-top) - jnp.exp(upper - top)) / total
    return gap - 64 * count * _ULP


def support(lower: jax.Array, upper: jax.Array, at: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""Return the line in d_k alone below every g_k that is highest at a point.

    Whatever the other differences are, ``g_k >= h(d_k)``, with the worst sum R of their e^d,

        h(t) = (1 - e^t) / (1 + e^t + R),   R = R_u where t <= 0, R_l where t >= 0,

    which falls, is concave up to ``t_0 = log(1 + R_l)`` and convex beyond. Its convex envelope on
    [l, u] is the chord from l to where it is a tangent, then h itself.

    Args:
      lower: Smallest differences, [C]; zero for the label.
      upper: Largest ones, [C].
      at: Where the line shall be high, [C].

    Returns:
      Slopes, at most 0, and offsets, [C] each.
    """
    count = lower.shape[0]
    top = jnp.minimum(upper, _LARGEST)
    low = jnp.minimum(lower, top)
    e_low, e_high = jnp.exp(jnp.minimum(lower, 300.0)), jnp.exp(jnp.minimum(upper, 300.0))
    is_other = ~jnp.eye(count, dtype=bool)
    label_free = is_other.astype(lower.dtype)
    rest_low = jnp.maximum(label_free @ e_low - 1.0, 0.0)
    rest_high = jnp.maximum(label_free @ e_high - 1.0, 0.0)

    def h(t: jax.Array) -> jax.Array:
        rest = jnp.where(t <= 0, rest_high, rest_low)
        return (1 - jnp.exp(t)) / (1 + jnp.exp(t) + rest)

    def slope_beyond(t: jax.Array) -> jax.Array:
        return -jnp.exp(t) * (2 + rest_low) / (1 + jnp.exp(t) + rest_low) ** 2

    turn = jnp.log1p(rest_low)
    start = h(low)

    def is_below(p: jax.Array) -> jax.Array:
        return h(p) + slope_beyond(p) * (low - p) <= start

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        near, far = ends
        middle = (near + far) / 2
        valid = is_below(middle)
        return jnp.where(valid, near, middle), jnp.where(valid, middle, far)

    near = jnp.clip(turn, low, top)
    touch = jax.lax.fori_loop(0, 40, halve, (near, top))[1]
    width = top - low
    chord = (h(top) - start) / jnp.where(width > 1e-9, width, 1.0)
    chord = jnp.where(width > 1e-9, chord, 0.0)
    # Tangents at or beyond the touching point are below h; where there is none, the chord is.
    point = jnp.clip(at, touch, top)
    is_tangent = (top > turn) & is_below(touch) & (slope_beyond(point) < 0)
    slope = jnp.where(is_tangent, slope_beyond(point), chord)
    slope = jnp.minimum(slope, 0.0)
    offset = jnp.where(is_tangent, h(point) - slope * point, h(top) - slope * top)
    smallest = smallest_gap(lower, upper)
    is_flat = (upper > _LARGEST) | ~jnp.isfinite(slope) | ~jnp.isfinite(offset)
    slack = 256 * count * _ULP * (1 + jnp.abs(slope) * (jnp.abs(low) + jnp.abs(top) + 1))
    return (
        jnp.where(is_flat, 0.0, slope),
        jnp.where(is_flat, smallest, offset - slack),
    )
