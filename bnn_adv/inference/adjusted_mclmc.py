r"""Microcanonical Langevin with a Metropolis test (Robnik et al. 2025, arXiv 2503.01707).

Trajectories of the microcanonical dynamics (``mclmc``) whose end is accepted with the probability
that makes the posterior exactly invariant. Their number of steps is drawn anew for every
transition, around ``num_integration_steps``. BlackJAX's dual averaging chooses the step.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

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
      step_size: Length of the first step; None: 0.2 times the root of the number of parameters.
      num_integration_steps: Mean number of steps of a trajectory.
      adapt: ``"step_size"`` in the warm-up, by ``"tuner"`` before it (BlackJAX's: long trajectories
        of short steps where chains start at the prior), or ``"none"``.
      num_tune: Trajectories of the tuner.
      target_acceptance_rate: What the step size aims at, in (0, 1).
    """

    step_size: float | None = setting(None, above=0)
    num_integration_steps: float = setting(10.0, least=1.2)
    adapt: Literal["step_size", "tuner", "none"] = "step_size"
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
    from blackjax.adaptation.step_size import dual_averaging_adaptation
    from blackjax.mcmc import adjusted_mclmc_dynamic as dynamic

    start, learn, finish = dual_averaging_adaptation(config.target_acceptance_rate)

    def draw_steps(key: jax.Array, mean: jax.Array) -> jax.Array:
        # Uniform up to twice the mean.
        return jnp.ceil(jax.random.uniform(key, (), jnp.float32, 1e-3, 1.0) * (2 * mean - 1))

    transition = dynamic.build_kernel(integration_steps_fn=draw_steps)

    def init(rng_key: jax.Array, position: Params) -> State:
        first = 0.2 * typical_length(position) if config.step_size is None else config.step_size
        size = jnp.asarray(first, jnp.float32)
        averaging = start(size) if config.adapt == "step_size" else None
        chain = dynamic.init(position, logdensity, rng_key)
        return State(chain, size, averaging=averaging)

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
            *(0.5, 0.5),  # shares of its two passes
            diagonal_preconditioning=False,
            target_num_integration_steps=config.num_integration_steps,
        )
        return State(chain, jnp.asarray(found.step_size)), NUM_GRADIENTS * count

    def adapt(rng_key: jax.Array, state: State, index: jax.Array) -> tuple[State, Info]:
        after, info = step(rng_key, state)
        # A trajectory whose energy is no number is rejected.
        averaging = learn(state.averaging, jnp.nan_to_num(info.acceptance_rate, nan=0.0))
        is_last = index == config.num_warmup - 1
        size = jnp.where(is_last, finish(averaging), jnp.exp(averaging.log_step_size))
        return after._replace(step_size=size, averaging=averaging), info

    warm = adapt if config.adapt == "step_size" else None
    tuner = tune if config.adapt == "tuner" else None
    return mcmc.Kernel(init, step, warm, lambda state: state.chain.position, tuner)


run = functools.partial(mcmc.run, build)
