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
import optax
from flax import linen as nn
from jax.sharding import Mesh

from bnn_adv.compute import blocks, parallel
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.compute.settings import SettingError, Settings, setting
from bnn_adv.compute.streaming import map_samples
from bnn_adv.inference import minibatches
from bnn_adv.inference.base import (
    InferenceResult,
    Progress,
    Store,
    identify,
    ignore_progress,
    keep_on_device,
    open_data,
    summarise_held_out,
)
from bnn_adv.inference.densities import Data, log_likelihood
from bnn_adv.inference.epochs import Epochs, run_epochs
from bnn_adv.networks import Params, get_apply_fn, init_params
from bnn_adv.posteriors.posterior import Posterior

# With rate 1: its updates are linear in the rate, by which every member multiplies its own.
_OPTIMISER = optax.adam(1.0)

UNIT = "minibatches"
"""What progress counts."""


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """How networks are trained.

    Args:
      num_members: Networks trained side by side; 1 is a deterministic network.
      num_epochs: Passes over the data.
      learning_rate: Adam's step size; a tuple gives every member its own.
      minibatch_size: Examples a gradient step sees.
      member_chunk: Members that are vmapped at once; None chooses, see ``blocks.choose_chunk``.
    """

    num_members: int = setting(1, least=1)
    num_epochs: int = setting(5, least=1)
    learning_rate: float | tuple[float, ...] = setting(0.001, above=0)
    minibatch_size: int = setting(128, least=1)
    member_chunk: int | None = setting(None, least=1)

    def __post_init__(self) -> None:
        """Check every field, and that there is one learning rate, or one a member."""
        super().__post_init__()
        rates = self.learning_rate
        if isinstance(rates, tuple) and len(rates) != self.num_members:
            problem = f"must be one, or one a member: got {len(rates)} for {self.num_members}"
            raise SettingError("learning_rate", f"{problem} members.")

    @property
    def num_draws(self) -> int:
        """Draws of the posterior."""
        return self.num_members


class State(NamedTuple):
    """One member's training state.

    params: The member's parameters.
    opt_state: The optimiser's state.
    loss: Sum of the losses of this epoch's minibatches so far, in nats.
    """

    params: Params
    opt_state: optax.OptState
    loss: jax.Array


@functools.partial(jax.jit, static_argnames=("network", "config"))
def init(rng_key: jax.Array, network: nn.Module, data: Data, config: Config) -> State:
    """Initialise all members, stacked on a leading axis of ``num_members``."""

    def one_member(index: jax.Array) -> State:
        params = init_params(jax.random.fold_in(rng_key, index), network, data.x.shape[1:])
        return State(params, _OPTIMISER.init(params), jnp.zeros(()))

    return jax.vmap(one_member)(jnp.arange(config.num_members))


@functools.partial(jax.jit, static_argnames=("num_data", "config"))
def start_epoch(
    rng_key: jax.Array, state: State, num_data: int, config: Config
) -> tuple[State, jax.Array]:
    """Shuffle the data of an epoch.

    Args:
      rng_key: The epoch's key; member k shuffles with ``fold_in(rng_key, k)``.
      state: Stacked states.
      num_data: Number of examples.
      config: Settings.

    Returns:
      The states with a loss of zero; indices of the minibatches, [minibatches, members, B].
    """

    def one_member(index: jax.Array) -> jax.Array:
        return minibatches.shuffle(
            jax.random.fold_in(rng_key, index), num_data, config.minibatch_size
        )

    batches = jax.vmap(one_member, out_axes=1)(jnp.arange(config.num_members))
    return state._replace(loss=jnp.zeros_like(state.loss)), batches


