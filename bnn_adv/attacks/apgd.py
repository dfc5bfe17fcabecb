r"""Auto-PGD: projected gradient ascent with momentum that chooses its own step.

Croce, Hein 2020, arXiv 2003.01690, section 3, algorithm 1:

    z_{t+1} = Proj( x_t + eta d(g_t) )
    x_{t+1} = Proj( x_t + a (z_{t+1} - x_t) + (1 - a) (x_t - x_{t-1}) ),    a = 0.75 (first step: 1)

from a random start with ``eta = 2 epsilon``. At checkpoints ``ceil(p_j num_steps)``, with p_0 = 0,
p_1 = 0.22 and ``p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)``, eta is halved and the walk goes
on from its best point if either (condition 1) fewer than ``rho = 0.75`` of the steps since the last
checkpoint raised the objective, or (condition 2) eta was not halved there and the best objective
has not changed since.

For l_1, Croce, Hein 2021, arXiv 2103.01208, section 3 (l1-APGD): no momentum, and a direction that
adapts its sparsity,

    x_{t+1} = Proj( x_t + eta sign(u_t) / |sign(u_t)|_1 ),    u_t = the k steepest entries of g_t

from ``eta = epsilon`` and k a fifth of the d coordinates. Every ``0.04 num_steps`` steps the number
of coordinates s in which the best point differs from the clean one is counted, and k becomes
``s / 1.5``. If s has fallen by more than 5 % since the last count, eta goes back to epsilon and the
walk goes on from its best point; else eta is divided by 1.5, down to ``epsilon / 10``. Coordinates
that already stand at the wall ahead are not counted among the k, as in ``L1.ascend``.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks.base import Attack, Best, Loss, LossFn, check_steps, keep_better, select
from bnn_adv.attacks.threat import Threat, per_input, random_starts
from bnn_adv.compute.types import Images, RngKeys

_MOMENTUM = 0.75
# Percent of the steps, in whole numbers: rounding up must not depend on float error.
_FIRST_CHECKPOINT, _SHORTER, _SHORTEST = 22, 3, 6
# For l_1: percent of the steps between checkpoints, the first share of coordinates, how eta and
# the support shrink, the least eta, and the fall of the support that resets eta.
_SPARSE_STRETCH, _FIRST_SHARE = 4, 0.2
_SPARSE_SHRINK, _LEAST_STEP, _SPARSER = 1.5, 0.1, 0.95

AS_DATA = ("num_steps", "rho")
"""Settings that compiled programs take as data."""


@dataclasses.dataclass(frozen=True)
class Config:
    """How APGD walks.

    Args:
      num_steps: Steps, at least 1.
      rho: Share of steps that must raise the objective, in [0, 1]; l_1 does not look at it.
    """

    num_steps: int = 100
    rho: float = 0.75


class State(NamedTuple):
    """The attack's state; after the first three, how the walk goes.

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
    num_moved: For l_1, k, coordinates that a step moves, [B].
    support: For l_1, coordinates in which ``top`` differed from the clean input at the last
      checkpoint, [B].
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
    num_moved: jax.Array
    support: jax.Array


def init(rng_keys: RngKeys, loss_fn: LossFn, x: Images, threat: Threat, config: Config) -> State:
    """Choose random starts and evaluate the objective there."""
    start = start_at(rng_keys, x, threat, config)
    return begin(start, loss_fn(start), threat)


def step(
    rng_keys: RngKeys,
    state: State,
    loss_fn: LossFn,
    x: Images,
    threat: Threat,
    config: Config,
) -> State:
    """Take one step; at a checkpoint, decide whether to shorten the steps and go back."""
    moved = propose(state, x, threat, config)
    return take_in(state, moved, loss_fn(moved), x, threat, config)


def begin(start: Images, loss: Loss, threat: Threat) -> State:
    """Return the state of a walk that begins at ``start``, [B, ...], given the loss there."""
    loss = loss._replace(log_probs=None)
    first_step = 1.0 if threat.norm == "l1" else 2.0
    epsilon = jnp.asarray(threat.epsilon, start.dtype)
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
        step_size=jnp.broadcast_to(first_step * epsilon, loss.value.shape),
        rises=jnp.zeros(loss.value.shape, jnp.int32),
        was_halved=jnp.ones(loss.value.shape, bool),
        top_before=loss.value,
        num_moved=jnp.full(loss.value.shape, max(int(_FIRST_SHARE * start[0].size), 1), jnp.int32),
        support=jnp.full(loss.value.shape, start[0].size, jnp.int32),
    )


def start_at(rng_keys: RngKeys, x: Images, threat: Threat, config: Config) -> Images:
    """Return where the walk begins, [B, ...]."""
    return random_starts(threat, rng_keys, x)


