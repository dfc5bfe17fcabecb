"""The no-U-turn sampler (Hoffman, Gelman 2014, arXiv 1111.4246).

HMC whose trajectories double until they turn back, and whose end is drawn from the whole of them.
The warm-up learns step size and diagonal mass matrix, as Stan does.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import jax

from bnn_adv.compute.settings import setting
from bnn_adv.inference import mcmc
from bnn_adv.inference.hamiltonian import Info, State, build_adaptive
from bnn_adv.networks import Params

UNIT = mcmc.UNIT

__all__ = ["UNIT", "Config", "Info", "State", "build", "run"]


@dataclasses.dataclass(frozen=True)
class Config(mcmc.Config):
    """Settings of NUTS, beside those of all chains.

    Args:
      step_size: Leapfrog step: the first one where it is adapted, else the one used.
      max_num_doublings: Largest depth of the tree: at most 2 to its power leapfrog steps.
      adapt: ``"window"`` (step size and diagonal mass matrix), ``"step_size"``, or ``"none"``.
      target_acceptance_rate: What the step size aims at, in (0, 1).
    """

    step_size: float = setting(0.001, above=0)
    max_num_doublings: int = setting(10, least=1, most=30)
    adapt: Literal["window", "step_size", "none"] = "window"
    target_acceptance_rate: float = setting(0.8, above=0, below=1)


def build(logdensity: Callable[[Params], jax.Array], config: Config) -> mcmc.Kernel:
    """Return the kernel of a log density."""
    from blackjax.mcmc import nuts

    doublings = {"max_num_doublings": config.max_num_doublings}
    longest = 2**config.max_num_doublings - 1
    return build_adaptive(
        nuts.build_kernel(), lambda *_: doublings, logdensity, config, longest=longest
    )


run = functools.partial(mcmc.run, build)
