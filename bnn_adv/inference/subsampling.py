"""HMC as the published code runs it: on one minibatch, its few draws resampled with replacement.

The published code cuts the data into minibatches of 5,000, runs a chain anew on each, and keeps
the last one's draws only. No chain hands anything to the next, so that the result is that of one
chain on the last minibatch: the posterior given 5,000 images. For S draws it makes
``int(S / minibatches) + 1`` transitions on each: of 60,000 images S = 500 leaves 42 draws, S = 50
leaves 5. S of these are then taken at random with replacement.

Pyro's HMC, which it calls, fixes the *length* of trajectories, the first step size times the number
of steps; as the step size adapts, the number of steps changes. The mass matrix adapts too.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.inference import minibatches
from bnn_adv.inference.densities import Data
from bnn_adv.posteriors.posterior import Posterior


def last_minibatch(rng_key: jax.Array, data: Data, minibatch_size: int) -> Data:
    """Return the last minibatch of one shuffled epoch.

    Args:
      rng_key: Typed key of the shuffle.
      data: N examples.
      minibatch_size: Examples a minibatch, B, from 1 to N.

    Raises:
      ValueError: The size is out of range.
    """
    num_data = data.x.shape[0]
    if not 1 <= minibatch_size <= num_data:
        raise ValueError(
            f"minibatch_size must lie between 1 and the number of examples ({num_data}), got "
            f"{minibatch_size}."
        )
    rows = minibatches.shuffle(rng_key, num_data, minibatch_size)[-1]
    return Data(jnp.asarray(data.x)[rows], jnp.asarray(data.y)[rows])


def transitions_per_minibatch(num_samples: int, num_data: int, minibatch_size: int) -> int:
    """Return how many transitions the published code makes on each minibatch.

    ``int(S / num_batches) + 1`` with ``num_batches = ceil(N / B)``: the most distinct draws that
    its S predictions can have.

    Args:
      num_samples: S, at least 1.
      num_data: N.
      minibatch_size: B, from 1 to N.
    """
    return num_samples // -(-num_data // minibatch_size) + 1


def resample(
    rng_key: jax.Array, posterior: Posterior, num_samples: int
) -> tuple[Posterior, np.ndarray]:
    """Return draws at uniform random indices with replacement.

    Args:
      rng_key: Typed key.
      posterior: Draws to choose from.
      num_samples: Draws to take, S.

    Returns:
      The posterior of the resampled draws; their indices, [S].
    """
    indices = np.asarray(
        jax.random.randint(rng_key, (num_samples,), 0, posterior.num_samples, jnp.int32)
    )
    return posterior.take(indices), indices
