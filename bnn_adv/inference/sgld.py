r"""Stochastic-gradient Langevin dynamics (Welling, Teh 2011, ICML).

    w  <-  w + epsilon g(w) + sqrt(2 T epsilon) n,    n ~ N(0, I),

with g an unbiased estimate of grad log p(w | D) from one minibatch and a constant step epsilon.
Draws have p(w | D)^(1 / T) where epsilon is small. On a Gaussian of precision lambda the exact
gradient gives a variance of (T / lambda) / (1 - epsilon lambda / 2), and diverges where epsilon
exceeds 2 / lambda; gradients of variance V widen it by the factor 1 + epsilon V / (2 T).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax

from bnn_adv.compute.settings import setting
from bnn_adv.inference import sgmcmc
from bnn_adv.inference.densities import Data
from bnn_adv.inference.sgmcmc import Info
from bnn_adv.networks import Params

UNIT = sgmcmc.UNIT

__all__ = ["UNIT", "Config", "Info", "State", "build", "run"]


@dataclasses.dataclass(frozen=True)
class Config(sgmcmc.Config):
    """Settings of Langevin dynamics, beside those of all chains.

    Args:
      step_size: Step epsilon along the gradient of the log density of all N examples: N times it
        is the learning rate of a mean loss.
    """

    step_size: float = setting(1e-5, above=0)


class State(NamedTuple):
    """A chain's state.

    position: Parameters.
    """

    position: Params


def build(gradient: sgmcmc.Gradient, config: Config) -> sgmcmc.Kernel:
    """Return the kernel of an estimated gradient."""
    from blackjax.sgmcmc import sgld

    transition = sgld.build_kernel()

    def init(rng_key: jax.Array, position: Params) -> State:
        return State(position)

    def step(rng_key: jax.Array, state: State, minibatch: Data, index: jax.Array) -> State:
        size, temperature = config.step_size, config.temperature
        return State(transition(rng_key, state.position, gradient, minibatch, size, temperature))

    return sgmcmc.Kernel(init, step, lambda state: state.position)


run = functools.partial(sgmcmc.run, build)
