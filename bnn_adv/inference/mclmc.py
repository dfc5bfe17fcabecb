r"""Microcanonical Langevin, unadjusted (Robnik et al. 2023, JMLR 24, arXiv 2212.08549).

A point moves with unit speed u along

    dw/dt = u,    du/dt = (1 - u u^T) grad log p(w | D) / (d - 1),    d parameters,

and the direction is partly renewed after a length L. No transition is rejected: steps that are too
long bias the draws silently, which the variance of the energy's change per parameter, the log
density, and a run with half the step show. BlackJAX's tuner chooses the step, so that this variance
is ``energy_variance``, and L from the spread of the posterior. A transition is one step.
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
    """Settings of microcanonical Langevin, beside those of all chains.

    Args:
      step_size: Length of a step; None: it is tuned.
      length: Distance L after which the direction is renewed; None: it is tuned.
      num_tune: Steps of the tuner, before the warm-up; none where both are given.
      energy_variance: Variance of the energy's change per parameter that the tuner aims at.
    """

    step_size: float | None = setting(None, above=0)
    length: float | None = setting(None, above=0)
    num_tune: int = setting(1000, least=20)
    energy_variance: float = setting(5e-4, above=0)


class Info(NamedTuple):
    """What is kept of a transition.

    is_divergent: A number was not finite; the step was undone.
    energy_error: Change of the energy, in nats; 0 for an exact integrator.
    logdensity: Log density after the transition, in nats, up to a constant.
    num_gradients: Gradient evaluations.
    """

    is_divergent: jax.Array
    energy_error: jax.Array
    logdensity: jax.Array
    num_gradients: jax.Array


def build(logdensity: Callable[[Params], jax.Array], config: Config) -> mcmc.Kernel:
    """Return the kernel of a log density."""
    from blackjax.adaptation.mclmc_adaptation import mclmc_find_L_and_step_size
    from blackjax.mcmc import mclmc

    transition = mclmc.build_kernel()

    def init(rng_key: jax.Array, position: Params) -> State:
        scale = typical_length(position)
        step_size, length = config.step_size or 0.25 * scale, config.length or scale
        chain = mclmc.init(position, logdensity, rng_key)
        return State(chain, jnp.asarray(step_size), jnp.asarray(length))

    def step(rng_key: jax.Array, state: State) -> tuple[State, Info]:
        chain, info = transition(
            rng_key, state.chain, logdensity, 1.0, state.length, state.step_size
        )
        seen = Info(~info.nonans, info.energy_change, chain.logdensity, jnp.asarray(NUM_GRADIENTS))
        return state._replace(chain=chain), seen

    def tune(rng_key: jax.Array, state: State) -> tuple[State, int]:
        chain, found, count = mclmc_find_L_and_step_size(
            transition,
            config.num_tune,
            state.chain,
            rng_key,
            logdensity_fn=logdensity,
            frac_tune1=0.5,
            frac_tune2=0.5,
            # Its third phase would keep every position of thousands of steps.
            frac_tune3=0.0,
            desired_energy_var=config.energy_variance,
            diagonal_preconditioning=False,
        )
        step_size = found.step_size if config.step_size is None else config.step_size
        length = found.L if config.length is None else config.length
        return State(chain, jnp.asarray(step_size), jnp.asarray(length)), NUM_GRADIENTS * count

    learned = tune if config.step_size is None or config.length is None else None
    return mcmc.Kernel(init, step, None, lambda state: state.chain.position, learned)


run = functools.partial(mcmc.run, build)