def propose(state: State, x: Images, threat: Threat, config: Config) -> Images:
    """Return where the next step leads, [B, ...]."""
    return _sparse_step(state, x, threat) if threat.norm == "l1" else _step(state, x, threat)


def take_in(
    state: State, moved: Images, loss: Loss, x: Images, threat: Threat, config: Config
) -> State:
    """Return the state after a step to ``moved``, [B, ...], given the loss there."""
    loss = loss._replace(log_probs=None)
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
        num_moved=state.num_moved,
        support=state.support,
    )
    if threat.norm == "l1":
        stretch = jnp.maximum(_SPARSE_STRETCH * config.num_steps // 100, 1)
        return _look_back_sparsely(after, after.step % stretch == 0, x, threat)
    return _look_back(after, _stretch(after.step, config.num_steps), config.rho)


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
    config = Config(num_steps, rho)
    return Attack("apgd", config, init, step, num_steps, stop_on_success, as_data=AS_DATA)


def checkpoints(num_steps: int) -> list[int]:
    """Return the steps after which APGD looks back, below ``num_steps``, ascending."""
    ends = np.asarray(_ends(num_steps)).tolist()
    return sorted({step for step in ends if step < num_steps})


def _ends(num_steps: Any) -> Any:
    """Return the steps ``ceil(p_j num_steps)`` that end a stretch, [8], ascending."""
    last, share, shares = 0, _FIRST_CHECKPOINT, []
    while share < 100:
        shares.append(share)
        last, share = share, share + max(share - last - _SHORTER, _SHORTEST)
    return -(-np.array(shares) * num_steps // 100)


def _stretch(step: jax.Array, num_steps: Any) -> jax.Array:
    """Return how long the stretch is that ends with step number ``step``; 0 where none does."""
    ends = jnp.asarray(_ends(num_steps))
    last = jnp.max(jnp.where(ends < step, ends, 0))
    is_end = (ends == step).any() & (step < num_steps)
    return jnp.where(is_end, step - last, 0)


def _step(state: State, x: jax.Array, threat: Threat) -> jax.Array:
    """Return where a step with momentum leads."""
    eta = state.step_size.reshape(-1, *(1,) * (x.ndim - 1))
    aim = threat.project(state.x + eta * threat.ascend(state.loss.gradient, state.x), x)
    share = jnp.where(state.step == 0, 1.0, _MOMENTUM)
    moved = state.x + share * (aim - state.x) + (1 - share) * (state.x - state.before)
    return threat.project(moved, x)


def _sparse_step(state: State, x: jax.Array, threat: Any) -> jax.Array:
    """Return where a step along the ``num_moved`` steepest coordinates leads."""
    shape = (x.shape[0], -1)
    gradient, at = state.loss.gradient.reshape(shape), state.x.reshape(shape)
    is_free = jnp.where(gradient > 0, at < threat.upper, at > threat.lower)
    size = jnp.where(is_free, jnp.abs(gradient), 0.0)
    steepest = jnp.sort(size, axis=1, descending=True)
    least = jnp.take_along_axis(steepest, state.num_moved[:, None] - 1, axis=1)
    sign = jnp.sign(gradient) * ((size >= least) & (size > 0))
    direction = sign / jnp.maximum(jnp.abs(sign).sum(axis=1, keepdims=True), 1)
    found: jax.Array = threat.project(
        (at + state.step_size[:, None] * direction).reshape(x.shape), x
    )
    return found


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


def _look_back_sparsely(
    state: State, is_checkpoint: jax.Array, x: jax.Array, threat: Threat
) -> State:
    longest = per_input(threat, x.shape[0], x.dtype).epsilon
    support = jnp.sum((state.top != x).reshape(x.shape[0], -1), axis=1, dtype=jnp.int32)
    is_sparser = support < _SPARSER * state.support
    shorter = jnp.maximum(state.step_size / _SPARSE_SHRINK, _LEAST_STEP * longest)
    step_size = jnp.where(is_sparser, longest, shorter)
    count = jnp.maximum(support / _SPARSE_SHRINK, 1).astype(state.num_moved.dtype)
    back = is_checkpoint & is_sparser
    return state._replace(
        x=select(back, state.top, state.x),
        loss=_select_loss(back, state.top_loss, state.loss),
        step_size=jnp.where(is_checkpoint, step_size, state.step_size),
        num_moved=jnp.where(is_checkpoint, count, state.num_moved),
        support=jnp.where(is_checkpoint, support, state.support),
    )


def _select_loss(mask: jax.Array, loss: Loss, otherwise: Loss) -> Loss:
    found: Loss = jax.tree.map(lambda a, b: select(mask, a, b), loss, otherwise)
    return found
