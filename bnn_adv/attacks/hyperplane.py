"""The shortest way to a hyperplane inside the box, in each norm; exactly, by sorting."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bnn_adv.compute.types import Images, Numbers


def step_to_plane(x: Images, normal: Images, gap: Numbers, threat: Any) -> Images:
    """Return the smallest move that reaches a hyperplane without leaving the box.

    Solve ``min |v|_p`` with ``<normal, v> = gap`` and ``x + v`` in the box (Croce, Hein 2020, arXiv
    1907.02044, section 2.1). Along the sign that closes the gap, coordinate i moves by
    ``min(t, room_i)`` for l_inf and by ``min(t |normal_i|, room_i)`` for l_2, with ``room`` the way
    to the wall and the smallest t that is enough; for l_1 the steepest coordinates go to their
    walls, one by one.

    Args:
      x: Points of the box, [B, ...].
      normal: Normals of the planes, [B, ...], of any length.
      gap: How much the linear function must grow, [B]; negative: fall.
      threat: Its norm and box; its radius does not matter.

    Returns:
      The moves, [B, ...]. Where the box does not reach the plane, the move to the face of the box
      that comes nearest; zero where the normal or the gap is.
    """
    flat = normal.reshape(x.shape[0], -1)
    at = x.reshape(flat.shape)
    largest = jnp.abs(flat).max(axis=1)
    safe = jnp.where(largest > 0, largest, 1.0)
    # Saturated posteriors have gradients of any size: their squares would leave float32's range.
    size, need = jnp.abs(flat) / safe[:, None], jnp.abs(gap) / safe
    sign = jnp.sign(flat) * jnp.sign(gap)[:, None]
    room = jnp.where(sign > 0, threat.upper - at, at - threat.lower) * (sign != 0)
    if threat.norm == "l1":
        moved = jax.vmap(_fill)(size, room, need)
    else:
        rate = (size > 0).astype(size.dtype) if threat.norm == "linf" else size
        moved = jax.vmap(_grow)(size, rate, room, need)
    # A gap that is no number leads nowhere.
    return jnp.where(jnp.isfinite(moved), sign * moved, 0.0).reshape(x.shape)


def _grow(size: jax.Array, rate: jax.Array, room: jax.Array, need: jax.Array) -> jax.Array:
    """Return ``min(t rate, room)`` with the t that meets the need, all the room where none does.

    It solves ``sum_i size_i min(t rate_i, room_i) = need``.
    """
    moves = rate > 0
    meets_wall = jnp.where(moves, room / jnp.where(moves, rate, 1.0), jnp.inf)
    order = jnp.argsort(meets_wall)
    ends, slope, full = meets_wall[order], (size * rate)[order], (size * room)[order]
    still_growing = jnp.cumsum(slope[::-1])[::-1]
    gained_before = jnp.cumsum(full) - full
    times = (need - gained_before) / jnp.where(still_growing > 0, still_growing, 1.0)
    # Stretch k holds if its own time ends before the k-th coordinate meets its wall.
    fits = (times <= ends) & (still_growing > 0)
    time = jnp.where(fits.any(), jnp.maximum(times[jnp.argmax(fits)], 0.0), jnp.inf)
    return jnp.where(moves, jnp.minimum(time * jnp.where(moves, rate, 1.0), room), 0.0)


def _fill(size: jax.Array, room: jax.Array, need: jax.Array) -> jax.Array:
    """Return the moves that meet the need, the largest ``size`` first."""
    order = jnp.argsort(size, descending=True)
    size, room = size[order], room[order]
    full = size * room
    left = need - (jnp.cumsum(full) - full)
    moved = jnp.clip(left / jnp.where(size > 0, size, 1.0), 0.0, room)
    return jnp.zeros_like(moved).at[order].set(moved)
