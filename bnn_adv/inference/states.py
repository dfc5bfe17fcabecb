"""States of several chains: how they start, and how a function is mapped over them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from bnn_adv.compute import parallel
from bnn_adv.compute.settings import Settings, setting
from bnn_adv.compute.streaming import map_samples
from bnn_adv.inference import minibatches, sgd
from bnn_adv.inference.base import RunOptions
from bnn_adv.inference.densities import Data, sample_prior
from bnn_adv.inference.preconditioning import Maps
from bnn_adv.inference.robust import get_robust
from bnn_adv.networks import Params, init_params


class Chains(NamedTuple):
    """States of all chains.

    own: The kernel's, stacked.
    maps: The coordinates that they move in; None: weights. Kept with the states, so that a run
      that is continued moves in the same ones to the bit.
    """

    own: Any
    maps: Maps | None = None


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


@dataclasses.dataclass(frozen=True)
class Ensemble(Settings):
    """How the networks are trained that chains start at, by Adam on the posterior's density.

    Args:
      num_epochs: Passes over the data.
      learning_rate: Adam's step size.
      minibatch_size: Examples a gradient step sees.
      warmup: Share of the passes in which the radius of a robust likelihood grows from zero; the
        chains count all of it.
    """

    num_epochs: int = setting(30, least=1)
    learning_rate: float = setting(0.005, above=0)
    minibatch_size: int = setting(128, least=1)
    warmup: float = setting(0.0, least=0, most=1)


def train_ensemble(
    rng_key: jax.Array,
    network: nn.Module,
    data: Data,
    config: Any,
    options: RunOptions,
    *,
    num_transitions: int,
) -> Params:
    """Train a network for every chain to start at: near modes of the posterior.

    Microcanonical Langevin ensembles (Sommer et al. 2025, arXiv 2502.06335), for any kernel.

    Args:
      rng_key: Typed key; member k starts chain k.
      network: The network.
      data: Training data.
      config: Settings of the chains, with those of the training in ``ensemble``.
      options: Of the chains. The training is never resumed, and its progress is shown as the chains
        before their first transition.
      num_transitions: Of a chain.

    Returns:
      Stacked parameters, on every device.

    Raises:
      FloatingPointError: The loss stopped being finite.
    """
    own = config.ensemble
    training = sgd.Config(
        num_members=config.num_chains,
        num_epochs=own.num_epochs,
        learning_rate=own.learning_rate,
        minibatch_size=own.minibatch_size,
        map_prior=True,
        prior=config.prior,
        likelihood=config.likelihood,
        robust=dataclasses.replace(get_robust(config), warmup=own.warmup),
    )

    def tell(done: int, total: int, numbers: dict[str, float]) -> None:
        options.progress(0, num_transitions, numbers)

    shown = RunOptions(progress=tell, mesh=options.mesh)
    found = sgd.run(rng_key, network, data, training, shown)
    return parallel.replicate(found.posterior.samples, options.mesh)


def count_starting(config: Any, num_data: int, num_before: int = 0) -> float | None:
    """Return the gradients before the first transition, of all chains, in those of all data.

    Args:
      config: Settings of the chains, with those of ``train_ensemble``.
      num_data: Training examples, N.
      num_before: Those of ``preconditioning``.

    Returns:
      None where chains start at no ensemble, and move in their weights.
    """
    if config.init != "ensemble":
        return float(num_before) if num_before else None
    size = min(config.ensemble.minibatch_size, num_data)
    each = minibatches.count(num_data, size) * size / num_data
    return float(config.num_chains * config.ensemble.num_epochs * each) + num_before


def start_chains(
    rng_key: jax.Array,
    init_fn: Callable[[jax.Array, Params], Any],
    network: nn.Module,
    shape: tuple[int, ...],
    config: Any,
    trained: Params | None = None,
) -> Any:
    """Start every chain at its own draw of the prior or of the network's initialiser.

    Args:
      rng_key: Typed key.
      init_fn: A kernel's ``init``.
      network: The network.
      shape: Of one example.
      config: Settings of the chains.
      trained: Where they start instead, stacked.

    Returns:
      Stacked states.
    """

    def one_chain(index: jax.Array, own: Params | None) -> Any:
        key = jax.random.fold_in(rng_key, index)
        position = init_params(key, network, shape) if own is None else own
        if own is None and config.init == "prior":
            position = sample_prior(key, position, config.prior, temperature=config.temperature)
        return init_fn(jax.random.fold_in(key, 1), position)

    with jax.default_matmul_precision(config.precision):
        state = jax.vmap(one_chain)(jnp.arange(config.num_chains), trained)
    # BlackJAX starts from Python numbers, whose weak types every transition makes strong: without
    # this, all programs would compile twice.
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)


def describe_states(state: Any) -> dict[str, list[float]]:
    """Return what a kernel says of the last states of all chains, one number a chain each."""
    describe = getattr(state, "describe", None)
    found: dict[str, Any] = {} if describe is None else describe()
    return {name: parallel.to_host(one).astype(float).tolist() for name, one in found.items()}
