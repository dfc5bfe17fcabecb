"""Drive a Markov kernel: chains, warm-up, thinning, devices, checkpoints, diagnostics.

A kernel is a file with ``Config`` (a subclass of the one here) and ``build``; everything that one
chain does not need to know is here. BlackJAX is imported within ``build``: that starts JAX's
devices, and a job of several processes must not do so before it has joined the others.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from bnn_adv.compute import parallel
from bnn_adv.compute.settings import PRECISIONS, setting
from bnn_adv.inference import preconditioning
from bnn_adv.inference.base import (
    InferenceResult,
    RunOptions,
    identify,
    open_data,
)
from bnn_adv.inference.chains import Calls, Plan, run_chains, stack_chains
from bnn_adv.inference.conclude import conclude
from bnn_adv.inference.densities import (
    LIKELIHOODS,
    Data,
    MethodConfig,
    Prior,
    get_likelihood,
    logdensity_fn,
)
from bnn_adv.inference.preconditioning import Maps
from bnn_adv.inference.states import (
    Chains,
    Ensemble,
    count_starting,
    describe_states,
    map_chains,
    start_chains,
    train_ensemble,
)
from bnn_adv.inference.transitions import Gradients
from bnn_adv.networks import Params, get_apply_fn
from bnn_adv.posteriors.posterior import Posterior

UNIT = "transitions"
"""What progress counts."""

_DRAWS_PER_CALL = 10
"""Draws that wait on the device for the host."""


class Kernel(NamedTuple):
    """The transitions of one chain; states are pytrees of arrays.

    init: ``(rng_key, position) -> state``.
    step: ``(rng_key, state) -> (state, info)``; info is a NamedTuple of scalars with the log
      density after the transition, ``logdensity``, in nats up to a constant. Diagnostics know
      ``acceptance_rate``, ``is_divergent``, ``energy_error``, ``num_gradients``, and, of kernels
      with a momentum that is drawn anew, the ``energy`` with it.
    adapt: ``(rng_key, state, index) -> (state, info)``: transition ``index`` of the warm-up, which
      learns; the last one leaves the state to sample with. None: the warm-up is burn-in alone.
    position: ``state -> position``.
    tune: ``(rng_key, state) -> (state, num_gradients)``: what is learned in one call, before the
      warm-up, and the gradients that it took.
    """

    init: Callable[[jax.Array, Params], Any]
    step: Callable[[jax.Array, Any], tuple[Any, Any]]
    adapt: Callable[[jax.Array, Any, jax.Array], tuple[Any, Any]] | None
    position: Callable[[Any], Params]
    tune: Callable[[jax.Array, Any], tuple[Any, Any]] | None = None


Build = Callable[[Callable[[Params], jax.Array], Any], Kernel]
"""A kernel file's ``build``: maps the log density and the settings to the kernel."""


@dataclasses.dataclass(frozen=True)
class Config(MethodConfig):
    """Settings that all chains share.

    Args:
      num_samples: Draws kept of each chain.
      num_warmup: Transitions a chain before the first kept draw; they adapt, and burn in.
      thinning: Keep every so many-th transition.
      num_chains: Chains, each with its own initialisation.
      init: Start chains at draws of the ``"prior"``, or of the ``"network"``'s initialiser, whose
        weights are far smaller than a N(0, 1) posterior's: chains drift outward for long; or at an
        ``"ensemble"``: every chain at a network of its own, trained to the posterior's mode.
      ensemble: How that is trained.
      prior: The prior.
      likelihood: A name in ``densities.LIKELIHOODS``.
      temperature: Target ``p(w | D)^(1 / T)``.
      precondition: How far the coordinates that chains move in follow the likelihood's curvature,
        so that scales are more alike, see ``bnn_adv.inference.preconditioning``: 0 are the weights,
        of a linear model 1 makes all scales alike, of networks 0.5 is a start.
      precision: Of matrix products, see ``Posterior``.
    """

    num_samples: int = setting(100, least=1)
    num_warmup: int = setting(100, least=0)
    thinning: int = setting(1, least=1, most=1_000_000)
    num_chains: int = setting(1, least=1)
    init: Literal["prior", "network", "ensemble"] = "prior"
    ensemble: Ensemble = Ensemble()
    prior: Prior = Prior()
    likelihood: str = setting("categorical", choices=tuple(LIKELIHOODS))
    temperature: float = setting(1.0, above=0)
    precondition: float = setting(0.0, least=0, most=1)
    precision: str = setting("highest", choices=PRECISIONS)

    has_keys: ClassVar[bool] = False
    optimises: ClassVar[bool] = False

    @property
    def num_draws(self) -> int:
        """Draws of the posterior."""
        return self.num_samples * self.num_chains


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

    def kernel(self, data: Data, maps: Maps | None = None) -> Kernel:
        """Return the kernel of the posterior given data, which stay arguments of a program."""
        density = functools.partial(
            logdensity_fn,
            data=data,
            apply_fn=get_apply_fn(self.network),
            prior=self.config.prior,
            likelihood=get_likelihood(self.config),
            temperature=self.config.temperature,
            centred=True,
        )
        kernel: Kernel = preconditioning.build(self.build, density, self.config, maps)
        return kernel

    def map_chains(self, fn: Callable[[jax.Array, Any], Any], states: Any) -> Any:
        """Map ``fn`` over (number, state) of all chains, at the run's precision."""
        return map_chains(fn, states, self.config, self.mesh)


