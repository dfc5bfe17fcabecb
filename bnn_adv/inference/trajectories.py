"""Lengths of HMC's trajectories, and their leapfrog steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_SLACK = 5e-4
"""Of a step: the length is a multiple of the first step size, which rounding may make smaller."""

_JITTER = 1 << 20
"""What a transition's key is folded with: others split it, which are its first few numbers."""


def draw_length(rng_key: jax.Array, length: float | jax.Array, jitter: float) -> jax.Array:
    """Draw a length, uniform on ``(1 - jitter, 1 + jitter)`` times the given one.

    Args:
      rng_key: Of the transition; what else it is used for stays as it is.
      length: The mean.
      jitter: In [0, 1).
    """
    key = jax.random.fold_in(rng_key, _JITTER)
    return length * jax.random.uniform(key, (), jnp.float32, 1 - jitter, 1 + jitter)


def count_steps(
    length: float | jax.Array, step_size: jax.Array, *, most: int, nearest: bool = False
) -> jax.Array:
    """Return how many leapfrog steps a trajectory of a given length has, int32.

    ``max(1, int(length / step_size))``, as Pyro's HMC: as the step size adapts, the number changes
    and the length stays.

    Args:
      length: Step size times number of steps, above 0.
      step_size: Of the next transition.
      most: Steps at most, whatever the step size.
      nearest: The nearest number in place of the whole steps that fit: lengths that vary then have
        their mean.
    """
    count = jnp.floor(length / step_size + (0.5 if nearest else _SLACK))
    return jnp.clip(count, 1, most).astype(jnp.int32)
