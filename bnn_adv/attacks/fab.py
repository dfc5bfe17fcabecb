r"""Fast adaptive boundary attack: the nearest input that fools, with no radius given.

Croce, Hein 2020, arXiv 1907.02044, algorithm 1. At x_i the boundary is linearised: with the margin
``m_k`` of class k over the label, the plane ``m_k(x_i) + <grad m_k(x_i), z - x_i> = 0`` of the k
whose plane is nearest. With d_i and d_0 the shortest ways to it from x_i and from the clean input
x, inside the box (``hyperplane``),

    a = min( |d_i| / (|d_i| + |d_0|), alpha_max )
    x_{i+1} = clip( (1 - a) (x_i + eta d_i) + a (x + eta d_0) )

and where x_{i+1} fools, it is kept if it is the nearest so far, and the walk goes on from
``x + beta (x_{i+1} - x)``. In the end a bisection between the clean input and the nearest one found
(the paper interpolates) takes off what the overshoot eta left.

The margin is ``loss_fn(x, target=k)``, less ``loss_fn(x, target=label)``, which is zero for
objectives that are margins and turns a loss into one. Whether an input fools is the posterior
predictive's word, never the margin's: the zero of an objective need not be where predictions
change. ``normalised_vote`` does not suit: its gradient is not that of its value, so the way to its
planes is wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.attacks.base import Attack, LossFn, check_steps, select
from bnn_adv.attacks.hyperplane import step_to_plane
from bnn_adv.attacks.targets import rank_targets
from bnn_adv.threat import Threat, per_input, random_starts, with_radius


@dataclasses.dataclass(frozen=True)
class Config:
    """Say how FAB walks.

    Args:
      num_steps: Steps from each start, at least 1.
      num_starts: Starts, at least 1: the clean input, then random points of the ball of half the
        radius, or of half the distance to the nearest input that is known to fool.
      num_bisections: Steps of the final search, at least 0; each halves what is left.
      alpha_max: Largest pull towards the clean input, in [0, 1].
      eta: Overshoot, at least 1.
      beta: Share of the way that is kept where an input fools, in (0, 1).
    """

    num_steps: int = 100
    num_starts: int = 1
    num_bisections: int = 10
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9


class State(NamedTuple):
    """Hold the attack's state.

    x_adv: ``nearest``, cut with the ball where it lies outside, [B, ...].
    success: Whether ``nearest`` fools and lies in the ball, [B].
    nearest: The nearest inputs known to fool; the clean ones where none is, [B, ...].
    distance: Their distance from the clean inputs; infinite where none is known, [B].
    x: The current iterate; in the final search the end that does not fool, [B, ...].
    label: The label, int32 [B]; any class where the clean input fools.
    is_margin: Whether the objective, aimed at the label, is zero, [B].
    targets: The other classes that are aimed at, int32 [B, K].
    step: Steps taken, a scalar.
    """

    x_adv: jax.Array
    success: jax.Array
    nearest: jax.Array
    distance: jax.Array
    x: jax.Array
    label: jax.Array
    is_margin: jax.Array
    targets: jax.Array
    step: jax.Array


class Plane(NamedTuple):
    """Hold a margin and its gradient at the current iterates.

    value: [B].
    gradient: [B, ...].
    """

    value: jax.Array
    gradient: jax.Array


LineariseFn = Callable[[jax.Array], Plane]
"""Linearise at the current iterates the margins of classes, [B]."""


def init(
    rng_keys: jax.Array, loss_fn: LossFn, x: jax.Array, threat: Threat, config: Config
) -> State:
    """Look at the clean inputs: they are the nearest ones where they fool.

    Raises:
      ValueError: ``loss_fn`` returns no ``log_probs``.
    """
    return prepare(loss_fn, x, threat, num_targets=None)


def step(
    rng_keys: jax.Array,
    state: State,
    loss_fn: LossFn,
    x: jax.Array,
    threat: Threat,
    config: Config,
) -> State:
    """Take one step to the nearest of all linearised boundaries, or one of the final search."""

    def nearest_plane(linearise: LineariseFn) -> Plane:
        def closer(index: jax.Array, found: tuple[jax.Array, Plane]) -> tuple[jax.Array, Plane]:
            far, plane = found
            other = linearise(state.targets[:, index])
            way = step_to_plane(state.x, other.gradient, -other.value, threat)
            # Planes that the box does not reach stay behind those that it does.
            gained = jnp.sum((way * other.gradient).reshape(way.shape[0], -1), axis=1)
            reaches = jnp.abs(gained) >= 0.999 * jnp.abs(other.value)
            length = jnp.where(reaches, _length(way, threat), jnp.finfo(way.dtype).max)
            nearer = length < far
            return jnp.minimum(length, far), Plane(
                jnp.where(nearer, other.value, plane.value),
                select(nearer, other.gradient, plane.gradient),
            )

        none = jnp.full_like(state.distance, jnp.inf)
        first = none, Plane(jnp.zeros_like(none), jnp.zeros_like(x))
        return jax.lax.fori_loop(0, state.targets.shape[1], closer, first)[1]

    num_walks = config.num_starts
    return advance(rng_keys, state, loss_fn, x, threat, config, nearest_plane, num_walks)


def build(
    *,
    num_steps: int = 100,
    num_starts: int = 1,
    num_bisections: int = 10,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    stop_on_success: bool = False,
) -> Attack:
    """Return the attack with the given settings, see ``Config``.

    Args:
      stop_on_success: Let an input go once it is fooled within its radius, though a nearer one
        may be found.

    Raises:
      ValueError: A setting is out of range.
    """
    config = Config(num_steps, num_starts, num_bisections, alpha_max, eta, beta)
    check(config)
    total = num_starts * num_steps + num_bisections
    return Attack("fab", config, init, step, total, stop_on_success, minimises_norm=True)


def check(config: Config) -> None:
    """Raise unless all settings are in their ranges.

    Raises:
      ValueError: The message names the setting and its value.
    """
    check_steps(config.num_steps)
    if config.num_starts < 1:
        raise ValueError(f"num_starts must be at least 1, got {config.num_starts}.")
    if config.num_bisections < 0:
        raise ValueError(f"num_bisections must be at least 0, got {config.num_bisections}.")
    if not 0 <= config.alpha_max <= 1:
        raise ValueError(f"alpha_max must lie in [0, 1], got {config.alpha_max}.")
    if not config.eta >= 1:
        raise ValueError(f"eta must be at least 1, got {config.eta}.")
    if not 0 < config.beta < 1:
        raise ValueError(f"beta must lie in (0, 1), got {config.beta}.")


def prepare(loss_fn: LossFn, x: jax.Array, threat: Threat, num_targets: int | None) -> State:
    """Return the first state, with the most likely classes as targets; None: all of them."""
    loss = loss_fn(x)
    targets = rank_targets(loss, num_targets)
    assert loss.log_probs is not None
    label = jnp.argmax(loss.log_probs, axis=-1).astype(jnp.int32)
    return State(
        x_adv=x,
        success=loss.success,
        nearest=x,
        distance=jnp.where(loss.success, 0.0, jnp.inf).astype(x.dtype),
        x=x,
        label=label,
        is_margin=loss.success | (loss_fn(x, label).value == 0),
        targets=targets,
        step=jnp.zeros((), jnp.int32),
    )


def advance(
    rng_keys: jax.Array,
    state: State,
    loss_fn: LossFn,
    x: jax.Array,
    threat: Threat,
    config: Config,
    choose_plane: Callable[[LineariseFn], Plane],
    num_walks: int,
) -> State:
    """Take one step of ``num_walks`` walks, then of the final search.

    Args:
      rng_keys: One key an input, [B].
      state: The state.
      loss_fn: The loss.
      x: Clean inputs, [B, ...].
      threat: Norm, radius and box.
      config: The settings.
      choose_plane: Choose the linearised boundary, given how to linearise one.
      num_walks: Walks of ``config.num_steps`` steps.
    """
    is_walk = state.step < num_walks * config.num_steps

    def walk() -> jax.Array:
        own = _own_part(loss_fn, state)

        def linearise(classes: jax.Array) -> Plane:
            loss = loss_fn(state.x, classes)
            return Plane(loss.value - own.value, loss.gradient - own.gradient)

        return _approach(choose_plane(linearise), state.x, x, threat, config)

    moved = jax.lax.cond(is_walk, walk, lambda: (state.x + state.nearest) / 2)
    fools = loss_fn(moved).success
    distance = threat.distance(moved, x)
    nearer = fools & (distance < state.distance)
    nearest = select(nearer, moved, state.nearest)
    distance = jnp.where(nearer, distance, state.distance)
    in_ball = distance <= per_input(threat, x.shape[0]).epsilon

    following = select(fools, x + config.beta * (moved - x), moved)
    count = state.step + 1
    start = _start(rng_keys, x, threat, distance, count // config.num_steps, config, num_walks)
    following = jnp.where(count % config.num_steps == 0, start, following)
    following = jnp.where(is_walk, following, select(fools, state.x, moved))
    return state._replace(
        x_adv=select(in_ball, nearest, threat.project(nearest, x)),
        success=in_ball,
        nearest=nearest,
        distance=distance,
        x=following,
        step=count,
    )


def _own_part(loss_fn: LossFn, state: State) -> Plane:
    """Return the label's part of the margins, zero for objectives that are margins themselves."""
    nothing = Plane(jnp.zeros_like(state.distance), jnp.zeros_like(state.x))

    def look() -> Plane:
        loss = loss_fn(state.x, state.label)
        return Plane(
            jnp.where(state.is_margin, nothing.value, loss.value),
            select(state.is_margin, nothing.gradient, loss.gradient),
        )

    return jax.lax.cond(state.is_margin.all(), lambda: nothing, look)


