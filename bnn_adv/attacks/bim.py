r"""Basic iterative method.

Kurakin, Goodfellow, Bengio 2017, arXiv 1607.02533, section 2.2: FGSM in small steps from the clean
input, each cut with the ball,

    x_{t+1} = Proj_{ball and box}( x_t + alpha d(g_t) ),    x_0 = x

with ``d`` the steepest ascent direction of the norm (the sign for l_inf). The paper takes 1.25
epsilon / alpha steps; the default alpha is ``1.25 epsilon / num_steps`` accordingly. The last
iterate is returned.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from bnn_adv.attacks.base import Attack, LossFn, check_steps
from bnn_adv.attacks.threat import Threat, radius_of
from bnn_adv.compute.types import Images, RngKeys


@dataclasses.dataclass(frozen=True)
class Config:
    """How BIM walks.

    Args:
      num_steps: Steps, at least 1.
      step_size: Step in units of the input; None takes ``1.25 epsilon / num_steps``.
    """

    num_steps: int = 10
    step_size: float | None = None


class State(NamedTuple):
    """The attack's state.

    x_adv: The current iterate, [B, ...].
    success: Whether it is known to fool, [B].
    gradient: The gradient there, [B, ...].
    """

    x_adv: jax.Array
    success: jax.Array
    gradient: jax.Array


def init(rng_keys: RngKeys, loss_fn: LossFn, x: Images, threat: Threat, config: Config) -> State:
    """Evaluate the gradient at the clean inputs."""
    loss = loss_fn(x)
    return State(x, loss.success, loss.gradient)


def step(
    rng_keys: RngKeys,
    state: State,
    loss_fn: LossFn,
    x: Images,
    threat: Threat,
    config: Config,
) -> State:
    """Take one projected step."""
    size = config.step_size
    step_size = 1.25 * radius_of(threat, x) / config.num_steps if size is None else size
    moved = threat.project(state.x_adv + step_size * threat.ascend(state.gradient, state.x_adv), x)
    loss = loss_fn(moved)
    return State(moved, loss.success, loss.gradient)


def build(*, num_steps: int = 10, step_size: float | None = None) -> Attack:
    """Return the attack with the given settings, see ``Config``.

    Raises:
      ValueError: A setting is out of range.
    """
    check_steps(num_steps, step_size)
    return Attack("bim", Config(num_steps, step_size), init, step, num_steps)
