r"""Sample the posterior with Hamiltonian Monte Carlo on the full data (BlackJAX).

HMC: Neal 2011, arXiv 1206.1901; NUTS: Hoffman, Gelman 2014, arXiv 1111.4246. Target:
``densities.logdensity_fn``, centred. Only draws that are kept and a few numbers a transition leave
the device. BlackJAX is imported where it is used: that starts JAX's devices, and a job of several
processes must not do so before it has joined the others.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from bnn_adv.compute import parallel
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.compute.settings import PRECISIONS, Settings, setting
from bnn_adv.compute.streaming import map_samples
from bnn_adv.inference import adaptation
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
from bnn_adv.inference.chains import Calls, run_chains, stack_chains
from bnn_adv.inference.densities import LIKELIHOODS, Data, Prior, logdensity_fn, sample_prior
from bnn_adv.inference.diagnostics import summarise_chains
from bnn_adv.inference.energies import centred_metric
from bnn_adv.inference.trajectories import count_steps
from bnn_adv.networks import count_params, get_apply_fn, init_params
from bnn_adv.posteriors.posterior import Posterior

_DRAWS_PER_CALL = 10
"""Draws that wait on the device for the host."""

UNIT = "transitions"
"""What progress counts."""


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """How chains are run.

    Args:
      algorithm: ``"hmc"`` or ``"nuts"``.
      num_samples: Draws kept of each chain.
      num_warmup: Transitions a chain before the first kept draw; they adapt, and burn in.
      thinning: Keep every so many-th transition.
      num_chains: Chains, each with its own initialisation.
      step_size: Leapfrog step: the first one where it is adapted, else the one used.
      num_integration_steps: Leapfrog steps a transition (HMC).
      trajectory_length: What HMC keeps in place of the number of steps as their size adapts, see
        ``trajectories``; None keeps the number.
      max_integration_steps: Most steps of a trajectory of fixed length.
      max_num_doublings: Largest tree depth (NUTS).
      adapt: ``"window"`` (step size and diagonal mass matrix), ``"step_size"``, or ``"none"``.
      target_acceptance_rate: What the step size aims at, in (0, 1).
      init: Start chains at draws of the ``"prior"``, or of the ``"network"``'s initialiser. The
        latter's weights are far smaller than a N(0, 1) posterior's: chains drift outward for long.
      prior: The prior.
      likelihood: A name in ``densities.LIKELIHOODS``.
      temperature: Target ``p(w | D)^(1 / T)``.
      precision: Of matrix products, see ``Posterior``.
    """

    algorithm: Literal["hmc", "nuts"] = "hmc"
    num_samples: int = setting(100, least=1)
    num_warmup: int = setting(100, least=0)
    thinning: int = setting(1, least=1)
    num_chains: int = setting(1, least=1)
    step_size: float = setting(0.001, above=0)
    num_integration_steps: int = setting(10, least=1)
    trajectory_length: float | None = setting(None, above=0)
    max_integration_steps: int = setting(1000, least=1)
    max_num_doublings: int = setting(10, least=1)
    adapt: Literal["window", "step_size", "none"] = "window"
    target_acceptance_rate: float = setting(0.8, above=0, below=1)
    init: Literal["prior", "network"] = "prior"
    prior: Prior = Prior()
    likelihood: str = setting("categorical", choices=tuple(LIKELIHOODS))
    temperature: float = setting(1.0, above=0)
    precision: str = setting("highest", choices=PRECISIONS)

    @property
    def num_draws(self) -> int:
        """Draws of the posterior."""
        return self.num_samples * self.num_chains


class State(NamedTuple):
    """All chains, stacked on a leading axis.

    chain: BlackJAX's state: position, log density and its gradient.
    adaptation: Step size and mass matrix.
    """

    chain: Any
    adaptation: adaptation.AdaptationState


class Info(NamedTuple):
    """What is kept of a transition, each [chains].

    acceptance_rate: Metropolis acceptance probability (NUTS: mean over the trajectory).
    is_divergent: The energy rose by more than 1,000.
    energy_error: Energy at the proposal minus energy at the start, in nats.
    logdensity: Log density after the transition, in nats, up to a constant.
    num_gradients: Gradient evaluations.
    """

    acceptance_rate: jax.Array
    is_divergent: jax.Array
    energy_error: jax.Array
    logdensity: jax.Array
    num_gradients: jax.Array


@functools.partial(jax.jit, static_argnames=("network", "config"))
def init(rng_key: jax.Array, network: nn.Module, data: Data, config: Config) -> State:
    """Start every chain at its own draw of the prior or of the network's initialiser."""
    from blackjax.mcmc import hmc as blackjax_hmc

    def one_chain(index: jax.Array) -> State:
        key = jax.random.fold_in(rng_key, index)
        position = init_params(key, network, data.x.shape[1:])
        if config.init == "prior":
            position = sample_prior(key, position, config.prior, temperature=config.temperature)
        density = _logdensity(network, data, config)
        start = adaptation.init(
            count_params(position), config.step_size, config.target_acceptance_rate
        )
        return State(blackjax_hmc.init(position, density), start)

    with jax.default_matmul_precision(config.precision):
        state = jax.vmap(one_chain)(jnp.arange(config.num_chains))
    # BlackJAX starts from Python numbers, whose weak types every transition makes strong: without
    # this, all programs would compile twice.
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)


