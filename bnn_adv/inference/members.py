"""Networks trained side by side by stochastic gradients: what ``sgd`` and its relatives share.

A method says what is minimised (``Training.loss``) and by which optimiser; shuffling, ``vmap``
over members, learning rates and meshes are here, passes over the data are ``epochs``'.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from bnn_adv.compute import blocks, parallel
from bnn_adv.compute.identity import Named
from bnn_adv.compute.settings import setting
from bnn_adv.compute.streaming import map_samples
from bnn_adv.inference import minibatches
from bnn_adv.inference.base import RunOptions
from bnn_adv.inference.densities import (
    LIKELIHOODS,
    Data,
    MethodConfig,
    Prior,
    get_likelihood,
    logdensity_fn,
)
from bnn_adv.inference.epochs import Epochs, run_epochs
from bnn_adv.inference.robust import make_step, start_params
from bnn_adv.networks import Params, get_apply_fn

ADAM = optax.adam(1.0)
"""With rate 1: its updates are linear in the rate, by which every member multiplies its own."""


@dataclasses.dataclass(frozen=True)
class Config(MethodConfig):
    """Settings of methods that train on the posterior's density and then draw.

    Args:
      num_samples: Draws of the returned posterior.
      num_epochs: Passes over the data.
      learning_rate: The optimiser's step size.
      minibatch_size: Examples a gradient step sees.
      prior: The prior.
      likelihood: A name in ``densities.LIKELIHOODS``.
    """

    num_samples: int = setting(50, least=1)
    num_epochs: int = setting(20, least=1)
    learning_rate: float = setting(0.001, above=0)
    minibatch_size: int = setting(128, least=1)
    prior: Prior = Prior()
    likelihood: str = setting("categorical", choices=tuple(LIKELIHOODS))

    @property
    def num_draws(self) -> int:
        """Draws of the posterior."""
        return self.num_samples


class Loss(Protocol):
    """What is minimised, by name of argument."""

    def __call__(
        self,
        params: Params,
        batch: Data,
        rng_key: jax.Array,
        *,
        num_data: int,
        training: Training,
    ) -> jax.Array:
        """Return what a minibatch costs, a scalar in nats; its key serves no other minibatch."""


class Training(NamedTuple):
    """What is trained, and how: the static part of every program.

    network: The network.
    config: The method's settings, with ``num_epochs`` and ``minibatch_size``, and what ``loss``
      asks for.
    loss: What is minimised.
    optimiser: With rate 1, see ``ADAM``.
    num_members: Networks trained side by side.
    member_chunk: Members that are vmapped at once; None chooses, see ``blocks.choose_chunk``.
    """

    network: nn.Module
    config: Any
    loss: Loss
    optimiser: optax.GradientTransformation = ADAM
    num_members: int = 1
    member_chunk: int | None = None


class State(NamedTuple):
    """The members' training state, every leaf with a leading axis of members.

    params: Their parameters.
    opt_state: The optimiser's states.
    loss: Sums of the losses of this epoch's minibatches so far, in nats.
    """

    params: Params
    opt_state: optax.OptState
    loss: jax.Array


class Batches(NamedTuple):
    """An epoch's minibatches.

    indices: Examples of every minibatch, [minibatches, members, B].
    rng_key: Minibatch i of member k has the key ``fold_in(fold_in(rng_key, i), k)``.
    epoch: Number of the epoch, from 0.
    """

    indices: jax.Array
    rng_key: jax.Array
    epoch: jax.Array | int


def posterior_loss(
    params: Params, batch: Data, rng_key: jax.Array, *, num_data: int, training: Training
) -> jax.Array:
    """Return ``-log p(w | D) / N`` up to a constant, estimated from a minibatch; see ``Loss``.

    Its minimum is the posterior's mode, at any temperature.
    """
    config, apply_fn = training.config, get_apply_fn(training.network)
    density = logdensity_fn(
        params,
        batch,
        apply_fn=apply_fn,
        prior=config.prior,
        likelihood=get_likelihood(config),
        num_data=num_data,
    )
    return -density / num_data


@functools.partial(jax.jit, static_argnames="training")
def init(rng_key: jax.Array, data: Data, *, training: Training) -> State:
    """Initialise all members: member k from ``fold_in(rng_key, k)``."""

    def one_member(index: jax.Array) -> State:
        key = jax.random.fold_in(rng_key, index)
        params = start_params(key, training.network, data.x.shape[1:], training.config)
        return State(params, training.optimiser.init(params), jnp.zeros(()))

    return jax.vmap(one_member)(jnp.arange(training.num_members))


@functools.partial(jax.jit, static_argnames=("num_data", "training"))
def start_epoch(
    rng_key: jax.Array,
    state: State,
    num_data: int,
    epoch: jax.Array | int = 0,
    *,
    training: Training,
) -> tuple[State, Batches]:
    """Shuffle the data of an epoch: member k with ``fold_in(rng_key, k)``.

    Returns:
      The states with a loss of zero; the minibatches.
    """

    def one_member(index: jax.Array) -> jax.Array:
        key = jax.random.fold_in(rng_key, index)
        return minibatches.shuffle(key, num_data, training.config.minibatch_size)

    indices = jax.vmap(one_member, out_axes=1)(jnp.arange(training.num_members))
    noise_key = jax.random.fold_in(rng_key, training.num_members)
    return state._replace(loss=jnp.zeros_like(state.loss)), Batches(indices, noise_key, epoch)


@functools.partial(jax.jit, static_argnames=("training", "mesh"))
def step(
    state: State,
    data: Data,
    batches: Batches,
    first: jax.Array | int,
    count: jax.Array | int,
    rates: jax.Array,
    *,
    training: Training,
    mesh: Mesh | None = None,
) -> State:
    """Train every member on ``count`` minibatches of an epoch, from number ``first``.

    Args:
      state: Stacked states.
      data: Training data, an argument so that it never becomes a constant of the program.
      batches: From ``start_epoch``.
      first: Number of the first minibatch.
      count: Number of minibatches; data, so that one program serves however an epoch is cut.
      rates: Learning rates, [members].
      training: What is trained, and how.
      mesh: Devices: members are split over ``draws``, minibatches over ``data``.
    """
    num_members, chunk, config = training.num_members, training.member_chunk, training.config
    num_batches = batches.indices.shape[0]
    if chunk is None:
        one = jax.eval_shape(lambda: jax.tree.map(lambda w: w[0], state.params))
        batch = data.x[: training.config.minibatch_size]
        chunk = blocks.choose_chunk(get_apply_fn(training.network), one, batch, num_members)

    def one_member(member: tuple[State, jax.Array, jax.Array, jax.Array], done: jax.Array) -> State:
        before, indices, rate, key = member
        x, labels = parallel.constrain_examples((data.x[indices], data.y[indices]), mesh)

        def loss_fn(params: Params) -> jax.Array:
            own = make_step(config, key, done, config.num_epochs * num_batches)
            batch, num_data = Data(x, labels, own), data.x.shape[0]
            return training.loss(params, batch, key, num_data=num_data, training=training)

        loss, gradient = jax.value_and_grad(loss_fn)(before.params)
        updates, opt_state = training.optimiser.update(gradient, before.opt_state, before.params)
        updates = jax.tree.map(lambda update: rate * update, updates)
        return State(optax.apply_updates(before.params, updates), opt_state, before.loss + loss)

    def one_batch(index: jax.Array, members: State) -> State:
        key = jax.random.fold_in(batches.rng_key, index)
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(num_members))
        done = batches.epoch * num_batches + index
        found: State = map_samples(
            functools.partial(one_member, done=done),
            (members, batches.indices[index], rates, keys),
            chunk=chunk,
            shards=parallel.shards(mesh, num_members, "draws"),
        )
        return found

    found: State = jax.lax.fori_loop(first, first + count, one_batch, state)
    return found


def train(
    rng_key: jax.Array,
    data: Data,
    training: Training,
    *,
    options: RunOptions,
    identity: Named,
) -> tuple[Params, list[float]]:
    """Train for ``config.num_epochs`` passes over the data at ``config.learning_rate``.

    Args:
      rng_key: Typed key; everything follows from it.
      data: Training data.
      training: What is trained, and how.
      options: How it runs; for the mesh see ``step``.
      identity: What is computed, for the checkpoints.

    Returns:
      The members' parameters, stacked; the mean loss of every epoch, in nats.

    Raises:
      FloatingPointError: The loss stopped being finite.
    """
    config, num_data, mesh = training.config, data.x.shape[0], options.mesh
    state = init(jax.random.fold_in(rng_key, 0), data, training=training)
    data = parallel.replicate(data, mesh)
    rates = jnp.broadcast_to(jnp.asarray(config.learning_rate), training.num_members)
    rates = parallel.spread(rates, mesh, "draws")
    state, trace = run_epochs(
        rng_key,
        parallel.spread(state, mesh, "draws"),
        Epochs(
            start=lambda key, now, epoch: start_epoch(key, now, num_data, epoch, training=training),
            step=functools.partial(step, data=data, rates=rates, training=training, mesh=mesh),
            summarise=mean_loss,
            num_epochs=config.num_epochs,
            num_batches=minibatches.count(num_data, config.minibatch_size),
            loss_name="training loss",
        ),
        options=options,
        identity=identity,
    )
    return parallel.gather(state.params, mesh), [numbers["loss"] for numbers in trace]


def mean_loss(losses: Any) -> dict[str, float]:
    """Return the members' mean loss for the trace and for progress."""
    return {"loss": float(losses.mean())}
