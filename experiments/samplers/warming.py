"""Adjusted microcanonical Langevin whose warm-up learns the step, as that of HMC does.

The method's own tuner keeps the length of a trajectory while its step shrinks: from a draw of the
prior, where every long step is rejected, its trajectories take thousands of steps. Here the number
of steps stays, and dual averaging (BlackJAX's) finds their length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.inference import adjusted_mclmc, mcmc
from bnn_adv.networks import Params


class State(NamedTuple):
    """A chain's state.

    chain: The method's own.
    averaging: Of the step, by BlackJAX.
    """

    chain: adjusted_mclmc.State
    averaging: Any

    def describe(self) -> dict[str, jax.Array]:
        """Return what diagnostics show of the state."""
        return self.chain.describe()


def build(logdensity: Callable[[Params], jax.Array], config: adjusted_mclmc.Config) -> mcmc.Kernel:
    """Return the kernel of a log density; the step of ``config`` is the first one.

    Raises:
      ValueError: It has no step.
    """
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    if config.step_size is None:
        raise ValueError("The warm-up needs a first step_size, got None.")
    kernel, first = adjusted_mclmc.build(logdensity, config), config.step_size
    start, learn, finish = dual_averaging_adaptation(config.target_acceptance_rate)

    def init(rng_key: jax.Array, position: Params) -> State:
        return State(kernel.init(rng_key, position), start(jnp.asarray(first, jnp.float32)))

    def step(rng_key: jax.Array, state: State) -> tuple[State, Any]:
        chain, info = kernel.step(rng_key, state.chain)
        return state._replace(chain=chain), info

    def adapt(rng_key: jax.Array, state: State, index: jax.Array) -> tuple[State, Any]:
        chain, info = kernel.step(rng_key, state.chain)
        # A trajectory whose energy is no number is rejected.
        accepted = jnp.nan_to_num(info.acceptance_rate, nan=0.0)
        averaging = learn(state.averaging, accepted)
        is_last = index == config.num_warmup - 1
        size = jnp.where(is_last, finish(averaging), jnp.exp(averaging.log_step_size))
        return State(chain._replace(step_size=size), averaging), info

    return mcmc.Kernel(init, step, adapt, lambda state: kernel.position(state.chain))
