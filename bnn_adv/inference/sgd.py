"""Train networks by stochastic gradient descent: one, or a deep ensemble under ``vmap``.

Deep ensembles: Lakshminarayanan, Pritzel, Blundell 2017, arXiv 1612.01474. Members differ in
their initialisation and in the order of their minibatches. The loss is the plain cross-entropy,
as in the published comparison (Carbone et al. 2020, supplement section 11).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from bnn_adv.densities import Data
from bnn_adv.inference import minibatches
from bnn_adv.inference.base import (
    InferenceResult,
    Progress,
    check_finite,
    check_positive,
    ignore_progress,
    summarise_held_out,
)
from bnn_adv.networks import Params, get_apply_fn, init_params
from bnn_adv.posterior import Posterior


@dataclasses.dataclass(frozen=True)
class Config:
    """Say how networks are trained.

    Args:
      num_members: Networks trained side by side; 1 is a deterministic network.
      num_epochs: Passes over the data.
      learning_rate: Adam's step size.
      minibatch_size: Examples a gradient step sees.
      member_chunk: Members that are vmapped at once; bounds the memory of large ensembles.
    """

    num_members: int = 1
    num_epochs: int = 5
    learning_rate: float = 0.001
    minibatch_size: int = 128
    member_chunk: int = 10


class State(NamedTuple):
    """Hold one member's training state.

    params: The member's parameters.
    opt_state: The optimiser's state.
    """

    params: Params
    opt_state: optax.OptState


def init(rng_key: jax.Array, network: nn.Module, data: Data, config: Config) -> State:
    """Initialise all members, stacked on a leading axis of ``num_members``."""

    def one_member(index: jax.Array) -> State:
        params = init_params(jax.random.fold_in(rng_key, index), network, data.x.shape[1:])
        return State(params, _optimiser(config).init(params))

    return jax.vmap(one_member)(jnp.arange(config.num_members))


@functools.partial(jax.jit, static_argnames=("network", "config"), donate_argnames=("state",))
def step(
    rng_key: jax.Array, state: State, data: Data, *, network: nn.Module, config: Config
) -> tuple[State, jax.Array]:
    """Train every member for one epoch.

    Args:
      rng_key: The epoch's key; member k shuffles with ``fold_in(rng_key, k)``.
      state: Stacked states.
      data: Training data, an argument so that it never becomes a constant of the program.
      network: The network.
      config: Settings.

    Returns:
      The stacked states, and each member's mean training loss in nats, [members].
    """
    optimiser = _optimiser(config)
    apply_fn = get_apply_fn(network)

    def one_member(member: tuple[jax.Array, State]) -> tuple[State, jax.Array]:
        index, member_state = member

        def one_batch(carry: State, indices: jax.Array) -> tuple[State, jax.Array]:
            def loss_fn(params: Params) -> jax.Array:
                logits = apply_fn(params, data.x[indices])
                labels = data.y[indices]
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

            loss, gradient = jax.value_and_grad(loss_fn)(carry.params)
            updates, opt_state = optimiser.update(gradient, carry.opt_state, carry.params)
            return State(optax.apply_updates(carry.params, updates), opt_state), loss

        batches = minibatches.shuffle(
            jax.random.fold_in(rng_key, index), data.x.shape[0], config.minibatch_size
        )
        member_state, losses = jax.lax.scan(one_batch, member_state, batches)
        return member_state, losses.mean()

    chunk = min(config.member_chunk, config.num_members)
    members = (jnp.arange(config.num_members), state)
    return jax.lax.map(one_member, members, batch_size=chunk)


def run(
    rng_key: jax.Array,
    network: nn.Module,
    data: Data,
    config: Config,
    *,
    held_out: Data | None = None,
    progress: Progress = ignore_progress,
) -> InferenceResult:
    """Train the members and return them as a posterior of ``num_members`` draws.

    Args:
      rng_key: Typed key; everything follows from it.
      network: The network.
      data: Training data, x [N, ...] and y [N].
      config: Settings.
      held_out: Data for a check of the result; not trained on.
      progress: Called with (epochs done, epochs, metrics).

    Raises:
      ValueError: A setting is out of range.
      FloatingPointError: The loss stopped being finite.
    """
    _check(config)
    state = init(jax.random.fold_in(rng_key, 0), network, data, config)
    trace: list[Any] = []
    for epoch in range(config.num_epochs):
        key = jax.random.fold_in(rng_key, 1 + epoch)
        state, losses = step(key, state, data, network=network, config=config)
        trace.append(np.asarray(losses, np.float64))
        check_finite("training loss", trace[-1], f"epoch {epoch + 1}", "learning_rate")
        progress(epoch + 1, config.num_epochs, {"loss": float(trace[-1].mean())})
    posterior = Posterior(get_apply_fn(network), state.params)
    diagnostics: dict[str, Any] = {"loss": [float(losses.mean()) for losses in trace]}
    diagnostics |= summarise_held_out(posterior, held_out) | {"warnings": []}
    return InferenceResult(posterior, diagnostics, None)


def _optimiser(config: Config) -> optax.GradientTransformation:
    return optax.adam(config.learning_rate)


def _check(config: Config) -> None:
    check_positive(config, "num_members", "num_epochs", "minibatch_size", "member_chunk")
    if not config.learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, got {config.learning_rate}.")
