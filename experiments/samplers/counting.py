"""A kernel that counts: gradients of all transitions, and the energy errors of the later half."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.inference import mcmc
from bnn_adv.networks import Params


class State(NamedTuple):
    """A chain's state, with what was counted.

    chain: The kernel's own state.
    num_gradients: Gradients since the start.
    num_warmup: Those of the warm-up.
    num_transitions: Transitions since the start.
    errors: Number, sum and sum of squares of the energy errors of the later half that are finite.
    """

    chain: Any
    num_gradients: jax.Array
    num_warmup: jax.Array
    num_transitions: jax.Array
    errors: jax.Array

    def describe(self) -> dict[str, jax.Array]:
        """Return what diagnostics show of the state."""
        describe = getattr(self.chain, "describe", None)
        own: dict[str, jax.Array] = {} if describe is None else describe()
        count, total, squares = (self.errors[..., place] for place in range(3))
        mean = total / jnp.maximum(count, 1)
        return own | {
            "num_gradients": self.num_gradients,
            "num_warmup_gradients": self.num_warmup,
            "energy_variance": squares / jnp.maximum(count, 1) - mean**2,
        }


@dataclasses.dataclass(frozen=True)
class Counting:
    """The ``build`` of a kernel that counts what another one does.

    Args:
      build: The other one's.
    """

    build: mcmc.Build

    def __call__(self, logdensity: Callable[[Params], jax.Array], config: Any) -> mcmc.Kernel:
        """Return the kernel of a log density.

        Raises:
          ValueError: The kernel has a tuner.
        """
        kernel = self.build(logdensity, config)
        if kernel.tune is not None:
            raise ValueError("A tuner's gradients are not counted: give the step, and the length.")
        half = (config.num_warmup + config.num_samples * config.thinning) // 2

        def init(rng_key: jax.Array, position: Params) -> State:
            none = jnp.zeros((), jnp.int32)
            return State(kernel.init(rng_key, position), none, none, none, jnp.zeros(3))

        def count(before: State, chain: Any, info: Any, *, is_warmup: bool) -> State:
            gradients = jnp.asarray(info.num_gradients, jnp.int32)
            error = getattr(info, "energy_error", jnp.zeros(()))
            powers = jnp.stack([jnp.ones(()), error, error**2])
            is_late = jnp.isfinite(error**2) & (before.num_transitions >= half)
            return State(
                chain,
                before.num_gradients + gradients,
                before.num_warmup + gradients * is_warmup,
                before.num_transitions + 1,
                before.errors + jnp.where(is_late, powers, 0.0),
            )

        def step(rng_key: jax.Array, state: State) -> tuple[State, Any]:
            chain, info = kernel.step(rng_key, state.chain)
            return count(state, chain, info, is_warmup=False), info

        def adapt(rng_key: jax.Array, state: State, index: jax.Array) -> tuple[State, Any]:
            if kernel.adapt is None:
                chain, info = kernel.step(rng_key, state.chain)
            else:
                chain, info = kernel.adapt(rng_key, state.chain, index)
            return count(state, chain, info, is_warmup=True), info

        return mcmc.Kernel(init, step, adapt, lambda state: kernel.position(state.chain))