@functools.partial(jax.jit, static_argnames=("target",))
def init(
    rng_key: jax.Array,
    data: Data,
    trained: Params | None = None,
    maps: Maps | None = None,
    *,
    target: Target,
) -> Chains:
    """Start every chain at its own draw of the prior or of the network's initialiser.

    Args:
      rng_key: Key of the starts.
      data: Training data.
      trained: Where chains start instead, stacked.
      maps: The coordinates that they move in.
      target: What is sampled.
    """
    kernel, shape = target.kernel(data, maps), data.x.shape[1:]
    own = start_chains(rng_key, kernel.init, target.network, shape, target.config, trained)
    return Chains(own, maps)


@functools.partial(jax.jit, static_argnames=("target",))
def tune(rng_key: jax.Array, state: Chains, data: Data, *, target: Target) -> tuple[Chains, Any]:
    """Let every chain learn what its kernel learns in one call.

    Returns:
      State; the gradients that it took, [chains], None where the kernel learns nothing.
    """
    kernel = target.kernel(data, state.maps)
    if kernel.tune is None:
        return state, None
    learn = kernel.tune

    def one_chain(chain: jax.Array, own: Any) -> tuple[Any, jax.Array]:
        tuned, count = learn(jax.random.fold_in(rng_key, chain), own)
        return tuned, jnp.asarray(count, jnp.int32)

    tuned, counts = target.map_chains(one_chain, state.own)
    tuned = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), tuned, state.own)
    return state._replace(own=tuned), counts


