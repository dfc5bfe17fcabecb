r"""Microcanonical Langevin with a Metropolis test (Robnik et al. 2025, arXiv 2503.01707).

Trajectories of the microcanonical dynamics (``mclmc``) whose end is accepted with the probability
that makes the posterior exactly invariant. Their number of steps is drawn anew for every
transition, around ``num_integration_steps``. BlackJAX's tuner chooses the step by dual averaging.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.compute.settings import setting
from bnn_adv.inference import mcmc
from bnn_adv.inference.microcanonical import NUM_GRADIENTS, State, typical_length
from bnn_adv.networks import Params

UNIT = mcmc.UNIT

__all__ = ["UNIT", "Config", "Info", "State", "build", "run"]


@dataclasses.dataclass(frozen=True)
class Config(mcmc.Config):
    """Settings of adjusted microcanonical Langevin, beside those of all chains.

    Args:
      step_size: Length of a step; None: it is tuned.
      num_integration_steps: Mean number of steps of a trajectory.
      num_tune: Trajectories of the tuner, before the warm-up.
      target_acceptance_rate: What the step size aims at, in (0, 1).
    """

    step_size: float | None = setting(None, above=0)
    num_integration_steps: float = setting(10.0, least=1.2)
    num_tune: int = setting(200, least=20)
    target_acceptance_rate: float = setting(0.8, above=0, below=1)


class Info(NamedTuple):
    """What is kept of a transition.

    acceptance_rate: Metropolis acceptance probability.
    is_divergent: The energy rose by more than 1,000.
    logdensity: Log density after the transition, in nats, up to a constant.
    num_gradients: Gradient evaluations.
    """

    acceptance_rate: jax.Array
    is_divergent: jax.Array
    logdensity: jax.Array
    num_gradients: jax.Array


def build(logdensity: Callable[[Params], jax.Array], config: Config) -> mcmc.Kernel:
    """Return the kernel of a log density."""
    from blackjax.adaptation.adjusted_mclmc_adaptation import adjusted_mclmc_find_L_and_step_size
    from blackjax.mcmc import adjusted_mclmc_dynamic as dynamic

    def draw_steps(key: jax.Array, mean: jax.Array) -> jax.Array:
        """Draw a number of steps, uniform up to twice the mean."""
        return jnp.ceil(jax.random.uniform(key, (), jnp.float32, 1e-3, 1.0) * (2 * mean - 1))

    transition = dynamic.build_kernel(integration_steps_fn=draw_steps)

    def init(rng_key: jax.Array, position: Params) -> State:
        scale = typical_length(position)
        return State(
            dynamic.init(position, logdensity, rng_key),
            jnp.asarray(0.2 * scale if config.step_size is None else config.step_size),
        )

    def step(rng_key: jax.Array, state: State) -> tuple[State, Info]:
        mean = (jnp.asarray(config.num_integration_steps),)
        chain, info = transition(
            rng_key, state.chain, logdensity, state.step_size, integration_steps_params=mean
        )
        count = jnp.asarray(NUM_GRADIENTS * info.num_integration_steps, jnp.int32)
        seen = Info(info.acceptance_rate, info.is_divergent, chain.logdensity, count)
        return state._replace(chain=chain), seen

    def tune(rng_key: jax.Array, state: State) -> tuple[State, jax.Array]:
        chain, found, count = adjusted_mclmc_find_L_and_step_size(
            transition,
            logdensity,
            config.num_tune,
            state.chain,
            rng_key,
            config.target_acceptance_rate,
            frac_tune1=0.5,
            frac_tune2=0.5,
            diagonal_preconditioning=False,
            target_num_integration_steps=config.num_integration_steps,
        )
        return State(chain, jnp.asarray(found.step_size)), NUM_GRADIENTS * count

    learns = config.step_size is None
    return mcmc.Kernel(
        init, step, None, lambda state: state.chain.position, tune if learns else None
    )


run = functools.partial(mcmc.run, build)
