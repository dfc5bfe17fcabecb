r"""Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox, Guestrin 2014, arXiv 1402.4102, eq. 13).

Momentum with friction alpha takes the gradient's noise along and forgets it:

    w  <-  w + epsilon p
    p  <-  (1 - alpha epsilon) p + epsilon g(w) + sqrt(epsilon T (2 alpha - epsilon T beta)) n,

with g an estimate of grad log p(w | D) from one minibatch, at the new w, n ~ N(0, I), and beta what
is known of the variance of g / T. Draws have p(w | D)^(1 / T) where epsilon is small. The momentum
is never drawn anew: friction and noise do that. BlackJAX's integrator takes any gradient; its own
kernel takes that of the old w, an explicit Euler step, which is stable for alpha above
epsilon lambda alone (lambda the largest curvature), keeps one minibatch for many steps, and draws
momenta of temperature one whatever T is.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax

from bnn_adv.compute.settings import SettingError, setting
from bnn_adv.inference import sgmcmc
from bnn_adv.inference.densities import Data
from bnn_adv.inference.sgmcmc import Info
from bnn_adv.networks import Params

UNIT = sgmcmc.UNIT

__all__ = ["UNIT", "Config", "Info", "State", "build", "run"]


@dataclasses.dataclass(frozen=True)
class Config(sgmcmc.Config):
    """Settings of stochastic-gradient HMC, beside those of all chains.

    Args:
      step_size: Step epsilon, in the unit of a leapfrog step.
      friction: Friction alpha; a step leaves the share 1 - alpha epsilon of the momentum.
      gradient_variance: Variance beta of the minibatch's gradient of log p(w | D) / T, by which the
        noise is lowered; at most 2 alpha / (epsilon T).
    """

    step_size: float = setting(1e-3, above=0)
    friction: float = setting(100.0, above=0)
    gradient_variance: float = setting(0.0, least=0)

    def __post_init__(self) -> None:
        """Check every field, and that momentum is left and noise is not negative."""
        super().__post_init__()
        if self.friction * self.step_size > 1:
            most = 1 / self.step_size
            problem = f"must be at most 1 / step_size ({most:g}), got {self.friction}."
            raise SettingError("friction", problem)
        most = 2 * self.friction / (self.step_size * self.temperature)
        if self.gradient_variance > most:
            problem = f"must be at most 2 friction / (step_size temperature) ({most:g}), got "
            raise SettingError("gradient_variance", f"{problem}{self.gradient_variance}.")


class State(NamedTuple):
    """A chain's state.

    position: Parameters.
    momentum: Of unit mass.
    """

    position: Params
    momentum: Params


def build(gradient: sgmcmc.Gradient, config: Config) -> sgmcmc.Kernel:
    """Return the kernel of an estimated gradient."""
    from blackjax.sgmcmc import diffusions
    from blackjax.util import generate_gaussian_noise

    integrate = diffusions.sghmc(config.friction, config.gradient_variance)
    size, temperature = config.step_size, config.temperature

    def init(rng_key: jax.Array, position: Params) -> State:
        spread = math.sqrt(temperature)
        return State(position, generate_gaussian_noise(rng_key, position, sigma=spread))

    def step(rng_key: jax.Array, state: State, minibatch: Data, index: jax.Array) -> State:
        ahead = jax.tree.map(lambda w, p: w + size * p, *state)
        slope = gradient(ahead, minibatch)
        return State(*integrate(rng_key, *state, slope, size, temperature))

    return sgmcmc.Kernel(init, step, lambda state: state.position)


run = functools.partial(sgmcmc.run, build)
