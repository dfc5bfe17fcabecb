"""Floating-point operations of the networks, counted by hand from their shapes.

Only matrix products and convolutions count, a multiply-add as two operations; biases, activations
and pooling are left out, so that a share of the ceiling is never flattered by them. A backward
pass to the input costs a layer what its forward pass costs, and so does one to the weights.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from flax import linen as nn

from bnn_adv.networks import MLP, ConvNet


class Forward(NamedTuple):
    """The operations of one input's forward pass through one draw.

    first: The first layer's, which has no input gradient in training.
    rest: All other layers'.
    """

    first: int
    rest: int


def count_forward(network: nn.Module, input_shape: tuple[int, ...]) -> Forward:
    """Return the operations of one input's forward pass.

    Args:
      network: An ``MLP`` or a ``ConvNet``.
      input_shape: Shape of one input.

    Raises:
      TypeError: The network is of another kind.
    """
    layers = [2 * math.prod(sizes) for sizes in layer_products(network, input_shape)]
    return Forward(layers[0], sum(layers[1:]))


def layer_products(network: nn.Module, input_shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Return every layer as the product of a [rows, before] and a [before, after] matrix.

    Args:
      network: An ``MLP`` or a ``ConvNet``.
      input_shape: Shape of one input.

    Returns:
      (rows for one input, before, after) by layer.

    Raises:
      TypeError: The network is of another kind.
    """
    if isinstance(network, MLP):
        widths = (math.prod(input_shape), *network.hidden, network.num_classes)
        return [(1, before, after) for before, after in itertools.pairwise(widths)]
    if isinstance(network, ConvNet):
        return _conv_net_products(network, input_shape)
    raise TypeError(f"Cannot count the operations of {type(network).__name__}: MLP or ConvNet.")


def input_gradient(network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Return the operations of one draw-image's input gradient: forward, and back to the input."""
    first, rest = count_forward(network, input_shape)
    return 2 * (first + rest)


def weight_gradient(network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Return the operations of one image's weight gradient, as in training and in HMC.

    Forward, back to the weights, and back to every layer's input but the first one's.
    """
    first, rest = count_forward(network, input_shape)
    return 2 * first + 3 * rest


def _conv_net_products(
    network: ConvNet, input_shape: tuple[int, ...]
) -> list[tuple[int, int, int]]:
    height, width, channels = input_shape
    kernel, first_channels = 5 * 5, 32
    height, width = height - 4, width - 4
    first = (height * width, kernel * channels, first_channels)
    height, width = height // 2 - 4, width // 2 - 4
    second = (height * width, kernel * first_channels, network.hidden)
    features = (height - 1) * (width - 1) * network.hidden
    return [first, second, (1, features, network.num_classes)]
