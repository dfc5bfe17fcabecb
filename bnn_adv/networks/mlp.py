"""Fully connected networks (Carbone et al. 2020, section 5 and supplement tables 3-7)."""

from __future__ import annotations

import dataclasses

from flax import linen as nn

from bnn_adv.compute.settings import Settings, setting
from bnn_adv.compute.types import Images, Logits
from bnn_adv.networks.activations import ACTIVATIONS


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of a fully connected network.

    Args:
      hidden: Units a hidden layer.
      depth: Hidden layers.
      activation: Of every hidden layer.
    """

    hidden: int = setting(128, least=1)
    depth: int = setting(1, least=1)
    activation: str = setting("relu", choices=tuple(ACTIVATIONS))


def build(config: Config, num_classes: int) -> nn.Module:
    """Return the network."""
    return MLP((config.hidden,) * config.depth, num_classes, config.activation)


def describe(config: Config) -> str:
    """Return the network in the paper's words."""
    depth = "" if config.depth == 1 else str(config.depth)
    return f"fc{depth}, {config.hidden} units, {config.activation}"


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
    def __call__(self, x: Images) -> Logits:
        """Return logits of shape [B, num_classes] for inputs of shape [B, ...]."""
        activate = ACTIVATIONS[self.activation]
        x = x.reshape(x.shape[0], -1)
        for index, width in enumerate(self.hidden):
            x = activate(nn.Dense(width, name=f"hidden_{index}")(x))
        return nn.Dense(self.num_classes, name="logits")(x)
