"""SWAG: a Gaussian around the path of SGD (Maddox et al. 2019, arXiv 1902.02476).

After ``num_epochs`` of training, SGD goes on at a constant, high rate. Of its iterates, one each
epoch, ``moments`` keeps mean, variances and the last deviations, and draws from their Gaussian.
``num_runs`` above one is MultiSWAG (Wilson, Izmailov 2020, arXiv 2002.08791): an equal mixture of
such Gaussians from as many initialisations. The loss is the negative log posterior over N.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from jax.tree_util import Partial

from bnn_adv.compute import parallel
from bnn_adv.compute.settings import setting
from bnn_adv.inference import members, minibatches, moments
from bnn_adv.inference.base import (
    InferenceResult,
    RunOptions,
    draw_anew,
    identify,
    open_data,
)
from bnn_adv.inference.densities import Data
from bnn_adv.inference.epochs import Epochs, run_epochs
from bnn_adv.inference.members import Training
from bnn_adv.networks import get_apply_fn
from bnn_adv.posteriors.sampler import Sampler

_OPTIMISER = optax.sgd(1.0, momentum=0.9)

UNIT = "minibatches"
"""What progress counts."""


@dataclasses.dataclass(frozen=True)
class Config(members.Config):
    """How the iterates are made.

    Args:
      num_runs: Runs of training, each with a Gaussian of its own.
      num_epochs: Passes over the data before the first iterate.
      num_swag_epochs: Passes after that, each of which gives one iterate.
      rank: Deviations of the last iterates that are kept, K.
      learning_rate: Step size of SGD with momentum 0.9 before the first iterate.
      swag_learning_rate: The constant step size after that.
    """

    num_runs: int = setting(1, least=1)
    num_epochs: int = setting(10, least=0)
    num_swag_epochs: int = setting(20, least=2)
    rank: int = setting(20, least=2)
    learning_rate: float = setting(0.05, above=0)
    swag_learning_rate: float = setting(0.02, above=0)


class State(NamedTuple):
    """The training state, every leaf with a leading axis of runs.

    training: See ``members.State``.
    epoch: Number of the epoch, from 1.
    moments: Of the iterates so far.
    """

    training: members.State
    epoch: jax.Array
    moments: moments.Moments

    @property
    def loss(self) -> jax.Array:
        """Sums of the losses of this epoch's minibatches so far, in nats."""
        return self.training.loss


def init(rng_key: jax.Array, data: Data, *, training: Training) -> State:
    """Initialise all runs; moments are zero."""
    start, rank = members.init(rng_key, data, training=training), count_deviations(training.config)
    epoch = jnp.zeros(training.num_members, jnp.int32)
    return State(start, epoch, moments.zeros(start.params, rank))


def count_deviations(config: Config) -> int:
    """Return how many deviations there are, K: the rank, or all iterates where they are fewer."""
    return min(config.rank, config.num_swag_epochs)


def start_epoch(
    rng_key: jax.Array,
    state: State,
    num_data: int,
    epoch: jax.Array | int = 0,
    *,
    training: Training,
) -> tuple[State, members.Batches]:
    """Shuffle the data of an epoch and count it."""
    started, batches = members.start_epoch(
        rng_key, state.training, num_data, epoch, training=training
    )
    return state._replace(training=started, epoch=state.epoch + 1), batches


def step(
    state: State,
    data: Data,
    batches: members.Batches,
    first: int,
    count: int,
    *,
    training: Training,
    mesh: Mesh | None = None,
) -> State:
    """Train on ``count`` minibatches, as ``members.step``; an epoch's last gives an iterate."""
    config = training.config
    is_late = state.epoch > config.num_epochs
    rates = jnp.where(is_late, config.swag_learning_rate, config.learning_rate)
    after = members.step(
        state.training, data, batches, first, count, rates, training=training, mesh=mesh
    )
    state = state._replace(training=after)
    return _collect(state, config) if first + count == len(batches.indices) else state


@functools.partial(jax.jit, static_argnames="config")
def _collect(state: State, config: Config) -> State:
    """Add the iterates at the end of an epoch to the moments, from ``num_epochs`` on."""
    number = state.epoch - config.num_epochs
    found = jax.vmap(moments.add)(state.moments, state.training.params, number)
    return state._replace(moments=found)


def run(
    rng_key: jax.Array,
    network: nn.Module,
    data: Data,
    config: Config,
    options: RunOptions = RunOptions(),
) -> InferenceResult:
    """Train, collect iterates and draw from their Gaussians; arguments as for ``sgd.run``.

    Returns:
      ``num_samples`` draws; ``sample`` and ``sampler`` draw fresh ones.
    """
    data, options = open_data(rng_key, network, data, options, likelihood=config.likelihood)
    mesh = options.mesh
    training = Training(network, config, members.posterior_loss, _OPTIMISER, config.num_runs)
    state, num_data = init(jax.random.fold_in(rng_key, 0), data, training=training), len(data.x)
    data, num_epochs = parallel.replicate(data, mesh), config.num_epochs + config.num_swag_epochs
    state, trace = run_epochs(
        rng_key,
        parallel.spread(state, mesh, "draws"),
        Epochs(
            start=lambda key, now, epoch: start_epoch(key, now, num_data, epoch, training=training),
            step=functools.partial(step, data=data, training=training, mesh=mesh),
            summarise=members.mean_loss,
            num_epochs=num_epochs,
            num_batches=minibatches.count(num_data, config.minibatch_size),
            loss_name="training loss",
        ),
        options=options,
        identity=identify("swag", rng_key, network, config, data, options.mesh),
    )
    draw = Partial(moments.draw, parallel.gather(state.moments, mesh))
    return draw_anew(
        jax.random.fold_in(rng_key, 1 + num_epochs),
        Sampler(get_apply_fn(network), draw),
        config.num_samples,
        {"loss": [numbers["loss"] for numbers in trace]},
        options=options,
    )
