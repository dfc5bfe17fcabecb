"""HMC as the published code runs it: on one minibatch, its draws resampled with replacement.

The published code cuts the data into minibatches of 5,000, runs a chain anew on each, and keeps
the last one's draws only. No chain hands anything to the next, so that the result is that of one
chain on the last minibatch: the posterior given 5,000 images. Predictions then take draws at random
indices, with replacement: of S draws about ``S (1 - (1 - 1/S)^S)``, 63 %, are used.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.densities import Data
from bnn_adv.inference import minibatches
from bnn_adv.posterior import Posterior


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


def resample(rng_key: jax.Array, posterior: Posterior) -> tuple[Posterior, np.ndarray]:
    """Return as many draws as there are, at uniform random indices with replacement.

    Returns:
      The posterior of the resampled draws; their indices, [S].
    """
    size = posterior.num_samples
    indices = np.asarray(jax.random.randint(rng_key, (size,), 0, size))
    return posterior.take(indices), indices