@functools.partial(jax.jit, static_argnames=("network", "config", "mesh"))
def warm_up(
    rng_key: jax.Array,
    state: State,
    data: Data,
    steps: tuple[jax.Array | int, jax.Array | int],
    schedule: jax.Array,
    *,
    network: nn.Module,
    config: Config,
    mesh: Mesh | None = None,
) -> tuple[State, Info]:
    """Make adapting transitions.

    Args:
      steps: (first, count), at least one; data, so that one program serves however the warm-up is
        cut.
      schedule: From ``adaptation.build_schedule``, [num_warmup, 2].

    Returns:
      State; Info of the last transition, with the mean acceptance rate of all.
    """

    def one_transition(index: jax.Array, carry: tuple[State, Info]) -> tuple[State, Info]:
        before, seen = carry
        chain, info = _transition(rng_key, index, before, data, network, config, mesh)
        learned = before.adaptation
        if config.adapt != "none":
            learn = functools.partial(
                adaptation.update, target_acceptance_rate=config.target_acceptance_rate
            )
            learned = jax.vmap(learn, (0, None, 0, 0))(
                before.adaptation, schedule[index], chain.position, info.acceptance_rate
            )
        summed = info._replace(acceptance_rate=seen.acceptance_rate + info.acceptance_rate)
        return State(chain, learned), summed

    first, count = steps
    _, blank = _blank(rng_key, state, data, network, config, mesh)
    state, info = jax.lax.fori_loop(first, first + count, one_transition, (state, blank))
    return state, info._replace(acceptance_rate=info.acceptance_rate / count)


@functools.partial(jax.jit, static_argnames=("network", "config", "mesh"))
def step(
    rng_key: jax.Array,
    state: State,
    data: Data,
    first: jax.Array | int,
    count: jax.Array | int,
    *,
    network: nn.Module,
    config: Config,
    mesh: Mesh | None = None,
) -> tuple[State, tuple[Any, Info]]:
    """Make ``count`` transitions, from number ``first``; every ``thinning``-th is a draw.

    Args:
      count: At least one, at most ``most_transitions(first, config)``; data, so that one program
        serves however the chain is cut.

    Returns:
      The state; positions, [_DRAWS_PER_CALL, chains, ...], of which as many are draws as ended
      within the call; Info, [_DRAWS_PER_CALL * thinning, chains], of which ``count`` are filled.
    """
    position, blank = _blank(rng_key, state, data, network, config, mesh)

    def room(size: int) -> Any:
        return lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype)

    def one_transition(done: jax.Array, carry: tuple[State, Any, Info]) -> tuple[State, Any, Info]:
        before, positions, infos = carry
        index = first + done
        chain, info = _transition(rng_key, index, before, data, network, config, mesh)
        # Each transition of a draw takes its place; the last one stays.
        place = index // config.thinning - first // config.thinning
        positions = jax.tree.map(
            lambda all_, one: all_.at[place].set(one), positions, chain.position
        )
        infos = jax.tree.map(lambda all_, one: all_.at[done].set(one), infos, info)
        return State(chain, before.adaptation), positions, infos

    positions = jax.tree.map(room(_DRAWS_PER_CALL), position)
    infos = jax.tree.map(room(_DRAWS_PER_CALL * config.thinning), blank)
    state, positions, infos = jax.lax.fori_loop(0, count, one_transition, (state, positions, infos))
    return state, (positions, infos)


