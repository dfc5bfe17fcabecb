"""How large a posterior's logits are: large ones make softmax exactly 0 or 1, and gradients 0."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from bnn_adv.compute import parallel, programs
from bnn_adv.compute.streaming import map_samples
from bnn_adv.compute.types import AnyArray
from bnn_adv.posteriors.posterior import Posterior, check_sample_chunk


class LogitScale(NamedTuple):
    """How large the logits of S draws are at N inputs.

    mean_magnitude: Mean of ``|f(x, w_s)_k|`` over draws, inputs and classes.
    median_gap: Median over draws and inputs of the largest logit minus the second largest.
    one_hot_share: Share of pairs of a draw and an input whose float32 softmax is exactly 0 or 1
      in every class.
    """

    mean_magnitude: float
    median_gap: float
    one_hot_share: float


def measure_logits(posterior: Posterior, x: Any, *, batch_size: int = 128) -> LogitScale:
    """Return how large the logits are at clean inputs.

    Args:
      posterior: S draws of a classifier of at least two classes.
      x: Inputs, [N, ...], N at least 1.
      batch_size: Inputs at once.
    """
    x = np.asarray(x)
    size = min(batch_size, len(x))
    chunk = check_sample_chunk(posterior, None, x[:size])
    parts = []
    for start in range(0, len(x), size):
        # The last batch starts early, so that only one shape compiles; what it repeats is cut.
        first = min(start, len(x) - size)
        found = parallel.to_host(_logits(posterior, x[first : first + size], chunk))
        parts.append(found[:, start - first :])
    logits = np.concatenate(parts, axis=1)
    top = np.sort(logits, axis=-1)[..., -2:]
    return LogitScale(
        float(np.abs(logits).mean(dtype=np.float64)),
        float(np.median(top[..., 1] - top[..., 0])),
        float(np.mean(is_one_hot(logits))),
    )


@functools.partial(programs.jit, static_argnames="chunk")
def _logits(posterior: Posterior, x: jax.Array, chunk: int) -> jax.Array:
    with jax.default_matmul_precision(posterior.precision):
        found: jax.Array = map_samples(
            lambda params: posterior.logits(params, x),
            posterior.samples,
            chunk=chunk,
            shards=posterior.shards,
        )
        return found


def is_one_hot(logits: Float[AnyArray, "*S C"]) -> Bool[jax.Array, "*S"]:
    """Return whether the softmax of logits [..., C] is exactly 0 or 1 in every class, [...]."""
    probs = jax.nn.softmax(jnp.asarray(logits))
    return ((probs == 0) | (probs == 1)).all(axis=-1)
