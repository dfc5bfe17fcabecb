r"""Sample the posterior with Hamiltonian Monte Carlo on the full data (BlackJAX).

HMC: Neal 2011, arXiv 1206.1901, with a fixed number of leapfrog steps; NUTS: Hoffman, Gelman
2014, arXiv 1111.4246. Target: ``densities.logdensity_fn``. Chains run side by side under ``vmap``.
Only the draws that are kept and a few numbers a transition leave the device.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc import hmc as blackjax_hmc
from blackjax.mcmc import metrics, nuts
from flax import linen as nn

from bnn_adv.densities import Data, Prior, check_likelihood, logdensity_fn, sample_prior
from bnn_adv.inference import adaptation
from bnn_adv.inference.base import (
    InferenceResult,
    Progress,
    check_positive,
    ignore_progress,
    summarise_held_out,
)
from bnn_adv.inference.diagnostics import summarise_chains
from bnn_adv.networks import count_params, get_apply_fn, init_params
from bnn_adv.posterior import Posterior

_TRANSITIONS_PER_CALL = 10


@dataclasses.dataclass(frozen=True)
class Config:
    """Say how chains are run.

    Args:
      algorithm: ``"hmc"`` or ``"nuts"``.
      num_samples: Draws kept of each chain.
      num_warmup: Transitions a chain before the first kept draw; they adapt, and burn in.
      thinning: Keep every so many-th transition.
      num_chains: Chains, each with its own initialisation.
      step_size: Leapfrog step: the first one where it is adapted, else the one used.
      num_integration_steps: Leapfrog steps a transition (HMC).
      max_num_doublings: Largest tree depth (NUTS).
      adapt: ``"window"`` (step size and diagonal mass matrix), ``"step_size"``, or ``"none"``.
      target_acceptance_rate: What the step size aims at, in (0, 1).
      init: Start chains at draws of the ``"prior"``, or of the ``"network"``'s initialiser. The
        latter's weights are far smaller than a N(0, 1) posterior's: chains drift outward for long.
      prior: The prior.
      likelihood: A name in ``densities.LIKELIHOODS``.
      temperature: Target ``p(w | D)^(1 / T)``.
    """

    algorithm: Literal["hmc", "nuts"] = "hmc"
    num_samples: int = 100
    num_warmup: int = 100
    thinning: int = 1
    num_chains: int = 1
    step_size: float = 0.001
    num_integration_steps: int = 10
    max_num_doublings: int = 10
    adapt: Literal["window", "step_size", "none"] = "window"
    target_acceptance_rate: float = 0.8
    init: Literal["prior", "network"] = "prior"
    prior: Prior = Prior()
    likelihood: str = "categorical"
    temperature: float = 1.0


class State(NamedTuple):
    """Hold all chains, stacked on a leading axis.

    chain: BlackJAX's state: position, log density and its gradient.
    adaptation: Step size and mass matrix.
    """

    chain: Any
    adaptation: adaptation.AdaptationState


class Info(NamedTuple):
    """Hold what is kept of a transition, each [chains].

    acceptance_rate: Metropolis acceptance probability (NUTS: mean over the trajectory).
    is_divergent: The energy rose by more than 1,000.
    energy_error: Energy at the proposal minus energy at the start, in nats.
    logdensity: Log density after the transition, in nats.
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

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one_chain)(jnp.arange(config.num_chains))


@functools.partial(jax.jit, static_argnames=("network", "config", "count"))
def warm_up(
    rng_key: jax.Array,
    state: State,
    data: Data,
    first: jax.Array | int,
    schedule: jax.Array,
    *,
    network: nn.Module,
    config: Config,
    count: int,
) -> tuple[State, Info]:
    """Make ``count`` adapting transitions, from number ``first``; Info has shape [count, chains].

    Args:
      schedule: From ``adaptation.build_schedule``, [num_warmup, 2].
    """

    def one_transition(carry: State, index: jax.Array) -> tuple[State, Info]:
        chain, info = _transition(rng_key, index, carry, data, network, config)
        learned = carry.adaptation
        if config.adapt != "none":
            learn = functools.partial(
                adaptation.update, target_acceptance_rate=config.target_acceptance_rate
            )
            learned = jax.vmap(learn, (0, None, 0, 0))(
                carry.adaptation, schedule[index], chain.position, info.acceptance_rate
            )
        return State(chain, learned), info

    return jax.lax.scan(one_transition, state, first + jnp.arange(count))


@functools.partial(jax.jit, static_argnames=("network", "config", "count"))
def step(
    rng_key: jax.Array,
    state: State,
    data: Data,
    first: jax.Array | int,
    *,
    network: nn.Module,
    config: Config,
    count: int,
) -> tuple[State, tuple[Any, Info]]:
    """Make ``count`` kept draws, from number ``first``, each after ``thinning`` transitions.

    Returns:
      The state; the positions, [count, chains, ...]; Info, [count, thinning, chains].
    """

    def one_draw(carry: State, draw: jax.Array) -> tuple[State, tuple[Any, Info]]:
        def one_transition(inner: State, index: jax.Array) -> tuple[State, Info]:
            chain, info = _transition(rng_key, index, inner, data, network, config)
            return State(chain, inner.adaptation), info

        carry, info = jax.lax.scan(
            one_transition, carry, draw * config.thinning + jnp.arange(config.thinning)
        )
        return carry, (carry.chain.position, info)

    return jax.lax.scan(one_draw, state, first + jnp.arange(count))


