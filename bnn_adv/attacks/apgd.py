r"""Auto-PGD: projected gradient ascent with momentum that chooses its own step.

Croce, Hein 2020, arXiv 2003.01690, section 3, algorithm 1:

    z_{t+1} = Proj( x_t + eta d(g_t) )
    x_{t+1} = Proj( x_t + a (z_{t+1} - x_t) + (1 - a) (x_t - x_{t-1}) ),    a = 0.75 (first step: 1)

from a random start with ``eta = 2 epsilon``. At checkpoints ``ceil(p_j num_steps)``, with p_0 = 0,
p_1 = 0.22 and ``p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)``, eta is halved and the walk goes
on from its best point if either (condition 1) fewer than ``rho = 0.75`` of the steps since the last
checkpoint raised the objective, or (condition 2) eta was not halved there and the best objective
has not changed since.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks.base import Attack, Best, Loss, LossFn, check_steps, keep_better, select
from bnn_adv.threat import Threat, random_starts

_MOMENTUM = 0.75
# Percent of the steps, in whole numbers: rounding up must not depend on float error.
_FIRST_CHECKPOINT, _SHORTER, _SHORTEST = 22, 3, 6


@dataclasses.dataclass(frozen=True)
class Config:
    """Say how APGD walks.

    Args:
      num_steps: Steps, at least 1.
      rho: Share of steps that must raise the objective, in [0, 1].
    """

    num_steps: int = 100
    rho: float = 0.75


class State(NamedTuple):
    """Hold the attack's state; after the first three, how the walk goes.

    x_adv: The inputs that would be returned now, [B, ...].
    success: Whether ``x_adv`` is known to fool, [B].
    value: The objective at ``x_adv``, [B].
    x: The current iterate, [B, ...].
    before: The iterate before it, [B, ...].
    loss: The objective and its gradient at ``x``.
    top: Where the objective was largest, [B, ...].
    top_loss: The objective and its gradient there.
    step: Steps taken, a scalar.
    step_size: eta, [B].
    rises: Steps since the last checkpoint that raised the objective, [B].
    was_halved: Whether eta was halved at the last checkpoint, [B].
    top_before: The largest objective at the last checkpoint, [B].
    """

    x_adv: jax.Array
    success: jax.Array
    value: jax.Array
    x: jax.Array
    before: jax.Array
    loss: Loss
    top: jax.Array
    top_loss: Loss
    step: jax.Array
    step_size: jax.Array
    rises: jax.Array
    was_halved: jax.Array
    top_before: jax.Array


def init(
    rng_keys: jax.Array, loss_fn: LossFn, x: jax.Array, threat: Threat, config: Config
) -> State:
    """Choose random starts and evaluate the objective there."""
    start = random_starts(threat, rng_keys, x)
    loss = loss_fn(start)
    return State(
        x_adv=start,
        success=loss.success,
        value=loss.value,
        x=start,
        before=start,
        loss=loss,
        top=start,
        top_loss=loss,
        step=jnp.zeros((), jnp.int32),
        step_size=jnp.broadcast_to(2.0 * jnp.asarray(threat.epsilon, x.dtype), loss.value.shape),
        rises=jnp.zeros(loss.value.shape, jnp.int32),
        was_halved=jnp.ones(loss.value.shape, bool),
        top_before=loss.value,
    )


def step(
    rng_keys: jax.Array,
    state: State,
    loss_fn: LossFn,
    x: jax.Array,
    threat: Threat,
    config: Config,
) -> State:
    """Take one step; at a checkpoint, decide whether to halve the step size and go back."""
    eta = state.step_size.reshape(-1, *(1,) * (x.ndim - 1))
    aim = threat.project(state.x + eta * threat.ascend(state.loss.gradient, state.x), x)
    share = jnp.where(state.step == 0, 1.0, _MOMENTUM)
    moved = state.x + share * (aim - state.x) + (1 - share) * (state.x - state.before)
    moved = threat.project(moved, x)
    loss = loss_fn(moved)
    best = keep_better(Best(state.x_adv, state.success, state.value), moved, loss)
    is_top = loss.value > state.top_loss.value
    after = State(
        *best,
        x=moved,
        before=state.x,
        loss=loss,
        top=select(is_top, moved, state.top),
        top_loss=_select_loss(is_top, loss, state.top_loss),
        step=state.step + 1,
        step_size=state.step_size,
        rises=state.rises + (loss.value > state.loss.value),
        was_halved=state.was_halved,
        top_before=state.top_before,
    )
    lengths = jnp.asarray(_lengths(config.num_steps))
    return _look_back(after, lengths[state.step], config.rho)


def build(*, num_steps: int = 100, rho: float = 0.75, stop_on_success: bool = False) -> Attack:
    """Return the attack with the given settings, see ``Config``.

    Args:
      stop_on_success: End a batch once all its inputs are fooled.

    Raises:
      ValueError: A setting is out of range.
    """
    check_steps(num_steps)
    if not 0 <= rho <= 1:
        raise ValueError(f"rho must lie in [0, 1], got {rho}.")
    return Attack("apgd", Config(num_steps, rho), init, step, num_steps, stop_on_success)


def checkpoints(num_steps: int) -> list[int]:
    """Return the steps after which APGD looks back, below ``num_steps``, ascending."""
    last, share, found = 0, _FIRST_CHECKPOINT, set()
    while share < 100:
        found.add(-(-share * num_steps // 100))
        last, share = share, share + max(share - last - _SHORTER, _SHORTEST)
    return sorted(step for step in found if step < num_steps)


def _lengths(num_steps: int) -> np.ndarray:
    """Return, by step, how long the stretch is that ends with it; 0 where none does."""
    lengths, last = np.zeros(num_steps, np.int32), 0
    for end in checkpoints(num_steps):
        lengths[end - 1] = end - last
        last = end
    return lengths


def _look_back(state: State, length: jax.Array, rho: float) -> State:
    is_checkpoint = length > 0
    stuck = ~state.was_halved & (state.top_before == state.top_loss.value)
    halve = is_checkpoint & ((state.rises < rho * length) | stuck)
    return state._replace(
        x=select(halve, state.top, state.x),
        loss=_select_loss(halve, state.top_loss, state.loss),
        step_size=jnp.where(halve, state.step_size / 2, state.step_size),
        rises=jnp.where(is_checkpoint, 0, state.rises),
        was_halved=jnp.where(is_checkpoint, halve, state.was_halved),
        top_before=jnp.where(is_checkpoint, state.top_loss.value, state.top_before),
    )


def _select_loss(mask: jax.Array, loss: Loss, otherwise: Loss) -> Loss:
    return jax.tree.map(lambda a, b: select(mask, a, b), loss, otherwise)
