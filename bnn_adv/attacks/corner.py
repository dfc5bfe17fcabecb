r"""Random extreme points of ball and box: the baseline of full length.

    x_{t+1} = the better of x_t and c_t,    c_t = argmax_{ball and box} <g_t, c>,    g_t ~ N(0, I)

from ``x_0 = x``: the points that maximise a random linear function. Under l_inf they are
``x +- epsilon`` with random signs, under l_2 random directions of full length, under l_1 random
coordinates that go to their walls one by one until the budget is spent; all within the box. A
nearly linear objective is largest at such points, of which uniform noise finds none.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.attacks.base import Attack, Best, LossFn, check_steps, keep_better
from bnn_adv.attacks.threat import Threat, per_input
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
    """Try one random extreme point for every input, and keep what is better."""

    def one(key: jax.Array, row: jax.Array, own: Threat) -> jax.Array:
        slope = jax.random.normal(jax.random.fold_in(key, state.step), row.shape, row.dtype)
        return own.maximise_linear(slope[None], row[None])[0]

    proposed = jax.vmap(one)(rng_keys, x, per_input(threat, x.shape[0], x.dtype))
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
        "corner", Config(num_steps), init, step, num_steps, stop_on_success, uses_gradient=False
    )