def run(
    rng_key: jax.Array,
    network: nn.Module,
    data: Data,
    config: Config,
    *,
    held_out: Data | None = None,
    progress: Progress = ignore_progress,
) -> InferenceResult:
    """Warm up, sample, and return the kept draws of all chains, chain after chain.

    Args:
      rng_key: Typed key; everything follows from it.
      network: The network.
      data: Training data, x [N, ...] and y [N].
      config: Settings.
      held_out: Data on whose predictive log-probabilities R-hat and ESS are computed.
      progress: Called with (transitions done, transitions in all, metrics).

    Returns:
      ``num_chains * num_samples`` draws; no fresh ones can be drawn.

    Raises:
      ValueError: A setting is out of range.
    """
    _check(config)
    check_likelihood(config.likelihood)
    init_key, warmup_key, sample_key = (jax.random.fold_in(rng_key, i) for i in range(3))
    static: dict[str, Any] = {"network": network, "config": config}
    state = init(init_key, network, data, config)
    schedule = _schedule(config)
    warmup_steps = config.num_warmup
    total = warmup_steps + config.num_samples * config.thinning
    for first in range(0, warmup_steps, _TRANSITIONS_PER_CALL):
        count = min(_TRANSITIONS_PER_CALL, warmup_steps - first)
        state, info = warm_up(warmup_key, state, data, first, schedule, count=count, **static)
        progress(first + count, total, _metrics(info))
    if config.adapt != "none" and config.num_warmup:
        final = state.adaptation.final_step_size
        state = state._replace(adaptation=state.adaptation._replace(step_size=final))
    kept, infos = [], []
    per_call = max(1, _TRANSITIONS_PER_CALL // config.thinning)
    for first in range(0, config.num_samples, per_call):
        count = min(per_call, config.num_samples - first)
        state, (positions, info) = step(sample_key, state, data, first, count=count, **static)
        kept.append(jax.tree.map(np.asarray, positions))
        infos.append(jax.tree.map(np.asarray, info))
        progress(warmup_steps + (first + count) * config.thinning, total, _metrics(info))
    posterior = _stack_chains(kept, network)
    record = jax.tree.map(lambda *parts: np.concatenate(parts), *infos)
    diagnostics = summarise_chains(posterior, record, config.num_chains, held_out)
    diagnostics["step_size"] = np.asarray(state.adaptation.step_size, np.float64).tolist()
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
    )


def _transition(
    rng_key: jax.Array,
    index: jax.Array,
    state: State,
    data: Data,
    network: nn.Module,
    config: Config,
) -> tuple[Any, Info]:
    density = _logdensity(network, data, config)
    kernel: Any
    if config.algorithm == "hmc":
        kernel = functools.partial(
            blackjax_hmc.build_kernel(), num_integration_steps=config.num_integration_steps
        )
    else:
        kernel = functools.partial(nuts.build_kernel(), max_num_doublings=config.max_num_doublings)

    def one_chain(chain_index: jax.Array, chain: Any, tuned: Any) -> tuple[Any, Info]:
        key = jax.random.fold_in(jax.random.fold_in(rng_key, index), chain_index)
        after, info = kernel(
            key,
            chain,
            density,
            step_size=tuned.step_size,
            inverse_mass_matrix=tuned.inverse_mass_matrix,
        )
        kinetic = metrics.default_metric(tuned.inverse_mass_matrix).kinetic_energy(info.momentum)
        error = info.energy - (kinetic - chain.logdensity)
        gradients = jnp.asarray(info.num_integration_steps)
        return after, Info(
            info.acceptance_rate, info.is_divergent, error, after.logdensity, gradients
        )

    with jax.default_matmul_precision("highest"):
        chains = jnp.arange(config.num_chains)
        return jax.vmap(one_chain)(chains, state.chain, state.adaptation)


def _schedule(config: Config) -> jax.Array:
    if config.adapt == "window" and config.num_warmup:
        return jnp.asarray(adaptation.build_schedule(config.num_warmup), jnp.int32)
    return jnp.zeros((config.num_warmup, 2), jnp.int32)


def _metrics(info: Info) -> dict[str, float]:
    return {
        "acceptance": float(jnp.mean(info.acceptance_rate)),
        "logdensity": float(jnp.mean(info.logdensity[-1])),
    }


def _stack_chains(kept: list[Any], network: nn.Module) -> Posterior:
    def stack(*parts: np.ndarray) -> jax.Array:
        draws = np.concatenate(parts).swapaxes(0, 1)
        return jnp.asarray(draws.reshape(-1, *draws.shape[2:]))

    return Posterior(get_apply_fn(network), jax.tree.map(stack, *kept))


def _check(config: Config) -> None:
    check_positive(config, "num_samples", "thinning", "num_chains", "num_integration_steps")
    if config.num_warmup < 0:
        raise ValueError(f"num_warmup must be at least 0, got {config.num_warmup}.")
    if not 0 < config.target_acceptance_rate < 1:
        raise ValueError(
            f"target_acceptance_rate must lie in (0, 1), got {config.target_acceptance_rate}."
        )
    for name in ("step_size", "temperature"):
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}.")
    for name, known in (
        ("algorithm", ("hmc", "nuts")),
        ("adapt", ("window", "step_size", "none")),
        ("init", ("prior", "network")),
    ):
        if getattr(config, name) not in known:
            raise ValueError(
                f"Unknown {name} {getattr(config, name)!r}. Known: {', '.join(known)}."
            )
