"""Which classes a targeted attack aims at, and in which order."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Int

from bnn_adv.attacks.base import Loss


def rank_targets(loss: Loss, most: int | None = None) -> Int[jax.Array, "B K"]:
    """Return the classes to aim at, the most likely one first, int32 [B, K].

    The label is left out: it is the likeliest class of an input that does not fool. Which class it
    is where the input fools already is not known here; then the least likely one is left out.

    Args:
      loss: At the clean inputs.
      most: Largest K, at least 1; None: all C - 1.

    Returns:
      K is the smaller of ``most`` and C - 1.

    Raises:
      ValueError: The loss does not say what the classes' probabilities are.
    """
    if loss.log_probs is None:
        raise ValueError("Aiming at classes needs Loss.log_probs [B, C], got None: return them.")
    order = jnp.argsort(loss.log_probs, axis=-1, descending=True).astype(jnp.int32)
    others = jnp.where(loss.success[:, None], order[:, :-1], order[:, 1:])
    return others[:, :most]
