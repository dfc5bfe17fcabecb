r"""Cyclical stochastic-gradient MCMC (Zhang et al. 2020, arXiv 1902.03932, eq. 1, algorithm 1).

Langevin dynamics (``sgld``) whose step begins anew in every cycle of C transitions:

    epsilon_k = (epsilon_0 / 2) (1 + cos(pi (k mod C) / C)).

The first part of a cycle explores, at long steps and without noise; the rest samples, with noise
of temperature T, as the step falls to zero. Draws of one cycle are of one mode; of the modes, each
counts as often as the exploration ends there, not by its mass. The exploration ends near a mode:
where the steps of the sampling do not add up to several times the variance of the widest direction
(sigma^2 of the prior for a network), draws stay nearer to it than the posterior is, and their log
density is above HMC's.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from bnn_adv.compute.settings import SettingError, setting
from bnn_adv.inference import sgmcmc
from bnn_adv.inference.cycles import Cycle
from bnn_adv.inference.densities import Data
from bnn_adv.inference.sgld import State
from bnn_adv.inference.sgmcmc import Info
from bnn_adv.networks import Params

UNIT = sgmcmc.UNIT

__all__ = ["UNIT", "Config", "Info", "State", "build", "run"]


@dataclasses.dataclass(frozen=True)
class Config(sgmcmc.Config):
    """Settings of cyclical Langevin dynamics, beside those of all chains.

    Args:
      num_warmup: Transitions a chain before the first cycle; they are the ends of cycles, so that
        a multiple of a cycle's length leaves out whole cycles.
      thinning: Transitions a draw, while a cycle samples.
      step_size: Step epsilon_0 that a cycle begins with, see ``sgld``.
      samples_per_cycle: Draws of a cycle; ``num_samples`` is a multiple.
      exploration: Share of a cycle before it samples.
    """

    num_warmup: int = setting(0, least=0)
    thinning: int = setting(100, least=1)
    step_size: float = setting(1e-4, above=0)
    samples_per_cycle: int = setting(5, least=1)
    exploration: float = setting(0.8, least=0, below=1)

    def __post_init__(self) -> None:
        """Check every field, and that cycles are whole."""
        super().__post_init__()
        if self.num_samples % self.samples_per_cycle:
            problem = f"must be a multiple of samples_per_cycle ({self.samples_per_cycle}), got "
            raise SettingError("num_samples", f"{problem}{self.num_samples}.")

    @property
    def cycle(self) -> Cycle:
        """Which transitions end a draw."""
        sampling = self.samples_per_cycle * self.thinning
        length = round(sampling / (1 - self.exploration))
        return Cycle(length - sampling, self.samples_per_cycle, self.thinning)


def build(gradient: sgmcmc.Gradient, config: Config) -> sgmcmc.Kernel:
    """Return the kernel of an estimated gradient."""
    from blackjax.sgmcmc import sgld

    transition, cycle = sgld.build_kernel(), config.cycle

    def init(rng_key: jax.Array, position: Params) -> State:
        return State(position)

    def step(rng_key: jax.Array, state: State, minibatch: Data, index: jax.Array) -> State:
        place = index % cycle.length
        size = 0.5 * config.step_size * (1 + jnp.cos(jnp.pi * place / cycle.length))
        temperature = jnp.where(place < cycle.exploration, 0.0, config.temperature)
        return State(transition(rng_key, state.position, gradient, minibatch, size, temperature))

    return sgmcmc.Kernel(init, step, lambda state: state.position)


run = functools.partial(sgmcmc.run, build)
