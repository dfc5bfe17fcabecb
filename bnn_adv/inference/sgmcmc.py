"""Drive stochastic-gradient Markov kernels: chains whose steps see one minibatch each.

    grad log p(w | D)  ~  grad log p(w) + (N / B) sum_{i in batch} grad log p(y_i | f(x_i, w))

Every chain shuffles the data anew for each epoch. Draws are transitions that end a stretch of
``thinning``, in cycles where a method has them; their log density is computed on the full data, so
that R-hat, ESS and curves mean what they mean for other chains. Nothing is rejected: too long a
step, or too noisy a gradient, widens the draws silently. A run with half the step shows it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from bnn_adv.compute import parallel
from bnn_adv.compute.settings import SettingError, setting
from bnn_adv.inference import mcmc, minibatches
from bnn_adv.inference.base import (
    InferenceResult,
    RunOptions,
    check_finite,
    identify,
    open_data,
)
from bnn_adv.inference.chains import Calls, Plan, run_chains, stack_chains
from bnn_adv.inference.conclude import conclude
from bnn_adv.inference.cycles import Cycle
from bnn_adv.inference.densities import Data, get_likelihood, logdensity_fn
from bnn_adv.inference.robust import make_step
from bnn_adv.inference.states import count_starting, map_chains, start_chains, train_ensemble
from bnn_adv.inference.transitions import Gradients
from bnn_adv.networks import Params, get_apply_fn
from bnn_adv.posteriors.posterior import Posterior

UNIT = "minibatches"
"""What progress counts."""

_DRAWS_PER_CALL = 10
"""Draws that wait on the device for the host."""

Gradient = Callable[[Params, Data], Params]
"""Maps a position and a minibatch to an estimate of ``grad log p(w | D)``, at temperature one."""


class Kernel(NamedTuple):
    """The transitions of one chain; states are pytrees of arrays.

    init: ``(rng_key, position) -> state``.
    step: ``(rng_key, state, minibatch, index) -> state``; index is 0 after the warm-up, negative
      before. The gradient is that of temperature one: the kernel's noise makes the temperature.
    position: ``state -> position``.
    """

    init: Callable[[jax.Array, Params], Any]
    step: Callable[[jax.Array, Any, Data, jax.Array], Any]
    position: Callable[[Any], Params]


_MOST_TRANSITIONS = 2**31 - 1

Build = Callable[[Gradient, Any], Kernel]
"""A kernel file's ``build``: maps the gradient and the settings to the kernel."""


class Info(NamedTuple):
    """What is kept of a draw.

    logdensity: Its log density on the full data, in nats, up to a constant.
    """

    logdensity: jax.Array


@dataclasses.dataclass(frozen=True)
class Config(mcmc.Config):
    """Settings that all chains share.

    Args:
      num_samples: Draws kept of each chain.
      num_warmup: Transitions a chain before the first kept draw: burn-in.
      thinning: Keep every so many-th transition; an epoch's, or more, makes the draws' log
        densities on the full data cheap beside them.
      minibatch_size: Examples a transition sees, B.
    """

    num_warmup: int = setting(10_000, least=0)
    thinning: int = setting(500, least=1, most=1_000_000)
    minibatch_size: int = setting(128, least=1)

    has_keys: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check every field, and that transitions can be counted in int32."""
        super().__post_init__()
        if self.precondition:
            problem = "is for chains on all data: hmc, nuts, mclmc, adjusted_mclmc. Give 0, got "
            raise SettingError("precondition", f"{problem}{self.precondition}.")
        count = self.num_warmup + self.cycle.end(self.num_samples - 1)
        if count > _MOST_TRANSITIONS:
            problem = f"makes {count:,} transitions a chain, with the other settings: at most "
            raise SettingError("num_samples", f"{problem}{_MOST_TRANSITIONS:,} can be counted.")

    @property
    def cycle(self) -> Cycle:
        """Which transitions end a draw."""
        return Cycle(0, self.num_samples, self.thinning)


class Target(NamedTuple):
    """What is sampled, but for the data: static arguments of every device call.

    build: The kernel.
    network: The network.
    config: Settings of the kernel and its chains.
    mesh: Devices.
    """

    build: Build
    network: nn.Module
    config: Any
    mesh: Mesh | None

    def density(self, params: Params, data: Data, num_data: int, temperature: float) -> jax.Array:
        """Return the log density, from all data or a minibatch of them."""
        return logdensity_fn(
            params,
            self.split_examples(data),
            apply_fn=get_apply_fn(self.network),
            prior=self.config.prior,
            likelihood=get_likelihood(self.config),
            num_data=num_data,
            temperature=temperature,
            centred=True,
        )

    def kernel(self, num_data: int) -> Kernel:
        """Return the kernel; minibatches are arguments of its transitions."""
        gradient = jax.grad(lambda params, batch: self.density(params, batch, num_data, 1.0))
        return self.build(gradient, self.config)

    def densities(
        self, rng_key: jax.Array, positions: Params, data: Data, rows: jax.Array | None = None
    ) -> jax.Array:
        """Return the tempered log density of every chain, from all data or rows of its own.

        Attacks of a robust likelihood start at the same points at every call.
        """
        data = data._replace(step=make_step(self.config, rng_key))

        def one_chain(_: jax.Array, own: tuple[Params, jax.Array | None]) -> jax.Array:
            seen = data if own[1] is None else _take(data, own[1])
            return self.density(own[0], seen, len(data.y), self.config.temperature)

        found: jax.Array = self.map_chains(one_chain, (positions, rows))
        return found

    def map_chains(self, fn: Callable[[jax.Array, Any], Any], states: Any) -> Any:
        """Map ``fn`` over (number, state) of all chains, at the run's precision."""
        return map_chains(fn, states, self.config, self.mesh)

    def split_examples(self, data: Data) -> Data:
        """Split examples over the mesh's axis ``data``, where that is possible."""
        if parallel.shards(self.mesh, len(data.y), "data") == 1:
            return data
        x, y = parallel.constrain_examples((data.x, data.y), self.mesh)
        return Data(x, y, data.step)


