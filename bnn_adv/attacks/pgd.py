r"""Projected gradient descent.

Madry et al. 2018, arXiv 1706.06083, section 2.1; here ascending:

    x_{t+1} = Proj_{ball and box}( x_t + alpha d(g_t) ),    g_t = the objective's gradient at x_t

with ``d`` the steepest ascent direction of the norm (the sign for l_inf). The default step is
``2.5 epsilon / num_steps``; starts are random; the best iterate is kept per input: one that fools
the posterior predictive before one that does not, then the one with the larger objective.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax

from bnn_adv.attacks.base import Attack, Best, Loss, LossFn, check_steps, keep_better
from bnn_adv.attacks.threat import Threat, radius_of, random_starts
from bnn_adv.compute.types import Images, RngKeys


@dataclasses.dataclass(frozen=True)
class Config:
    """How PGD walks.

    Args:
      num_steps: Steps, at least 1.
      step_size: Step in units of the input; None takes ``2.5 epsilon / num_steps``.
      random_start: Start at a random point of ball and box rather than at the clean input.
      keep: ``"best"`` iterate, or the ``"last"`` as the published code does.
    """

    num_steps: int = 40
    step_size: float | None = None
    random_start: bool = True
    keep: Literal["best", "last"] = "best"


class State(NamedTuple):
    """The attack's state.

    x_adv: The inputs that would be returned now, [B, ...].
    success: Whether ``x_adv`` is known to fool, [B].
    value: The objective at ``x_adv``, [B].
    x: The current iterate, [B, ...].
    gradient: The gradient there, [B, ...].
    """

    x_adv: jax.Array
    success: jax.Array
    value: jax.Array
    x: jax.Array
    gradient: jax.Array


def init(rng_keys: RngKeys, loss_fn: LossFn, x: Images, threat: Threat, config: Config) -> State:
    """Choose the starts and evaluate the objective there.

    Each input has a key of its own, so that its start does not depend on its batch.
    """
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
    """Take one projected step and keep the better point."""
    moved = propose(state, x, threat, config)
    return take_in(state, moved, loss_fn(moved), x, threat, config)


def start_at(rng_keys: RngKeys, x: Images, threat: Threat, config: Config) -> Images:
    """Return where the walk begins, [B, ...]."""
    return random_starts(threat, rng_keys, x) if config.random_start else x


def begin(start: Images, loss: Loss, threat: Threat) -> State:
    """Return the state at a start, [B, ...], given the loss there."""
    return State(start, loss.success, loss.value, start, loss.gradient)


def propose(state: State, x: Images, threat: Threat, config: Config) -> Images:
    """Return where the next step leads, [B, ...]."""
    size = config.step_size
    step_size = 2.5 * radius_of(threat, x) / config.num_steps if size is None else size
    return threat.project(state.x + step_size * threat.ascend(state.gradient, state.x), x)


def take_in(
    state: State, moved: Images, loss: Loss, x: Images, threat: Threat, config: Config
) -> State:
    """Return the state after a step to ``moved``, [B, ...], given the loss there."""
    best = Best(moved, loss.success, loss.value)
    if config.keep == "best":
        best = keep_better(Best(state.x_adv, state.success, state.value), moved, loss)
    return State(*best, moved, loss.gradient)


def build(
    *,
    num_steps: int = 40,
    step_size: float | None = None,
    random_start: bool = True,
    keep: Literal["best", "last"] = "best",
    stop_on_success: bool = False,
) -> Attack:
    """Return the attack with the given settings, see ``Config``.

    Args:
      stop_on_success: End a batch once all its inputs are fooled.

    Raises:
      ValueError: A setting is out of range.
    """
    check_steps(num_steps, step_size)
    if keep not in ("best", "last"):
        raise ValueError(f"keep must be 'best' or 'last', got {keep!r}.")
    config = Config(num_steps, step_size, random_start, keep)
    as_data = ("num_steps",) if step_size is None else ("num_steps", "step_size")
    return Attack("pgd", config, init, step, num_steps, stop_on_success, as_data=as_data)
