r"""Hamiltonian Monte Carlo (Neal 2011, arXiv 1206.1901).

A momentum p ~ N(0, M) is drawn, (w, p) moves by leapfrog steps of size epsilon along

    dw/dt = M^{-1} p,    dp/dt = grad log p(w | D),

and the end is accepted with probability min(1, exp(-change of the energy)). The warm-up learns
epsilon, and M as a diagonal, as Stan does (``adaptation``).

What mixes depends on the length of the trajectories, steps times epsilon: pi / 2 times the prior's
scale is a quarter of the prior's period (Izmailov et al. 2021, arXiv 2104.14421).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from bnn_adv.compute.settings import SettingError, setting
from bnn_adv.inference import adaptation, mcmc
from bnn_adv.inference.hamiltonian import Info, State, build_adaptive
from bnn_adv.inference.trajectories import count_steps, draw_length
from bnn_adv.networks import Params

UNIT = mcmc.UNIT

__all__ = ["UNIT", "Config", "Info", "State", "build", "run"]


@dataclasses.dataclass(frozen=True)
class Config(mcmc.Config):
    """Settings of HMC, beside those of all chains.

    Args:
      step_size: Leapfrog step: the first one where it is adapted, else the one used.
      num_integration_steps: Leapfrog steps a transition.
      trajectory_length: Length of a transition, in units of the tempered prior's scale, or, with
        masses that the warm-up has learned, of each weight's own spread; the number of steps
        follows from it as their size adapts, see ``trajectories``. None keeps the number.
      jitter: Every transition draws its length, uniform within this share of
        ``trajectory_length``: no draws are in step with a period of the posterior.
      max_integration_steps: Most steps of a trajectory of given length.
      adapt: ``"window"`` (step size and diagonal mass matrix), ``"step_size"``, or ``"none"``.
      target_acceptance_rate: What the step size aims at, in (0, 1).
    """

    step_size: float = setting(0.001, above=0)
    num_integration_steps: int = setting(10, least=1)
    trajectory_length: float | None = setting(None, above=0)
    jitter: float = setting(0.0, least=0, below=1)
    max_integration_steps: int = setting(1000, least=1)
    adapt: Literal["window", "step_size", "none"] = "window"
    target_acceptance_rate: float = setting(0.8, above=0, below=1)

    def __post_init__(self) -> None:
        """Check every field, and that what is jittered is given."""
        super().__post_init__()
        if self.jitter and self.trajectory_length is None:
            raise SettingError("jitter", f"needs a trajectory_length, got {self.jitter} alone.")


def build(logdensity: Callable[[Params], jax.Array], config: Config) -> mcmc.Kernel:
    """Return the kernel of a log density."""
    from blackjax.mcmc import hmc

    most, jitter = config.max_integration_steps, config.jitter

    def move(rng_key: jax.Array, tuned: adaptation.AdaptationState) -> dict[str, Any]:
        if config.trajectory_length is None:
            return {"num_integration_steps": config.num_integration_steps}
        # Tempering multiplies the prior's variance too.
        scale = config.prior.scale * config.temperature**0.5
        mean: Any = config.trajectory_length * scale
        if config.adapt == "window":
            # Masses are the inverse variances: in their units all directions have scale one.
            is_learned = jnp.any(tuned.inverse_mass_matrix != 1)
            mean = jnp.where(is_learned, config.trajectory_length, mean)
        length = draw_length(rng_key, mean, jitter) if jitter else mean
        steps = count_steps(length, tuned.step_size, most=most, nearest=jitter > 0)
        return {"num_integration_steps": steps}

    longest = None if config.trajectory_length is None else most
    return build_adaptive(hmc.build_kernel(), move, logdensity, config, longest=longest)


run = functools.partial(mcmc.run, build)
