"""The layers of a network that have weights, as the network calls them.

A method that asks what stands in front of a kernel (dropout of its inputs, curvature by its inputs
and outputs) visits the layers while the network runs, and works for every network made of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from bnn_adv.compute.types import Logits, Params
from bnn_adv.networks.convnet import Convolve

KINDS = (nn.Dense, nn.Conv, Convolve)
"""Layers whose kernel has shape [..., inputs, outputs], and inputs [B, ..., inputs]."""

Visit = Callable[[str, jax.Array, Callable[[jax.Array], jax.Array]], jax.Array]
"""Maps a layer's name, its inputs and the layer itself to the outputs that the network sees."""


class Layer(NamedTuple):
    """A layer with weights.

    name: Its parameters are ``name/kernel`` and, where it has one, ``name/bias``.
    kernel_size: Height and width of a convolution; None of a dense layer.
    kind: Name of its class.
    inputs: Shape of its inputs for one example, without the batch axis.
    outputs: Shape of its outputs, likewise.
    has_bias: Whether it has a bias.
    stride: Step of a convolution's kernel; 1 of a dense layer.
    """

    name: str
    kernel_size: Any
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    has_bias: bool
    stride: int = 1


def visit_layers(visit: Visit, network: nn.Module, params: Params, x: jax.Array) -> Logits:
    """Apply a network, every layer with weights through ``visit``.

    Args:
      visit: Called in the order of the network.
      network: The network.
      params: Its parameters.
      x: Inputs, [B, ...].
    """

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__" or not isinstance(module, KINDS):
            return call(*args, **kwargs)
        return visit("/".join(module.path), args[0], call)

    with nn.intercept_methods(intercept):
        found: Any = network.apply({"params": params}, x)
    logits: Logits = found
    return logits


@functools.lru_cache(maxsize=64)
def list_layers(network: nn.Module, input_shape: tuple[int, ...]) -> tuple[Layer, ...]:
    """Return the layers with weights in the order in which the network calls them.

    Args:
      network: The network.
      input_shape: Shape of one input, without the batch axis.

    Raises:
      ValueError: A layer is called twice.
    """
    found: list[Layer] = []

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__" or not isinstance(module, KINDS):
            return call(*args, **kwargs)
        # Its own outputs: options of a call may ask for what follows from them.
        outputs = call(args[0])
        size = getattr(module, "kernel_size", None)
        name, shapes = "/".join(module.path), (args[0].shape[1:], outputs.shape[1:])
        has_bias, stride = getattr(module, "use_bias", True), getattr(module, "stride", 1)
        found.append(Layer(name, size, type(module).__name__, *shapes, has_bias, stride))
        return outputs

    def look(rng_key: jax.Array, x: jax.Array) -> Logits:
        with nn.intercept_methods(intercept):
            logits: Logits = network.init_with_output(rng_key, x)[0]
        return logits

    example = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    jax.eval_shape(look, jax.random.key(0), example)
    names = [layer.name for layer in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"The layers {', '.join(sorted(twice))} are called more than once, and what is done to "
            "a layer's inputs is defined for those that are called once: use svi or a sampler."
        )
    return tuple(found)
