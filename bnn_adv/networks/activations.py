"""Activations by name."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
from flax import linen as nn

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "leaky_relu": functools.partial(nn.leaky_relu, negative_slope=0.01),
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
}
