"""Cut one epoch of shuffled data into full minibatches."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def count(num_data: int, batch_size: int) -> int:
    """Return the number of minibatches of one epoch, ceil(N / B)."""
    return -(-num_data // min(batch_size, num_data))


def weigh(num_data: int, batch_size: int) -> float:
    """Return N / B, by which a minibatch's log likelihood stands for that of all data.

    Over the minibatches of ``shuffle`` its mean is the sum over all examples, without bias
    (Welling and Teh 2011, equation 4).

    Args:
      num_data: Number of examples, N.
      batch_size: Examples of the minibatch, B.
    """
    return num_data / batch_size


def shuffle(rng_key: jax.Array, num_data: int, batch_size: int) -> jax.Array:
    """Return the indices of one epoch's minibatches.

    Every example is seen at least once. Where the batch size does not divide the data, the last
    batch is filled up from the front of the permutation, so that every batch by itself is a
    uniform draw without replacement and N/B scaling stays unbiased.

    Args:
      rng_key: Typed key.
      num_data: Number of examples, N.
      batch_size: Examples a batch, B; cut to N.

    Returns:
      int32 indices, [ceil(N / B), B].
    """
    batch_size = min(batch_size, num_data)
    num_batches = count(num_data, batch_size)
    permutation = jax.random.permutation(rng_key, num_data)
    padding = num_batches * batch_size - num_data
    indices = jnp.concatenate([permutation, permutation[:padding]])
    return indices.reshape(num_batches, batch_size)
