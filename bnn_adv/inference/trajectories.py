"""Leapfrog steps of an HMC transition."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_SLACK = 5e-4
"""Of a step: the length is a multiple of the first step size, which rounding may make smaller."""


def count_steps(length: float, step_size: jax.Array, *, most: int) -> jax.Array:
    """Return how many leapfrog steps a trajectory of fixed length has, int32.

    ``max(1, int(length / step_size))``, as Pyro's HMC: as the step size adapts, the number changes
    and the length stays.

    Args:
      length: Step size times number of steps, above 0.
      step_size: Of the next transition.
      most: Steps at most, whatever the step size.
    """
    count = jnp.floor(length / step_size + _SLACK)
    return jnp.clip(count, 1, most).astype(jnp.int32)
