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

Over a posterior the zero of an objective need not be where predictions change, and a walk to it
may never fool. So the planes have the objective's gradient, but the log posterior predictive's
value, ``c_k (log p_k(x_i) - log p_label(x_i))`` with the constant c_k that makes both agree at the
clean input; and each step in a row that does not fool lets the next one reach farther, by a tenth
and by a thousandth of the clean value.
With ``log_predictive_margin``, which is that value, c_k is 1. The margin is
``loss_fn(x, target=k)`` less ``loss_fn(x, target=label)``, which is zero for objectives that are
margins and turns a loss into one. ``normalised_vote`` does not suit: its gradient is not that of
its value, so that all steps have a wrong length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.attacks.base import Attack, Loss, LossFn, check_steps, select
from bnn_adv.attacks.hyperplane import step_to_plane
from bnn_adv.attacks.targets import rank_targets
from bnn_adv.attacks.threat import Threat, per_input, random_starts, with_radius
from bnn_adv.compute.types import Images, RngKeys

# By how much farther each step in a row that did not fool lets the next one reach; and by which
# share of the clean lead: at the boundary, to rounding, no factor leads across it.
_REACH, _AHEAD = 1.1, 1e-3


@dataclasses.dataclass(frozen=True)
class Config:
    """How FAB walks.

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
    """The attack's state.

    x_adv: ``nearest``, cut with the ball where it lies outside, [B, ...].
    success: Whether ``nearest`` fools and lies in the ball, [B].
    nearest: The nearest inputs known to fool; the clean ones where none is, [B, ...].
    distance: Their distance from the clean inputs; infinite where none is known, [B].
    x: The current iterate; in the final search the end that does not fool, [B, ...].
    label: The label, int32 [B]; any class where the clean input fools.
    is_margin: Whether the objective, aimed at the label, is zero, [B].
    targets: The other classes that are aimed at, int32 [B, K].
    scales: c_k of each, [B, K].
    leads: Their log posterior predictive less the label's at the clean input, [B, K].
    misses: Steps in a row that did not fool, int32 [B]; halved by one that does.
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
    scales: jax.Array
    leads: jax.Array
    misses: jax.Array
    step: jax.Array


class Plane(NamedTuple):
    """A margin and its gradient at the current iterates.

    value: [B].
    gradient: [B, ...].
    """

    value: jax.Array
    gradient: jax.Array


LineariseFn = Callable[[jax.Array], Plane]
"""Linearise at the current iterates the margins of the targets at an index below K."""


def init(rng_keys: RngKeys, loss_fn: LossFn, x: Images, threat: Threat, config: Config) -> State:
    """Look at the clean inputs: they are the nearest ones where they fool.

    Raises:
      ValueError: ``loss_fn`` returns no ``log_probs``.
    """
    return prepare(loss_fn, x, threat, num_targets=None)


def step(
    rng_keys: RngKeys,
    state: State,
    loss_fn: LossFn,
    x: Images,
    threat: Threat,
    config: Config,
) -> State:
    """Take one step to the nearest of all linearised boundaries, or one of the final search."""

    def nearest_plane(linearise: LineariseFn) -> Plane:
        def closer(index: jax.Array, found: tuple[jax.Array, Plane]) -> tuple[jax.Array, Plane]:
            far, plane = found
            other = linearise(index)
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
        result: Plane = jax.lax.fori_loop(0, state.targets.shape[1], closer, first)[1]
        return result

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


def prepare(loss_fn: LossFn, x: Images, threat: Threat, num_targets: int | None) -> State:
    """Return the first state, with the most likely classes as targets; None: all of them."""
    loss = loss_fn(x)
    targets = rank_targets(loss, num_targets)
    assert loss.log_probs is not None
    label = jnp.argmax(loss.log_probs, axis=-1).astype(jnp.int32)
    own = loss_fn(x, label).value

    def compare(classes: jax.Array) -> tuple[jax.Array, jax.Array]:
        margin = loss_fn(x, classes).value - own
        lead = _lead(loss, classes, label)
        usable = (margin < 0) & (lead < 0)
        return jnp.where(usable, margin / jnp.where(usable, lead, 1.0), 1.0), lead

    scales, leads = jax.lax.map(compare, targets.T)
    return State(
        x_adv=x,
        success=loss.success,
        nearest=x,
        distance=jnp.where(loss.success, 0.0, jnp.inf).astype(x.dtype),
        x=x,
        label=label,
        is_margin=loss.success | (own == 0),
        targets=targets,
        scales=scales.T,
        leads=leads.T,
        misses=jnp.zeros_like(label),
        step=jnp.zeros((), jnp.int32),
    )


def advance(
    rng_keys: RngKeys,
    state: State,
    loss_fn: LossFn,
    x: Images,
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
        own = _own_gradient(loss_fn, state)

        def linearise(index: jax.Array) -> Plane:
            classes = state.targets[:, index]
            loss = loss_fn(state.x, classes)
            lead = _lead(loss, classes, state.label)
            reach = state.scales[:, index] * (_REACH**state.misses).astype(state.x.dtype)
            lead = lead + _AHEAD * state.misses * state.leads[:, index]
            return Plane(reach * lead, loss.gradient - own)

        return _approach(choose_plane(linearise), state.x, x, threat, config)

    moved = jax.lax.cond(is_walk, walk, lambda: (state.x + state.nearest) / 2)
    fools = loss_fn(moved).success
    distance = threat.distance(moved, x)
    nearer = fools & (distance < state.distance)
    nearest = select(nearer, moved, state.nearest)
    distance = jnp.where(nearer, distance, state.distance)
    in_ball = distance <= per_input(threat, x.shape[0], x.dtype).epsilon

    following = select(fools, x + config.beta * (moved - x), moved)
    count = state.step + 1
    start = _start(rng_keys, x, threat, distance, count // config.num_steps, config, num_walks)
    misses = jnp.where(fools, state.misses // 2, state.misses + 1)
    is_last = count % config.num_steps == 0
    following = jnp.where(is_last, start, following)
    following = jnp.where(is_walk, following, select(fools, state.x, moved))
    return state._replace(
        x_adv=select(in_ball, nearest, threat.project(nearest, x)),
        success=in_ball,
        nearest=nearest,
        distance=distance,
        x=following,
        misses=jnp.where(is_last, 0, misses),
        step=count,
    )


def _lead(loss: Loss, classes: jax.Array, label: jax.Array) -> jax.Array:
    """Return by how much classes lead over the label, in log posterior predictive, [B]."""
    assert loss.log_probs is not None
    pair = jnp.take_along_axis(loss.log_probs, jnp.stack([classes, label], axis=1), axis=1)
    return pair[:, 0] - pair[:, 1]


def _own_gradient(loss_fn: LossFn, state: State) -> jax.Array:
    """Return the label's part of the margins' gradient, zero where objectives are margins."""
    nothing = jnp.zeros_like(state.x)

    def look() -> jax.Array:
        return select(state.is_margin, nothing, loss_fn(state.x, state.label).gradient)

    found: jax.Array = jax.lax.cond(state.is_margin.all(), lambda: nothing, look)
    return found


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
    own = with_radius(
        threat, jnp.minimum(per_input(threat, x.shape[0], x.dtype).epsilon, distance) / 2
    )
    keys = jax.vmap(jax.random.fold_in, (0, None))(rng_keys, turn)
    is_clean = (turn % config.num_starts == 0) | (turn == num_walks)
    return jnp.where(is_clean, x, random_starts(own, keys, x))


def _length(way: jax.Array, threat: Threat) -> jax.Array:
    return threat.distance(way, jnp.zeros_like(way))