def most_transitions(first: int, config: Config) -> int:
    """Return how many transitions ``step`` has room for from number ``first``."""
    return _DRAWS_PER_CALL * config.thinning - first % config.thinning


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
    """Warm up, sample, and return the kept draws of all chains, chain after chain.

    Args:
      rng_key: Typed key; everything follows from it.
      network: The network.
      data: Training data, x [N, ...] and y [N].
      config: Settings.
      held_out: Data on whose predictive log-probabilities R-hat and ESS are computed.
      progress: Called with (transitions done, transitions in all, metrics).
      checkpoints: Where to save progress and to continue from it.
      mesh: Devices: chains are split over ``draws``, the data over ``data``.
      store: Where the draws go; ``disk.store_in(folder)`` leaves them on disk.

    Returns:
      ``num_chains * num_samples`` draws; no fresh ones can be drawn.

    Raises:
      ValueError: A setting is out of range, or the checkpoints are those of another run.
    """
    data, held_out = open_data(rng_key, network, data, held_out, likelihood=config.likelihood)
    init_key, warmup_key, sample_key = (jax.random.fold_in(rng_key, i) for i in range(3))
    static: dict[str, Any] = {"network": network, "config": config, "mesh": mesh}
    data = parallel.spread(data, mesh, "data")
    state = parallel.spread(init(init_key, network, data, config), mesh, "draws")
    schedule = adaptation.plan(config.num_warmup, learns_masses=config.adapt == "window")
    state, positions, record = run_chains(
        state,
        Calls(
            lambda *now: warm_up(warmup_key, now[0], data, now[1:], schedule, **static),
            functools.partial(_freeze, config=config),
            lambda *now: step(sample_key, now[0], data, *now[1:], **static),
            functools.partial(most_transitions, config=config),
        ),
        num_warmup=config.num_warmup,
        num_samples=config.num_samples,
        thinning=config.thinning,
        progress=progress,
        checkpoints=checkpoints,
        identity=identify("hmc", rng_key, network, config, data, mesh),
    )
    posterior = Posterior(get_apply_fn(network), store(jax.tree.map(stack_chains, positions)))
    by_draw = (config.num_samples, config.thinning, config.num_chains)
    record = jax.tree.map(lambda values: values.reshape(by_draw), record)
    diagnostics = summarise_chains(posterior, record, config.num_chains, held_out)
    diagnostics["step_size"] = np.float64(parallel.to_host(state.adaptation.step_size)).tolist()
    diagnostics |= summarise_held_out(posterior, held_out)
    return InferenceResult(posterior, diagnostics, None)


def _logdensity(network: nn.Module, data: Data, config: Config) -> Any:
    return functools.partial(
        logdensity_fn,
        data=data,
        apply_fn=get_apply_fn(network),
        prior=config.prior,
        likelihood=config.likelihood,
        temperature=config.temperature,
        centred=True,
    )


def _transition(
    rng_key: jax.Array,
    index: jax.Array,
    state: State,
    data: Data,
    network: nn.Module,
    config: Config,
    mesh: Mesh | None,
) -> tuple[Any, Info]:
    from blackjax.mcmc import hmc as blackjax_hmc
    from blackjax.mcmc import nuts

    density = _logdensity(network, data, config)
    kernel: Any
    if config.algorithm == "hmc":
        kernel = blackjax_hmc.build_kernel()
    else:
        kernel = functools.partial(nuts.build_kernel(), max_num_doublings=config.max_num_doublings)

    def one_chain(chain_index: jax.Array, chain: Any, tuned: Any) -> tuple[Any, Info]:
        key = jax.random.fold_in(jax.random.fold_in(rng_key, index), chain_index)
        metric = centred_metric(tuned.inverse_mass_matrix)
        options: dict[str, Any] = {}
        if config.algorithm == "hmc":
            steps: jax.Array | int = config.num_integration_steps
            if (length := config.trajectory_length) is not None:
                steps = count_steps(length, tuned.step_size, most=config.max_integration_steps)
            options["num_integration_steps"] = steps
        after, info = kernel(
            key,
            chain,
            density,
            step_size=tuned.step_size,
            inverse_mass_matrix=metric,
            **options,
        )
        error = info.energy - (metric.kinetic_energy(info.momentum) - chain.logdensity)
        count = jnp.asarray(info.num_integration_steps)
        return after, Info(info.acceptance_rate, info.is_divergent, error, after.logdensity, count)

    with jax.default_matmul_precision(config.precision):
        chains = jnp.arange(config.num_chains)
        # On a CPU one after the other: there batches of matrix products are slow.
        return map_samples(
            lambda chain: one_chain(*chain),
            (chains, state.chain, state.adaptation),
            chunk=1 if jax.default_backend() == "cpu" else config.num_chains,
            shards=parallel.shards(mesh, config.num_chains, "draws"),
        )


def _blank(
    rng_key: jax.Array,
    state: State,
    data: Data,
    network: nn.Module,
    config: Config,
    mesh: Mesh | None,
) -> tuple[Any, Info]:
    """Return a position and Info of zeros, of the shapes of a transition's."""
    chain, info = jax.eval_shape(
        lambda: _transition(rng_key, jnp.zeros((), jnp.int32), state, data, network, config, mesh)
    )
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (chain.position, info))


def _freeze(state: State, *, config: Config) -> State:
    """Return the state to sample with: of the step size's adaptation its mean is kept."""
    if config.adapt == "none":
        return state
    tuned = state.adaptation
    return state._replace(adaptation=tuned._replace(step_size=tuned.final_step_size))
