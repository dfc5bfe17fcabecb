r"""Random points: the baseline that an attack must beat.

    x_{t+1} = the better of x_t and u_t,    u_t random in ball and box,    x_0 = x

with ``u_t`` uniform in the ball, and then clipped or projected to the box. Nothing is learned from
one query for the next. What it breaks while gradient attacks do not says that gradients were
masked (Athalye, Carlini, Wagner 2018, arXiv 1802.00420, section 3.1, "random sampling finds
adversarial examples").
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.attacks.base import Attack, Best, LossFn, check_steps, keep_better
from bnn_adv.attacks.threat import Threat, random_starts
from bnn_adv.compute.types import Images, RngKeys


@dataclasses.dataclass(frozen=True)
class Config:
    """How many points are tried.

    Args:
      num_steps: Random points, one query each, at least 1.
    """

    num_steps: int = 100


class State(NamedTuple):
    """The attack's state.

    x_adv: The best inputs so far, [B, ...].
    success: Whether ``x_adv`` is known to fool, [B].
    value: The objective at ``x_adv``, [B].
    step: Steps taken, a scalar.
    """

    x_adv: jax.Array
    success: jax.Array
    value: jax.Array
    step: jax.Array


def init(rng_keys: RngKeys, loss_fn: LossFn, x: Images, threat: Threat, config: Config) -> State:
    """Evaluate the objective at the clean inputs, which are the best so far."""
    loss = loss_fn(x)
    return State(x, loss.success, loss.value, jnp.zeros((), jnp.int32))


def step(
    rng_keys: RngKeys,
    state: State,
    loss_fn: LossFn,
    x: Images,
    threat: Threat,
    config: Config,
) -> State:
    """Try one random point of every input's ball and box, and keep what is better."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(rng_keys, state.step)
    proposed = random_starts(threat, keys, x)
    best = Best(state.x_adv, state.success, state.value)
    return State(*keep_better(best, proposed, loss_fn(proposed)), state.step + 1)


def build(*, num_steps: int = 100, stop_on_success: bool = False) -> Attack:
    """Return the attack with the given settings, see ``Config``.

    Args:
      stop_on_success: End a batch once all its inputs are fooled.

    Raises:
      ValueError: A setting is out of range.
    """
    check_steps(num_steps)
    return Attack(
        "noise", Config(num_steps), init, step, num_steps, stop_on_success, uses_gradient=False
    )
