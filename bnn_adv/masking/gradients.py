"""Gradients that are exactly zero: an attack that follows one stays where it is."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv import objectives, parallel, programs
from bnn_adv.attacks import batches
from bnn_adv.masking.base import Case, Check, Evidence, Gradients, percent
from bnn_adv.objectives import OBJECTIVES, Objective
from bnn_adv.posterior import Posterior, check_sample_chunk
from bnn_adv.threat import random_starts

_LARGEST_SHARE = 0.05


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


@functools.partial(programs.jit, static_argnames=("objective", "chunk"))
def _is_zero(
    posterior: Posterior, x: jax.Array, y: jax.Array, objective: Objective, chunk: int
) -> jax.Array:
    gradient = objectives.value_and_gradient(
        objective, posterior, x, y, sample_chunk=chunk
    ).gradient
    return jnp.all(gradient.reshape(x.shape[0], -1) == 0, axis=-1)


def measure_gradients(rng_key: jax.Array, case: Case, used: tuple[str, ...]) -> Gradients:
    """Return the share of zero gradients of every objective, at clean inputs and random starts.

    Args:
      rng_key: Typed key for the random starts.
      case: What is probed.
      used: Names of the objectives that the caller's suite used.
    """
    keys = batches.derive_keys(rng_key, np.arange(len(case.x)))
    starts = parallel.to_host(jax.jit(random_starts)(case.threat, keys, case.x))

    def share(objective: Objective, x: np.ndarray) -> float:
        zero = zero_gradients(
            objective,
            case.posterior,
            x,
            case.y,
            batch_size=case.batch_size,
            sample_chunk=case.sample_chunk,
        )
        return float(zero.mean())

    every = OBJECTIVES.items()
    return Gradients(
        used,
        {name: share(objective, case.x) for name, objective in every},
        {name: share(objective, starts) for name, objective in every},
    )


def check_zero_gradients(evidence: Evidence) -> Check:
    """Judge exactly zero gradients (Pintor et al. 2021, arXiv 2106.09947, section 3).

    Vanishing gradients: Athalye, Carlini, Wagner 2018, arXiv 1802.00420, section 2.
    """
    clean, random = evidence.gradients.zero_clean, evidence.gradients.zero_random
    shares = {name: max(clean[name], random[name]) for name in evidence.gradients.used}
    worst = max(shares, key=lambda name: shares[name])
    raised = shares[worst] > _LARGEST_SHARE
    place = "the clean input" if clean[worst] >= random[worst] else "a random start"
    sentence = (
        f"The gradient of {worst} is exactly zero at {place} for {percent(shares[worst])} of the "
        f"images (limit {percent(_LARGEST_SHARE)}), the most of the suite's objectives"
    )
    if raised:
        alive = [name for name in clean if max(clean[name], random[name]) <= _LARGEST_SHARE]
        rest = (
            f"; {', '.join(alive)} would move it" if alive else "; no known objective does better"
        )
        sentence += f": an attack that follows it does not move{rest}"
    table = {name: {"clean": clean[name], "random": random[name]} for name in clean}
    found = {"used": list(evidence.gradients.used), "objectives": table}
    return Check("zero_gradients", raised, shares[worst], _LARGEST_SHARE, found, sentence + ".")
