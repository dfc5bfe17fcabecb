"""Networks by the paper's names."""

from __future__ import annotations

from flax import linen as nn

from bnn_adv.networks.activations import ACTIVATIONS
from bnn_adv.networks.convnet import ConvNet, Convolution
from bnn_adv.networks.mlp import MLP


def build_network(
    architecture: str,
    *,
    hidden: int,
    num_classes: int,
    activation: str,
    convolution: Convolution = "auto",
) -> nn.Module:
    """Build a network from the paper's names.

    Args:
      architecture: ``"fc"``, ``"fc2"`` .. ``"fc5"`` (that many hidden layers) or ``"conv"``.
      hidden: Width of every hidden layer, or channels of the second convolution.
      num_classes: Number of logits.
      activation: A name in ``ACTIVATIONS``.
      convolution: See ``Convolve``.

    Raises:
      ValueError: An unknown name, or a width below one.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"Unknown activation {activation!r}. Known: {', '.join(ACTIVATIONS)}.")
    if hidden < 1:
        raise ValueError(f"hidden must be at least 1, got {hidden}.")
    if architecture == "conv":
        return ConvNet(hidden, num_classes, activation, convolution)
    depths = {"fc": 1} | {f"fc{depth}": depth for depth in range(2, 6)}
    if architecture not in depths:
        raise ValueError(
            f"Unknown architecture {architecture!r}. Known: {', '.join(depths)}, conv."
        )
    return MLP((hidden,) * depths[architecture], num_classes, activation)
