"""What both microcanonical Langevin samplers share: the state, and the integrator's cost."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.networks import Params, count_params

NUM_GRADIENTS = 2
"""Of a step of the McLachlan integrator."""


class State(NamedTuple):
    """A chain's state.

    chain: BlackJAX's state: position, direction or key, log density and its gradient.
    step_size: Length of a step.
    length: Distance after which the direction is renewed; None: after every trajectory.
    averaging: BlackJAX's dual averaging of the step; None: it is not learned in the warm-up.
    """

    chain: Any
    step_size: jax.Array
    length: jax.Array | None = None
    averaging: Any = None

    def describe(self) -> dict[str, jax.Array]:
        """Return what diagnostics show of the state."""
        found = {"step_size": self.step_size}
        return found if self.length is None else {**found, "length": self.length}


def typical_length(position: Params) -> jax.Array:
    """Return the square root of the number of parameters: how far apart draws of N(0, 1) are."""
    return jnp.sqrt(jnp.asarray(count_params(position), jnp.float32))