@functools.partial(jax.jit, static_argnames=("target",))
def warm_up(
    rng_key: jax.Array,
    state: Chains,
    data: Data,
    first: jax.Array | int,
    count: jax.Array | int,
    *,
    target: Target,
) -> tuple[Chains, Any]:
    """Make ``count`` adapting transitions, from number ``first``.

    Args:
      rng_key: Key of the warm-up.
      state: Of all chains.
      data: Training data.
      first: Number of the first transition.
      count: At least one; data, so that one program serves however the warm-up is cut.
      target: What is sampled.

    Returns:
      State; info of the last transition, [chains], but for ``num_gradients``: that of all.
    """
    kernel = target.kernel(data, state.maps)

    def one_transition(index: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        def one_chain(chain: jax.Array, own: Any) -> tuple[Any, Any]:
            key = jax.random.fold_in(jax.random.fold_in(rng_key, index), chain)
            return kernel.step(key, own) if kernel.adapt is None else kernel.adapt(key, own, index)

        after, info = target.map_chains(one_chain, carry[0])
        if hasattr(info, "num_gradients"):
            total = carry[1].num_gradients + info.num_gradients
            info = info._replace(num_gradients=total)
        return after, info

    blank = _blank(rng_key, state, data, target)[1]
    own, info = jax.lax.fori_loop(first, first + count, one_transition, (state.own, blank))
    return state._replace(own=own), info


@functools.partial(jax.jit, static_argnames=("target",))
def step(
    rng_key: jax.Array,
    state: Chains,
    data: Data,
    first: jax.Array | int,
    count: jax.Array | int,
    *,
    target: Target,
) -> tuple[Chains, tuple[Any, Any]]:
    """Make ``count`` transitions, from number ``first``; every ``thinning``-th is a draw.

    Args:
      rng_key: Key of the draws.
      state: Of all chains.
      data: Training data.
      first: Number of the first transition.
      count: At least one, at most ``most_transitions(first, thinning)``; data, so that one program
        serves however the chain is cut.
      target: What is sampled.

    Returns:
      The state; positions, [_DRAWS_PER_CALL, chains, ...], of which as many are draws as ended
      within the call; infos, [_DRAWS_PER_CALL * thinning, chains], of which ``count`` are filled.
    """
    kernel, thinning = target.kernel(data, state.maps), target.config.thinning
    read = jax.vmap(kernel.position)
    position, blank = _blank(rng_key, state, data, target)

    def space(size: int) -> Any:
        return lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype)

    def one_transition(done: jax.Array, carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        before, positions, infos = carry
        index = first + done
        after, info = target.map_chains(
            lambda chain, own: kernel.step(
                jax.random.fold_in(jax.random.fold_in(rng_key, index), chain), own
            ),
            before,
        )
        # Each transition of a draw takes its place; the last one stays.
        place = index // thinning - first // thinning
        positions = jax.tree.map(lambda all_, one: all_.at[place].set(one), positions, read(after))
        return after, positions, jax.tree.map(lambda all_, x: all_.at[done].set(x), infos, info)

    positions = jax.tree.map(space(_DRAWS_PER_CALL), position)
    infos = jax.tree.map(space(_DRAWS_PER_CALL * thinning), blank)
    own, positions, infos = jax.lax.fori_loop(
        0, count, one_transition, (state.own, positions, infos)
    )
    return state._replace(own=own), (positions, infos)


def most_transitions(first: int, thinning: int) -> int:
    """Return how many transitions ``step`` has space for from number ``first``."""
    return _DRAWS_PER_CALL * thinning - first % thinning


def run(
    build: Build,
    rng_key: jax.Array,
    network: nn.Module,
    data: Data,
    config: Any,
    options: RunOptions = RunOptions(),
) -> InferenceResult:
    """Warm up, sample, and return the kept draws of all chains, chain after chain.

    Args:
      build: The kernel.
      rng_key: Typed key; everything follows from it.
      network: The network.
      data: Training data, x [N, ...] and y [N].
      config: Settings of the kernel.
      options: How it runs. R-hat and ESS are those of predictive log-probabilities of its held-out
        data; of its mesh chains are split over ``draws``, the data over ``data``.

    Returns:
      ``num_chains * num_samples`` draws; no fresh ones can be drawn.

    Raises:
      ValueError: The checkpoints are those of another run.
    """
    data, options = open_data(rng_key, network, data, options, likelihood=config.likelihood)
    mesh = options.mesh
    keys = [jax.random.fold_in(rng_key, number) for number in range(6)]
    target = Target(build, network, config, mesh)
    maps = parallel.replicate(preconditioning.estimate(keys[5], network, data, config), mesh)
    whole, data = data, parallel.spread(data, mesh, "data")
    plan = Plan(
        config.num_warmup,
        config.num_samples * config.thinning,
        lambda done: done // config.thinning,
    )

    def begin(trained: Params | None = None) -> Chains:
        own, _ = init(keys[0], data, trained, maps, target=target)
        return Chains(parallel.spread(own, mesh, "draws"), maps)

    def learn(state: Any) -> tuple[Any, Any]:
        if config.init == "ensemble":
            size = plan.num_warmup + plan.num_transitions
            state = begin(
                train_ensemble(keys[4], network, whole, config, options, num_transitions=size)
            )
        return cast("tuple[Any, Any]", tune(keys[3], state, data, target=target))

    ran = run_chains(
        begin(),
        Calls(
            learn,
            lambda *now: warm_up(keys[1], now[0], data, *now[1:], target=target),
            lambda *now: step(keys[2], now[0], data, *now[1:], target=target),
            functools.partial(most_transitions, thinning=config.thinning),
        ),
        plan,
        options=options,
        # The code too: that of one's own kernel changes while the version does not.
        identity=identify(name_of(build), rng_key, network, config, data, mesh, kernel=build),
    )
    posterior = Posterior(
        get_apply_fn(network), options.store(jax.tree.map(stack_chains, ran.positions))
    )
    by_draw = (config.num_samples, config.thinning, config.num_chains)
    record = jax.tree.map(lambda values: values.reshape(by_draw), ran.record)
    counts = getattr(record, "num_gradients", None)
    before = preconditioning.count_gradients(network, whole, config)
    gradients = Gradients(**ran.spent, starting=count_starting(config, len(whole.y), before))
    if counts is not None:
        sampling = int(counts.sum(dtype=np.int64))
        gradients = gradients._replace(sampling=sampling, warmup=gradients.warmup or 0)
    constants = describe_states(ran.state.own)
    return conclude(posterior, record, options.held_out, gradients, constants)


def name_of(build: Callable[..., Any]) -> str:
    """Return a kernel's name: its file's."""
    return build.__module__.rpartition(".")[2]


def _blank(rng_key: jax.Array, state: Chains, data: Data, target: Target) -> tuple[Any, Any]:
    """Return positions and an info of zeros, of the shapes of a transition's."""
    kernel = target.kernel(data, state.maps)

    def one_transition() -> tuple[Any, Any]:
        after, info = target.map_chains(lambda _, own: kernel.step(rng_key, own), state.own)
        return jax.vmap(kernel.position)(after), info

    shapes = jax.eval_shape(one_transition)
    position, info = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return position, info
