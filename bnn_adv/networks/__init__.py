"""Classifiers as Flax Linen modules, and their parameters as plain pytrees."""

from bnn_adv.compute.types import ApplyFn, Params
from bnn_adv.networks.activations import ACTIVATIONS
from bnn_adv.networks.apply import count_params, get_apply_fn, init_params
from bnn_adv.networks.convnet import (
    ConvNet,
    Convolution,
    Convolve,
    convolve_and_pool,
    max_pool,
    take_patches,
)
from bnn_adv.networks.mlp import MLP
from bnn_adv.networks.registry import ARCHITECTURES, NETWORKS, build_network, find_network
from bnn_adv.networks.small_convnet import SmallConvNet

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "MLP",
    "NETWORKS",
    "ApplyFn",
    "ConvNet",
    "Convolution",
    "Convolve",
    "Params",
    "SmallConvNet",
    "build_network",
    "convolve_and_pool",
    "count_params",
    "find_network",
    "get_apply_fn",
    "init_params",
    "max_pool",
    "take_patches",
]