@functools.partial(jax.jit, static_argnames=("network", "config", "mesh"))
def step(
    state: State,
    data: Data,
    batches: jax.Array,
    first: jax.Array | int,
    count: jax.Array | int,
    *,
    network: nn.Module,
    config: Config,
    mesh: Mesh | None = None,
) -> State:
    """Train every member on ``count`` minibatches of an epoch, from number ``first``.

    Args:
      state: Stacked states.
      data: Training data, an argument so that it never becomes a constant of the program.
      batches: From ``start_epoch``.
      first: Number of the first minibatch.
      count: Number of minibatches; data, so that one program serves however an epoch is cut.
      network: The network.
      config: Settings.
      mesh: Devices, see ``run``.
    """
    apply_fn = get_apply_fn(network)
    chunk = config.member_chunk
    if chunk is None:
        one = jax.eval_shape(lambda: jax.tree.map(lambda w: w[0], state.params))
        chunk = blocks.choose_chunk(
            apply_fn, one, data.x[: config.minibatch_size], config.num_members
        )

    def one_member(member: tuple[State, jax.Array, jax.Array]) -> State:
        before, indices, rate = member

        x, labels = parallel.constrain_examples((data.x[indices], data.y[indices]), mesh)

        def loss_fn(params: Params) -> jax.Array:
            return -log_likelihood(params, Data(x, labels), apply_fn) / len(labels)

        loss, gradient = jax.value_and_grad(loss_fn)(before.params)
        updates, opt_state = _OPTIMISER.update(gradient, before.opt_state, before.params)
        updates = jax.tree.map(lambda update: rate * update, updates)
        return State(optax.apply_updates(before.params, updates), opt_state, before.loss + loss)

    rates = jnp.broadcast_to(jnp.asarray(config.learning_rate), config.num_members)

    def one_batch(index: jax.Array, members: State) -> State:
        found: State = map_samples(
            one_member,
            (members, batches[index], rates),
            chunk=chunk,
            shards=parallel.shards(mesh, config.num_members, "draws"),
        )
        return found

    found: State = jax.lax.fori_loop(first, first + count, one_batch, state)
    return found


def run(
    rng_key: jax.Array,
    network: nn.Module,
    data: Data,
    config: Config,
    *,
    held_out: Data | None = None,
    progress: Progress = ignore_progress,
    checkpoints: Checkpoints | None = None,
    mesh: Mesh | None = None,
    store: Store = keep_on_device,
) -> InferenceResult:
    """Train the members and return them as a posterior of ``num_members`` draws.

    Args:
      rng_key: Typed key; everything follows from it.
      network: The network.
      data: Training data, x [N, ...] and y [N].
      config: Settings.
      held_out: Data for a check of the result; not trained on.
      progress: Called with (minibatches done, minibatches in all, metrics).
      checkpoints: Where to save progress and to continue from it.
      mesh: Devices: members are split over ``draws``, minibatches over ``data``.
      store: Where the draws go; ``disk.store_in(folder)`` leaves them on disk.

    Raises:
      ValueError: A setting is out of range, or the checkpoints are those of another run.
      FloatingPointError: The loss stopped being finite.
    """
    data, held_out = open_data(rng_key, network, data, held_out)
    num_data = data.x.shape[0]
    state = init(jax.random.fold_in(rng_key, 0), network, data, config)
    data = parallel.replicate(data, mesh)
    state, trace = run_epochs(
        rng_key,
        parallel.spread(state, mesh, "draws"),
        Epochs(
            start=lambda key, current: start_epoch(key, current, num_data, config),
            step=functools.partial(step, data=data, network=network, config=config, mesh=mesh),
            summarise=lambda losses: {"loss": float(losses.mean())},
            num_epochs=config.num_epochs,
            num_batches=minibatches.count(num_data, config.minibatch_size),
            loss_name="training loss",
        ),
        progress=progress,
        checkpoints=checkpoints,
        identity=identify("sgd", rng_key, network, config, data, mesh),
    )
    posterior = Posterior(get_apply_fn(network), store(parallel.gather(state.params, mesh)))
    diagnostics: dict[str, Any] = {"loss": [numbers["loss"] for numbers in trace]}
    diagnostics |= summarise_held_out(posterior, held_out) | {"warnings": []}
    return InferenceResult(posterior, diagnostics, None)
