r"""Projected ascent along gradients that are estimated from values alone.

Natural evolution strategies, Ilyas et al. 2018, arXiv 1804.08598, section 2.2 and algorithm 1: n
pairs of opposite Gaussian directions give

    g_t = 1 / (2 sigma n) sum_i u_i ( J(x_t + sigma u_i) - J(x_t - sigma u_i) ),    u_i ~ N(0, I)
    m_{t+1} = mu m_t + (1 - mu) g_t
    x_{t+1} = Proj_{ball and box}( x_t + alpha d(m_{t+1}) ),    x_0 = x

with ``d`` the steepest ascent direction of the norm (the sign for l_inf). ``g_t`` is an unbiased
estimate of the gradient of J blurred by a Gaussian of scale sigma, and so looks over the plateaus
where the gradient itself is exactly zero. The best iterate is kept. Queries may leave ball and box
by some sigma; iterates do not.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.attacks.base import Attack, Best, LossFn, check_steps, keep_better
from bnn_adv.attacks.threat import Threat, radius_of
from bnn_adv.compute.types import Images, RngKeys


@dataclasses.dataclass(frozen=True)
class Config:
    """How the gradient is estimated, and how long the walk is.

    With the defaults it asks for 1,026 values an input.

    Args:
      num_steps: Steps, at least 1.
      num_directions: Pairs of opposite directions a step, two queries each, at least 1.
      sigma: Scale of the directions in units of the input, positive; a large one sees further over
        plateaus, a small one follows the gradient more closely.
      step_size: Step in units of the input; None takes ``2.5 epsilon / num_steps``.
      decay: Weight ``mu`` of the earlier estimates, in [0, 1).
    """

    num_steps: int = 25
    num_directions: int = 20
    sigma: float = 0.1
    step_size: float | None = None
    decay: float = 0.9


class State(NamedTuple):
    """The attack's state.

    x_adv: The inputs that would be returned now, [B, ...].
    success: Whether ``x_adv`` is known to fool, [B].
    value: The objective at ``x_adv``, [B].
    step: Steps taken, a scalar.
    x: The current iterate, [B, ...].
    momentum: Mean of the estimates so far, weighted towards the last ones, [B, ...].
    """

    x_adv: jax.Array
    success: jax.Array
    value: jax.Array
    step: jax.Array
    x: jax.Array
    momentum: jax.Array


def init(rng_keys: RngKeys, loss_fn: LossFn, x: Images, threat: Threat, config: Config) -> State:
    """Evaluate the objective at the clean inputs."""
    loss = loss_fn(x)
    zero = jnp.zeros((), jnp.int32)
    return State(x, loss.success, loss.value, zero, x, jnp.zeros_like(x))


def step(
    rng_keys: RngKeys,
    state: State,
    loss_fn: LossFn,
    x: Images,
    threat: Threat,
    config: Config,
) -> State:
    """Estimate the gradient, take one projected step and keep the better point."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(rng_keys, state.step)
    gradient = estimate_gradient(
        keys, loss_fn, state.x, sigma=config.sigma, num_directions=config.num_directions
    )
    momentum = config.decay * state.momentum + (1 - config.decay) * gradient
    size = config.step_size
    step_size = 2.5 * radius_of(threat, x) / config.num_steps if size is None else size
    moved = threat.project(state.x + step_size * threat.ascend(momentum, state.x), x)
    best = Best(state.x_adv, state.success, state.value)
    best = keep_better(best, moved, loss_fn(moved))
    return State(*best, state.step + 1, moved, momentum)


def build(
    *,
    num_steps: int = 25,
    num_directions: int = 20,
    sigma: float = 0.1,
    step_size: float | None = None,
    decay: float = 0.9,
    stop_on_success: bool = True,
) -> Attack:
    """Return the attack with the given settings, see ``Config``.

    Args:
      stop_on_success: End a batch once all its inputs are fooled.

    Raises:
      ValueError: A setting is out of range.
    """
    check_steps(num_steps, step_size)
    if num_directions < 1:
        raise ValueError(f"num_directions must be at least 1, got {num_directions}.")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}.")
    if not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1), got {decay}.")
    config = Config(num_steps, num_directions, sigma, step_size, decay)
    return Attack("nes", config, init, step, num_steps, stop_on_success, uses_gradient=False)


def estimate_gradient(
    rng_keys: RngKeys,
    loss_fn: LossFn,
    x: Images,
    *,
    sigma: float,
    num_directions: int,
) -> Images:
    """Estimate the gradient of the blurred objective, one pair of directions after another.

    Args:
      rng_keys: One key an input, [B].
      loss_fn: The objective; only its values are used.
      x: Where, [B, ...].
      sigma: Scale of the directions, in units of the input.
      num_directions: Pairs n; the error's variance falls as 1 / n.

    Returns:
      The estimate, [B, ...].
    """

    def add(total: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
        def draw(key: jax.Array) -> jax.Array:
            return jax.random.normal(jax.random.fold_in(key, index), x.shape[1:], x.dtype)

        direction = jax.vmap(draw)(rng_keys)
        change = loss_fn(x + sigma * direction).value - loss_fn(x - sigma * direction).value
        # A difference with a value that is no number says nothing.
        change = jnp.where(jnp.isfinite(change), change, 0.0)
        weight = change / (2 * sigma * num_directions)
        return total + weight.reshape(-1, *(1,) * (x.ndim - 1)) * direction, None

    total, _ = jax.lax.scan(add, jnp.zeros_like(x), jnp.arange(num_directions))
    return total
