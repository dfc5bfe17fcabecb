"""Signs that an attack did not fail but was blind."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv import objectives, parallel
from bnn_adv.objectives import Objective
from bnn_adv.posterior import Posterior, check_sample_chunk


def zero_gradients(
    objective: Objective,
    posterior: Posterior,
    x: Any,
    y: Any,
    *,
    batch_size: int = 128,
    sample_chunk: int | None = None,
) -> np.ndarray:
    """Return for which clean inputs the attack gradient is exactly zero in every coordinate.

    An attack that follows such a gradient stays where it is; the accuracy that it leaves says
    nothing about the posterior.

    Args:
      objective: What the attack maximises.
      posterior: The draws that the attacker knows.
      x: Clean inputs, [N, ...].
      y: Labels, [N].
      batch_size: Inputs at once.
      sample_chunk: Draws at once; None chooses from the size of the network.

    Returns:
      Booleans, [N].
    """
    x, y = np.asarray(x), np.asarray(y)
    size = min(batch_size, x.shape[0])
    chunk = check_sample_chunk(posterior, sample_chunk, x[:size])
    # The last batch overlaps the one before it, so that only one shape compiles.
    starts = [min(start, x.shape[0] - size) for start in range(0, x.shape[0], size)]
    result = np.zeros(x.shape[0], bool)
    for start in starts:
        rows = slice(start, start + size)
        zero = _is_zero(posterior, x[rows], y[rows], objective, chunk)
        result[rows] = parallel.to_host(zero)
    return result


@functools.partial(jax.jit, static_argnames=("objective", "chunk"))
def _is_zero(
    posterior: Posterior, x: jax.Array, y: jax.Array, objective: Objective, chunk: int
) -> jax.Array:
    gradient = objectives.value_and_gradient(
        objective, posterior, x, y, sample_chunk=chunk
    ).gradient
    return jnp.all(gradient.reshape(x.shape[0], -1) == 0, axis=-1)
