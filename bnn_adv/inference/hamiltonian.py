"""What HMC and NUTS share: step size and mass matrix in the state, and Stan's adaptation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.inference import adaptation, mcmc
from bnn_adv.inference.energies import centred_metric
from bnn_adv.networks import Params, count_params


class State(NamedTuple):
    """A chain's state.

    chain: BlackJAX's state: position, log density and its gradient.
    tuned: Step size and mass matrix.
    """

    chain: Any
    tuned: adaptation.AdaptationState

    def describe(self) -> dict[str, jax.Array]:
        """Return what diagnostics show of the state."""
        return {"step_size": self.tuned.step_size}


class Info(NamedTuple):
    """What is kept of a transition.

    acceptance_rate: Metropolis acceptance probability (NUTS: mean over the trajectory).
    is_divergent: The energy rose by more than 1,000.
    energy_error: Energy at the proposal minus energy at the start, in nats.
    logdensity: Log density after the transition, in nats, up to a constant.
    num_gradients: Gradient evaluations.
    energy: At the start, with the momentum drawn anew, in nats, up to a constant.
    is_longest: The trajectory has the most steps allowed, and may have been cut short: a full tree
      of NUTS only where it neither turned nor diverged.
    """

    acceptance_rate: jax.Array
    is_divergent: jax.Array
    energy_error: jax.Array
    logdensity: jax.Array
    num_gradients: jax.Array
    energy: jax.Array
    is_longest: jax.Array


def build_adaptive(
    transition: Callable[..., Any],
    move: Callable[[jax.Array, adaptation.AdaptationState], dict[str, Any]],
    logdensity: Callable[[Params], jax.Array],
    config: Any,
    *,
    longest: int | None,
) -> mcmc.Kernel:
    """Return a kernel of BlackJAX's Hamiltonian family with Stan's adaptation.

    Args:
      transition: BlackJAX's kernel.
      move: Maps the transition's key, and step size and mass matrix, to its other arguments.
      logdensity: The target.
      config: Has ``step_size``, ``adapt``, ``target_acceptance_rate`` and ``num_warmup``.
      longest: Steps at which a trajectory is cut short; None: at none.
    """
    from blackjax.mcmc import hmc

    schedule = adaptation.plan(config.num_warmup, learns_masses=config.adapt == "window")
    rate = config.target_acceptance_rate

    def init(rng_key: jax.Array, position: Params) -> State:
        tuned = adaptation.init(count_params(position), config.step_size, rate)
        return State(hmc.init(position, logdensity), tuned)

    def step(rng_key: jax.Array, state: State) -> tuple[State, Info]:
        chain, tuned = state
        metric = centred_metric(tuned.inverse_mass_matrix)
        masses = {"step_size": tuned.step_size, "inverse_mass_matrix": metric}
        after, info = transition(rng_key, chain, logdensity, **masses, **move(rng_key, tuned))
        energy = metric.kinetic_energy(info.momentum) - chain.logdensity
        count = jnp.asarray(info.num_integration_steps)
        # A tree can be full and have ended by itself. HMC's trajectories never do.
        has_ended = info.is_turning | info.is_divergent if hasattr(info, "is_turning") else False
        is_longest = False if longest is None else (count >= longest) & jnp.logical_not(has_ended)
        seen = Info(
            info.acceptance_rate,
            info.is_divergent,
            info.energy - energy,
            after.logdensity,
            count,
            energy,
            jnp.asarray(is_longest, bool),
        )
        return State(after, tuned), seen

    def adapt(rng_key: jax.Array, state: State, index: jax.Array) -> tuple[State, Info]:
        (chain, tuned), info = step(rng_key, state)
        learn = functools.partial(adaptation.update, target_acceptance_rate=rate)
        tuned = learn(tuned, schedule[index], chain.position, info.acceptance_rate)
        # What is sampled with is the mean of the adaptation, not where it stands.
        is_last = index == config.num_warmup - 1
        size = jnp.where(is_last, tuned.final_step_size, tuned.step_size)
        return State(chain, tuned._replace(step_size=size)), info

    learns = config.adapt != "none"
    return mcmc.Kernel(init, step, adapt if learns else None, lambda state: state.chain.position)
