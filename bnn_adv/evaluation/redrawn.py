"""Log-probabilities of draws that are made for one prediction and forgotten."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bnn_adv.attacks import batches
from bnn_adv.attacks.base import Settings
from bnn_adv.compute import parallel
from bnn_adv.compute.types import HostImages, RngKey
from bnn_adv.posteriors.posterior import log_probs
from bnn_adv.posteriors.sampler import Sampler, check_num_samples

_AT_ONCE = 10
"""Draws in memory."""


def draw_log_probs(
    rng_key: RngKey,
    sampler: Sampler,
    x: HostImages,
    *,
    num_samples: int,
    settings: Settings = Settings(),
) -> Float[np.ndarray, "M N C"]:
    """Return the log-probabilities of new draws, each by itself, [M, N, C].

    Means over groups of them are predictions that each see draws of their own, whatever the size
    of a group. Draw i follows from the key and i alone.

    Args:
      rng_key: Typed key.
      sampler: Where draws come from.
      x: Images, [N, ...].
      num_samples: Draws, M, at least 1.
      settings: Batch and chunk sizes.

    Raises:
      ValueError: ``num_samples`` is below one.
    """
    check_num_samples("num_samples", num_samples)
    images = parallel.replicate(jnp.asarray(x), settings.mesh)
    parts = []
    for start in range(0, num_samples, _AT_ONCE):
        count = min(_AT_ONCE, num_samples - start)
        keys = batches.derive_keys(rng_key, np.arange(start, start + count))
        posterior = sampler.sample_each(keys)
        chunk = settings.sample_chunk and min(settings.sample_chunk, count)
        each = log_probs(posterior, images, sample_chunk=chunk, batch_size=settings.batch_size)
        parts.append(parallel.to_host(each))
    return np.concatenate(parts)
