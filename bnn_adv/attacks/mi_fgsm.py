r"""Momentum iterative fast gradient sign method.

Dong et al. 2018, arXiv 1710.06081, equations 6 to 8:

    m_{t+1} = mu m_t + g_t / |g_t|_1
    x_{t+1} = Proj_{ball and box}( x_t + alpha d(m_{t+1}) ),    x_0 = x

with ``d`` the steepest ascent direction of the norm (the sign for l_inf) and by default
``alpha = epsilon / num_steps`` and ``mu = 1``. The last iterate is returned.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.attacks.base import Attack, LossFn, check_steps
from bnn_adv.attacks.threat import Threat, radius_of, unit
from bnn_adv.compute.types import Images, RngKeys


@dataclasses.dataclass(frozen=True)
class Config:
    """How MI-FGSM walks.

    Args:
      num_steps: Steps, at least 1.
      step_size: Step in units of the input; None takes ``epsilon / num_steps``.
      decay: Weight ``mu`` of the earlier directions, at least 0; with 0 it is BIM.
    """

    num_steps: int = 10
    step_size: float | None = None
    decay: float = 1.0


class State(NamedTuple):
    """The attack's state.

    x_adv: The current iterate, [B, ...].
    success: Whether it is known to fool, [B].
    gradient: The gradient there, [B, ...].
    momentum: Sum of the earlier directions, [B, ...].
    """

    x_adv: jax.Array
    success: jax.Array
    gradient: jax.Array
    momentum: jax.Array


def init(rng_keys: RngKeys, loss_fn: LossFn, x: Images, threat: Threat, config: Config) -> State:
    """Evaluate the gradient at the clean inputs."""
    loss = loss_fn(x)
    return State(x, loss.success, loss.gradient, jnp.zeros_like(x))


def step(
    rng_keys: RngKeys,
    state: State,
    loss_fn: LossFn,
    x: Images,
    threat: Threat,
    config: Config,
) -> State:
    """Add the new direction to the momentum and take one projected step."""
    size = config.step_size
    step_size = radius_of(threat, x) / config.num_steps if size is None else size
    momentum = config.decay * state.momentum + _of_unit_sum(state.gradient)
    moved = threat.project(state.x_adv + step_size * threat.ascend(momentum, state.x_adv), x)
    loss = loss_fn(moved)
    return State(moved, loss.success, loss.gradient, momentum)


def build(*, num_steps: int = 10, step_size: float | None = None, decay: float = 1.0) -> Attack:
    """Return the attack with the given settings, see ``Config``.

    Raises:
      ValueError: A setting is out of range.
    """
    check_steps(num_steps, step_size)
    if not decay >= 0:
        raise ValueError(f"decay must be at least 0, got {decay}.")
    return Attack("mi_fgsm", Config(num_steps, step_size, decay), init, step, num_steps)


def _of_unit_sum(gradient: jax.Array) -> jax.Array:
    # A unit vector first: sums of tiny or huge values leave float32's range.
    scaled = unit(gradient)
    total = jnp.abs(scaled).sum(axis=tuple(range(1, gradient.ndim)), keepdims=True)
    return scaled / jnp.where(total > 0, total, 1.0)