def _approach(
    plane: Plane, current: jax.Array, x: jax.Array, threat: Any, config: Config
) -> jax.Array:
    """Return where the two steps to the plane, from the iterate and the clean input, lead."""
    rise = jnp.sum((plane.gradient * (x - current)).reshape(x.shape[0], -1), axis=1)
    own_way = step_to_plane(current, plane.gradient, -plane.value, threat)
    clean_way = step_to_plane(x, plane.gradient, -(plane.value + rise), threat)
    own, clean = _length(own_way, threat), _length(clean_way, threat)
    share = own / jnp.maximum(own + clean, jnp.finfo(x.dtype).tiny)
    share = jnp.minimum(share, config.alpha_max).reshape(-1, *(1,) * (x.ndim - 1))
    moved = (1 - share) * (current + config.eta * own_way) + share * (x + config.eta * clean_way)
    return jnp.clip(moved, threat.lower, threat.upper)


def _start(
    rng_keys: jax.Array,
    x: jax.Array,
    threat: Threat,
    distance: jax.Array,
    turn: jax.Array,
    config: Config,
    num_walks: int,
) -> jax.Array:
    """Return where the next walk begins; after the last one, the clean inputs."""
    if config.num_starts == 1:
        return x
    own = with_radius(threat, jnp.minimum(per_input(threat, x.shape[0]).epsilon, distance) / 2)
    keys = jax.vmap(jax.random.fold_in, (0, None))(rng_keys, turn)
    is_clean = (turn % config.num_starts == 0) | (turn == num_walks)
    return jnp.where(is_clean, x, random_starts(own, keys, x))


def _length(way: jax.Array, threat: Threat) -> jax.Array:
    return threat.distance(way, jnp.zeros_like(way))
