"""States of several chains: how they start, and how a function is mapped over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from bnn_adv.compute import parallel
from bnn_adv.compute.streaming import map_samples
from bnn_adv.inference.densities import sample_prior
from bnn_adv.networks import Params, init_params


def map_chains(
    fn: Callable[[jax.Array, Any], Any], states: Any, config: Any, mesh: Mesh | None
) -> Any:
    """Map ``fn`` over (number, state) of all chains, at the run's precision.

    Args:
      fn: Maps one chain's number and state to a pytree of arrays.
      states: Stacked states.
      config: Has ``num_chains`` and ``precision``.
      mesh: Devices: chains are split over ``draws``.

    Returns:
      What ``fn`` returns, stacked.
    """
    count = config.num_chains
    with jax.default_matmul_precision(config.precision):
        # On a CPU one after the other: there batches of matrix products are slow.
        return map_samples(
            lambda chain: fn(*chain),
            (jnp.arange(count), states),
            chunk=1 if jax.default_backend() == "cpu" else count,
            shards=parallel.shards(mesh, count, "draws"),
        )


def start_chains(
    rng_key: jax.Array,
    init_fn: Callable[[jax.Array, Params], Any],
    network: nn.Module,
    shape: tuple[int, ...],
    config: Any,
) -> Any:
    """Start every chain at its own draw of the prior or of the network's initialiser.

    Args:
      rng_key: Typed key.
      init_fn: A kernel's ``init``.
      network: The network.
      shape: Of one example.
      config: Settings of the chains.

    Returns:
      Stacked states.
    """

    def one_chain(index: jax.Array) -> Any:
        key = jax.random.fold_in(rng_key, index)
        position = init_params(key, network, shape)
        if config.init == "prior":
            position = sample_prior(key, position, config.prior, temperature=config.temperature)
        return init_fn(jax.random.fold_in(key, 1), position)

    with jax.default_matmul_precision(config.precision):
        state = jax.vmap(one_chain)(jnp.arange(config.num_chains))
    # BlackJAX starts from Python numbers, whose weak types every transition makes strong: without
    # this, all programs would compile twice.
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)