@functools.partial(jax.jit, static_argnames=("target",))
def init(rng_key: jax.Array, data: Data, trained: Params | None = None, *, target: Target) -> Any:
    """Start every chain, see ``mcmc.init``."""
    kernel, shape = target.kernel(len(data.y)), data.x.shape[1:]
    return start_chains(rng_key, kernel.init, target.network, shape, target.config, trained)


@functools.partial(jax.jit, static_argnames=("target",))
def warm_up(
    rng_key: jax.Array,
    states: Any,
    data: Data,
    first: jax.Array | int,
    count: jax.Array | int,
    *,
    target: Target,
) -> tuple[Any, Info]:
    """Make ``count`` transitions of the burn-in, from number ``first``.

    Args:
      rng_key: Key of the run's transitions.
      states: Of all chains.
      data: Training data.
      first: Number of the first transition.
      count: At least one; data, so that one program serves however the warm-up is cut.
      target: What is sampled.

    Returns:
      States; the last minibatch's estimate of the log density, [chains].
    """
    num_batches = minibatches.count(len(data.y), target.config.minibatch_size)

    def one_transition(index: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        return _advance(rng_key, index, carry, data, target)

    batches = _shuffle(rng_key, first // num_batches, data, target)
    states, batches = jax.lax.fori_loop(first, first + count, one_transition, (states, batches))
    positions = target.kernel(len(data.y)).position(states)
    rows = batches[:, (first + count - 1) % num_batches]
    return states, Info(target.densities(rng_key, positions, data, rows))


@functools.partial(jax.jit, static_argnames=("target",))
def step(
    rng_key: jax.Array,
    states: Any,
    data: Data,
    first: jax.Array | int,
    count: jax.Array | int,
    *,
    target: Target,
) -> tuple[Any, tuple[Any, Info]]:
    """Make ``count`` transitions after the warm-up, from number ``first``.

    Args:
      rng_key: Key of the run's transitions.
      states: Of all chains.
      data: Training data.
      first: Number of the first transition.
      count: At least one, at most ``most_transitions(first, cycle)``; data, so that one program
        serves however the chain is cut.
      target: What is sampled.

    Returns:
      The states; positions, [_DRAWS_PER_CALL, chains, ...], and infos, [_DRAWS_PER_CALL, chains],
      of which as many are draws as ended within the call.
    """
    config, kernel = target.config, target.kernel(len(data.y))
    cycle, num_warmup = config.cycle, config.num_warmup
    num_batches = minibatches.count(len(data.y), config.minibatch_size)

    def space(leaf: jax.Array) -> jax.Array:
        return jnp.zeros((_DRAWS_PER_CALL, *leaf.shape), leaf.dtype)

    def one_transition(index: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        before, positions, density = carry
        after = _advance(rng_key, num_warmup + index, before, data, target)
        position, draw = kernel.position(after[0]), cycle.count_draws(index)
        # Each transition of a draw takes its place; the last one stays.
        place = draw - cycle.count_draws(first)
        positions = jax.tree.map(lambda all_, one: all_.at[place].set(one), positions, position)
        density = jax.lax.cond(
            cycle.count_draws(index + 1) > draw,
            lambda: density.at[place].set(target.densities(rng_key, position, data)),
            lambda: density,
        )
        return after, positions, density

    batches = _shuffle(rng_key, (num_warmup + first) // num_batches, data, target)
    positions = jax.tree.map(space, kernel.position(states))
    density = space(jnp.zeros(config.num_chains))
    (states, _), positions, density = jax.lax.fori_loop(
        first, first + count, one_transition, ((states, batches), positions, density)
    )
    return states, (positions, Info(density))


def most_transitions(first: int, cycle: Cycle) -> int:
    """Return how many transitions ``step`` has space for from number ``first``."""
    return cycle.end(cycle.count_draws(first) + _DRAWS_PER_CALL - 1) - first


def run(
    build: Build,
    rng_key: jax.Array,
    network: nn.Module,
    data: Data,
    config: Any,
    options: RunOptions = RunOptions(),
) -> InferenceResult:
    """Burn in, sample, and return the kept draws of all chains, chain after chain.

    Args:
      build: The kernel.
      rng_key: Typed key; everything follows from it.
      network: The network.
      data: Training data, x [N, ...] and y [N].
      config: Settings of the kernel.
      options: How it runs. R-hat and ESS are those of predictive log-probabilities of its held-out
        data; of its mesh chains are split over ``draws``, minibatches over ``data``.

    Returns:
      ``num_chains * num_samples`` draws; no fresh ones can be drawn.

    Raises:
      ValueError: The checkpoints are those of another run.
      FloatingPointError: A chain's log density stopped being finite: its steps are too long.
    """
    data, options = open_data(rng_key, network, data, options, likelihood=config.likelihood)
    mesh = options.mesh
    starts, moves = (jax.random.fold_in(rng_key, number) for number in range(2))
    target, cycle = Target(build, network, config, mesh), config.cycle
    whole, data = data, parallel.replicate(data, mesh)
    plan = Plan(
        config.num_warmup,
        cycle.end(config.num_samples - 1),
        cycle.count_draws,
        records_draws=True,
    )

    def begin(trained: Params | None = None) -> Any:
        return parallel.spread(init(starts, data, trained, target=target), mesh, "draws")

    def learn(states: Any) -> tuple[Any, None]:
        if config.init != "ensemble":
            return states, None
        key, size = jax.random.fold_in(rng_key, 2), plan.num_warmup + plan.num_transitions
        trained = train_ensemble(key, network, whole, config, options, num_transitions=size)
        return begin(trained), None

    def watch(done: int, total: int, numbers: dict[str, float]) -> None:
        # Such a chain never returns.
        density = numbers.get("logdensity", 0.0)
        check_finite("log density", density, f"minibatch {done}", "step_size")
        options.progress(done, total, numbers)

    ran = run_chains(
        begin(),
        Calls(
            learn,
            lambda *now: warm_up(moves, now[0], data, *now[1:], target=target),
            lambda *now: step(moves, now[0], data, *now[1:], target=target),
            functools.partial(most_transitions, cycle=cycle),
        ),
        plan,
        options=dataclasses.replace(options, progress=watch),
        # The code too, as of ``mcmc``.
        identity=identify(mcmc.name_of(build), rng_key, network, config, data, mesh, kernel=build),
    )
    posterior = Posterior(
        get_apply_fn(network), options.store(jax.tree.map(stack_chains, ran.positions))
    )
    record = jax.tree.map(lambda values: values[:, None], ran.record)
    # Of all data: a transition computes one of a minibatch.
    share = config.num_chains * min(config.minibatch_size / len(data.y), 1.0)
    spent = Gradients(
        share * cycle.end(config.num_samples - 1),
        share * config.num_warmup,
        starting=count_starting(config, len(whole.y)),
    )
    return conclude(posterior, record, options.held_out, spent)


def _advance(
    rng_key: jax.Array,
    index: jax.Array,
    carry: tuple[Any, jax.Array],
    data: Data,
    target: Target,
) -> tuple[Any, jax.Array]:
    """Make transition ``index``, the warm-up's included, of all chains."""
    states, batches = carry
    epoch, place = jnp.divmod(index, batches.shape[1])
    batches = jax.lax.cond(
        place == 0, lambda: _shuffle(rng_key, epoch, data, target), lambda: batches
    )
    kernel, num_warmup = target.kernel(len(data.y)), target.config.num_warmup
    key = jax.random.fold_in(jax.random.fold_in(rng_key, 0), index)

    def one_chain(chain: jax.Array, own: tuple[Any, jax.Array]) -> Any:
        own_key = jax.random.fold_in(key, chain)
        batch = _take(data, own[1])._replace(step=make_step(target.config, own_key))
        return kernel.step(own_key, own[0], batch, index - num_warmup)

    return target.map_chains(one_chain, (states, batches[:, place])), batches


def _shuffle(rng_key: jax.Array, epoch: jax.Array | int, data: Data, target: Target) -> jax.Array:
    """Return every chain's minibatches of an epoch, [chains, minibatches, B]."""
    key = jax.random.fold_in(jax.random.fold_in(rng_key, 1), epoch)

    def one_chain(chain: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, chain)
        return minibatches.shuffle(own, len(data.y), target.config.minibatch_size)

    return jax.vmap(one_chain)(jnp.arange(target.config.num_chains))


def _take(data: Data, rows: jax.Array) -> Data:
    return Data(data.x[rows], data.y[rows], data.step)
