"""Stand-ins for a posterior: attack something simpler, and see whether the posterior falls for it.

Papernot, McDaniel, Goodfellow 2016, arXiv 1605.07277: adversarial inputs transfer between models.
Where they break a posterior that withstands attacks on itself, its own gradients were masked, as
they are by averaging over saturated draws. The stand-in gives directions only: what is reached is
judged by the posterior, and an attack goes on where the stand-in alone is fooled.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.compute import programs
from bnn_adv.compute.disk import as_arrays
from bnn_adv.compute.leaves import from_plain, is_key
from bnn_adv.compute.types import RngKey
from bnn_adv.posteriors.posterior import Posterior, one_draw

Surrogate = Literal["posterior", "one_draw", "mean_weights"]

SURROGATES: tuple[Surrogate, ...] = ("posterior", "one_draw", "mean_weights")


class Transfer(NamedTuple):
    """A posterior that is attacked by another model's gradients.

    guide: The model whose gradients are followed.
    judge: The posterior: value, success and log-probabilities are its own.
    """

    guide: Posterior
    judge: Posterior


def make_surrogate(rng_key: RngKey, posterior: Posterior, kind: Surrogate) -> Posterior:
    """Return the model whose gradients stand in for a posterior's.

    Args:
      rng_key: Typed key; chooses the draw.
      posterior: S draws.
      kind: ``"posterior"`` (itself), ``"one_draw"`` (one of its draws, each as likely) or
        ``"mean_weights"`` (the network of the mean weights).

    Raises:
      ValueError: An unknown kind.
    """
    if kind == "posterior":
        return posterior
    if kind == "one_draw":
        return posterior.take(np.asarray(_choose(rng_key, posterior.num_samples)))
    if kind != "mean_weights":
        raise ValueError(f"Unknown surrogate {kind!r}. Known: {', '.join(SURROGATES)}.")
    samples = posterior.samples
    template = one_draw(posterior)

    def average(leaf: np.ndarray, like: Any) -> Any:
        if is_key(like):
            # Keys have no mean: the first draw's stands for all.
            return from_plain(jnp.asarray(leaf[:1]), like)
        return np.mean(leaf, axis=0, keepdims=True, dtype=np.float64).astype(leaf.dtype)

    means = map(average, as_arrays(samples), jax.tree.leaves(template))
    mean = jax.tree.unflatten(jax.tree.structure(template), list(means))
    return dataclasses.replace(posterior, samples=mean, shards=1)


@programs.jit
def _choose(rng_key: RngKey, num_samples: int) -> jax.Array:
    return jax.random.randint(rng_key, (1,), 0, num_samples, jnp.int32)
