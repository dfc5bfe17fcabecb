"""A small network of strided convolutions without pooling, as trained with interval bounds."""

from __future__ import annotations

import dataclasses

from flax import linen as nn

from bnn_adv.compute.settings import Settings, setting
from bnn_adv.compute.types import Logits, Pictures
from bnn_adv.networks.activations import ACTIVATIONS
from bnn_adv.networks.convnet import Convolution, Convolve


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of the small network of strided convolutions.

    Args:
      channels: Of every convolution; the first has stride 2, the others stride 1.
      hidden: Units of the dense layer behind them.
      activation: After every layer but the last.
      convolution: Convolutions as patches and a matrix product, or native; auto chooses by backend.
    """

    channels: tuple[int, ...] = setting((16, 32), least=1, least_length=1)
    hidden: int = setting(100, least=1)
    activation: str = setting("relu", choices=tuple(ACTIVATIONS))
    convolution: Convolution = "auto"


def build(config: Config, num_classes: int) -> nn.Module:
    """Return the network."""
    return SmallConvNet(
        config.channels, config.hidden, num_classes, config.activation, config.convolution
    )


def describe(config: Config) -> str:
    """Return the network in a few words."""
    channels = "-".join(map(str, config.channels))
    return f"small conv, {channels} channels, {config.hidden} units, {config.activation}"


class SmallConvNet(nn.Module):
    """Apply the network that Gowal et al. 2018 (arXiv 1810.12715, table 1) call small.

    Convolution 4x4 with stride 2 to 16 channels, convolution 4x4 to 32 channels, dense layer of 100
    units, each with its activation, and a linear layer; no padding and no pooling, so that bounds
    pass through affine layers and activations alone. A kernel is never larger than what it is laid
    on: behind the first convolution the embedded digits (8x8) have 3x3 pixels left.

    Args:
      channels: Of every convolution; the first has stride 2.
      hidden: Units of the dense layer.
      num_classes: Number of logits.
      activation: A name in ``ACTIVATIONS``.
      convolution: How convolutions are computed, see ``Convolve``; the result is the same.
    """

    channels: tuple[int, ...] = (16, 32)
    hidden: int = 100
    num_classes: int = 10
    activation: str = "relu"
    convolution: Convolution = "auto"

    @nn.compact
    def __call__(self, x: Pictures) -> Logits:
        """Return logits of shape [B, num_classes] for images of shape [B, H, W, C]."""
        activate = ACTIVATIONS[self.activation]
        for index, channels in enumerate(self.channels):
            size = min(4, x.shape[1]), min(4, x.shape[2])
            stride = 1 if index else 2
            layer = Convolve(channels, size, self.convolution, stride, name=f"conv_{index}")
            x = activate(layer(x))
        x = activate(nn.Dense(self.hidden, name="hidden_0")(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.num_classes, name="logits")(x)
