"""Flax modules as pure functions, their parameters as plain pytrees."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from bnn_adv.compute.types import ApplyFn, Images, Logits, Params, RngKey


@functools.cache
def get_apply_fn(network: nn.Module) -> ApplyFn:
    """Return ``apply_fn(params, x) -> logits`` of a network.

    Equal networks give the very same function, so that it can be a static argument of ``jit``.
    """

    def apply_fn(params: Params, x: Images) -> Logits:
        logits: Any = network.apply({"params": params}, x)
        found: Logits = logits
        return found

    return apply_fn


def init_params(rng_key: RngKey, network: nn.Module, input_shape: tuple[int, ...]) -> Params:
    """Draw parameters from the network's own initialiser, in the network's own order.

    Args:
      rng_key: A typed key.
      network: The network.
      input_shape: Shape of one input, without the batch axis.
    """
    shape = tuple(input_shape)
    flat = flatten_dict(_init(rng_key, network, shape))
    return unflatten_dict({name: flat[name] for name in _names(network, shape)})


@functools.partial(jax.jit, static_argnames=("network", "input_shape"))
def _init(rng_key: jax.Array, network: nn.Module, input_shape: tuple[int, ...]) -> Params:
    return network.init(rng_key, jnp.zeros((1, *input_shape)))["params"]


@functools.lru_cache(maxsize=64)
def _names(network: nn.Module, input_shape: tuple[int, ...]) -> tuple[tuple[str, ...], ...]:
    """Return the names of parameters as the network makes them; JAX sorts what a program returns.

    The order says what noise variational inference gives to each.
    """
    names: list[tuple[str, ...]] = []

    def look(rng_key: jax.Array) -> None:
        params = network.init(rng_key, jnp.zeros((1, *input_shape)))["params"]
        names.extend(flatten_dict(params))

    jax.eval_shape(look, jax.random.key(0))
    return tuple(names)


def count_params(params: Params) -> int:
    """Return the number of scalars in a pytree of parameters."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(params))
