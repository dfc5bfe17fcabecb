"""Fully connected networks (Carbone et al. 2020, section 5 and supplement tables 3-7)."""

from __future__ import annotations

import jax
from flax import linen as nn

from bnn_adv.networks.activations import ACTIVATIONS


class MLP(nn.Module):
    """Apply fully connected hidden layers, then a linear layer that gives the logits.

    Args:
      hidden: Width of each hidden layer.
      num_classes: Number of logits.
      activation: A name in ``ACTIVATIONS``.
    """

    hidden: tuple[int, ...]
    num_classes: int = 10
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return logits of shape [B, num_classes] for inputs of shape [B, ...]."""
        activate = ACTIVATIONS[self.activation]
        x = x.reshape(x.shape[0], -1)
        for index, width in enumerate(self.hidden):
            x = activate(nn.Dense(width, name=f"hidden_{index}")(x))
        return nn.Dense(self.num_classes, name="logits")(x)
