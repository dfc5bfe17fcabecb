"""What an attacker may do: a norm ball around the clean input, cut with the box of valid inputs.

Every threat model answers the same five questions; an attack never looks inside one.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bnn_adv.compute.types import AnyImages, Images, Numbers, RngKey, RngKeys


class Threat(Protocol):
    """What every threat model provides; arrays have shape [B, ...].

    norm: Name of the norm.
    """

    norm: ClassVar[str]

    @property
    def epsilon(self) -> jax.Array | float:
        """Radius of the ball, in units of the input, at least 0: one, or one an input, [B]."""

    @property
    def lower(self) -> float:
        """Smallest valid input value."""

    @property
    def upper(self) -> float:
        """Largest valid input value."""

    def project(self, x: Images, x_clean: Images) -> Images:
        """Return the point of ball and box that is nearest to ``x`` in Euclidean distance."""

    def ascend(self, gradient: Images, x: Images) -> Images:
        """Return the direction of unit norm in which an attack at ``x`` moves."""

    def maximise_linear(self, gradient: Images, x_clean: Images) -> Images:
        """Return the point of ball and box where a loss with this gradient is largest."""

    def random_start(self, rng_key: RngKey, x_clean: Images) -> Images:
        """Return a random point of ball and box."""

    def distance(self, x: AnyImages, x_clean: AnyImages) -> Numbers:
        """Return the norm of the difference, [B]."""


def _register(cls: Any) -> Any:
    # epsilon is data, so that one compiled program serves every radius. The norm is written into
    # the structure because register_dataclass leaves the class out of it: JAX (0.10 to 0.12) takes
    # two such classes with equal meta fields for the same one and, where the hashes of the two
    # collide in its cache, runs the program of one norm for the other.
    def flatten(threat: Any) -> tuple[tuple[Any], tuple[str, float, float]]:
        return (threat.epsilon,), (cls.norm, threat.lower, threat.upper)

    def flatten_with_keys(threat: Any) -> tuple[Any, tuple[str, float, float]]:
        children, meta = flatten(threat)
        return ((jax.tree_util.GetAttrKey("epsilon"), children[0]),), meta

    def unflatten(meta: Any, children: Any) -> Any:
        return cls(*children, *meta[1:])

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


@_register
@dataclasses.dataclass(frozen=True)
class LInf:
    """Allow every input coordinate to move by at most ``epsilon``.

    Args:
      epsilon: Radius, at least 0: a scalar, or [B] with a radius for every input.
      lower: Smallest valid input value.
      upper: Largest valid input value.
    """

    epsilon: jax.Array | float
    lower: float = 0.0
    upper: float = 1.0
    norm: ClassVar[str] = "linf"

    def project(self, x: Images, x_clean: Images) -> Images:
        """Return the nearest point of ball and box: both are boxes, so clip twice."""
        radius = radius_of(self, x)
        x = jnp.clip(x, x_clean - radius, x_clean + radius)
        return jnp.clip(x, self.lower, self.upper)

    def ascend(self, gradient: Images, x: Images) -> Images:
        """Return the sign of the gradient; zero where the gradient is exactly zero."""
        return jnp.sign(gradient)

    def maximise_linear(self, gradient: Images, x_clean: Images) -> Images:
        """Return ``clip(x + epsilon sign(gradient))``, the exact maximum over ball and box."""
        return self.project(x_clean + radius_of(self, x_clean) * jnp.sign(gradient), x_clean)

    def random_start(self, rng_key: RngKey, x_clean: Images) -> Images:
        """Return a uniform point of the ball, clipped to the box."""
        noise = jax.random.uniform(rng_key, x_clean.shape, x_clean.dtype, -1.0, 1.0)
        return self.project(x_clean + radius_of(self, x_clean) * noise, x_clean)

    def distance(self, x: AnyImages, x_clean: AnyImages) -> Numbers:
        """Return the largest absolute difference, [B]."""
        return jnp.abs(x - x_clean).reshape(x.shape[0], -1).max(axis=1)


@_register
@dataclasses.dataclass(frozen=True)
class L2:
    """Allow the input to move by a Euclidean distance of at most ``epsilon``.

    Args:
      epsilon: Radius, at least 0: a scalar, or [B] with a radius for every input.
      lower: Smallest valid input value.
      upper: Largest valid input value.
    """

    epsilon: jax.Array | float
    lower: float = 0.0
    upper: float = 1.0
    norm: ClassVar[str] = "l2"

    def project(self, x: Images, x_clean: Images) -> Images:
        """Return the nearest point of ball and box.

        By the optimality conditions it is ``x_clean + clip(t (x - x_clean))`` with the largest
        ``t`` in [0, 1] that stays in the ball; clipping after a radial projection is not.
        """
        return self._scaled_and_clipped(x - x_clean, x_clean, jnp.ones((x.shape[0],), x.dtype))

    def ascend(self, gradient: Images, x: Images) -> Images:
        """Return the gradient divided by its norm; zero where it is exactly zero."""
        return unit(gradient)

    def maximise_linear(self, gradient: Images, x_clean: Images) -> Images:
        """Return the exact maximum: ``x_clean + clip(t gradient)`` with the largest t allowed."""
        unlimited = jnp.full((gradient.shape[0],), jnp.inf, gradient.dtype)
        return self._scaled_and_clipped(unit(gradient), x_clean, unlimited)

    def random_start(self, rng_key: RngKey, x_clean: Images) -> Images:
        """Return a uniform point of the ball, projected to the box."""
        direction_key, radius_key = jax.random.split(rng_key)
        direction = unit(jax.random.normal(direction_key, x_clean.shape, x_clean.dtype))
        size = x_clean[0].size
        radius = jax.random.uniform(radius_key, (x_clean.shape[0],), x_clean.dtype) ** (1 / size)
        step = radius_of(self, x_clean) * _expand(radius, x_clean) * direction
        return self.project(x_clean + step, x_clean)

    def distance(self, x: AnyImages, x_clean: AnyImages) -> Numbers:
        """Return the Euclidean norm of the difference, [B]."""
        return _norm(jnp.asarray(x - x_clean))

    def _scaled_and_clipped(
        self, direction: jax.Array, x_clean: jax.Array, largest: jax.Array
    ) -> jax.Array:
        """Return ``x_clean + clip(t direction)`` for the largest t <= largest inside the ball."""
        flat = direction.reshape(direction.shape[0], -1)
        clean = x_clean.reshape(flat.shape)
        room = jnp.where(flat > 0, self.upper - clean, clean - self.lower)
        epsilon = per_input(self, len(flat), flat.dtype).epsilon
        scale = jnp.minimum(largest, jax.vmap(_largest_scale)(flat, room, epsilon))
        # An unlimited scale on a coordinate that does not move would be inf * 0.
        moved = jnp.where(flat == 0, 0.0, scale[:, None] * jnp.where(flat == 0, 1.0, flat))
        moved = jnp.clip(moved, self.lower - clean, self.upper - clean)
        # Rounding of the scale may overshoot the ball by a few units in the last place.
        excess = _norm(moved) / jnp.maximum(epsilon, jnp.finfo(moved.dtype).tiny)
        moved = moved / jnp.maximum(excess, 1.0)[:, None]
        # Steps whose square underflows seem to fit into a ball of radius zero.
        moved = jnp.where(epsilon[:, None] > 0, moved, 0.0)
        return jnp.clip(clean + moved, self.lower, self.upper).reshape(x_clean.shape)


@_register
@dataclasses.dataclass(frozen=True)
class L1:
    """Allow the absolute changes of all input coordinates to add up to at most ``epsilon``.

    Args:
      epsilon: Radius, at least 0: a scalar, or [B] with a radius for every input.
      lower: Smallest valid input value.
      upper: Largest valid input value.
    """

    epsilon: jax.Array | float
    lower: float = 0.0
    upper: float = 1.0
    norm: ClassVar[str] = "l1"

    def project(self, x: Images, x_clean: Images) -> Images:
        """Return the nearest point of ball and box (Croce, Hein 2021, arXiv 2103.01208, section 3).

        ``x_clean + sign(d) clip(|d| - t, 0, room)`` with ``d = x - x_clean``, ``room`` the way to
        the wall, and the smallest ``t >= 0`` that fits into the ball; exactly, by sorting.
        """
        flat, room = self._flatten(x - x_clean, x_clean)
        epsilon = per_input(self, len(flat), flat.dtype).epsilon
        moved = jax.vmap(_shrink_to_sum)(jnp.abs(flat), room, epsilon)
        return self._apply(jnp.sign(flat) * moved, x_clean)

    def ascend(self, gradient: Images, x: Images) -> Images:
        """Return signs of the steepest twentieth of the coordinates, divided by their number.

        The steepest direction proper has a single coordinate, which makes for as many steps as
        pixels (Tramer, Boneh 2019, arXiv 1904.13000, section 4.1). Coordinates that already stand
        at the wall ahead do not count.
        """
        flat = gradient.reshape(gradient.shape[0], -1)
        at = x.reshape(flat.shape)
        is_free = jnp.where(flat > 0, at < self.upper, at > self.lower) & (flat != 0)
        size = jnp.where(is_free, jnp.abs(flat), 0.0)
        count = max(flat.shape[1] // 20, 1)
        least = jax.lax.top_k(size, count)[0][:, -1:]
        chosen = is_free & (size >= least)
        return (jnp.sign(flat) * chosen / jnp.maximum(chosen.sum(1, keepdims=True), 1)).reshape(
            gradient.shape
        )

    def maximise_linear(self, gradient: Images, x_clean: Images) -> Images:
        """Return the exact maximum: the steepest coordinates go to their walls, one by one."""
        flat, room = self._flatten(gradient, x_clean)
        room = jnp.where(flat == 0, 0.0, room)
        order = jnp.argsort(-jnp.abs(flat), axis=1)
        sorted_room = jnp.take_along_axis(room, order, axis=1)
        before = jnp.cumsum(sorted_room, axis=1) - sorted_room
        moved = jnp.clip(radius_of(self, flat) - before, 0.0, sorted_room)
        moved = jnp.take_along_axis(moved, jnp.argsort(order, axis=1), axis=1)
        return self._apply(jnp.sign(flat) * moved, x_clean)

    def random_start(self, rng_key: RngKey, x_clean: Images) -> Images:
        """Return a uniform point of the ball, projected to the box."""
        direction_key, radius_key = jax.random.split(rng_key)
        # Laplace noise of any scale, divided by its sum: uniform on the sphere of the norm.
        direction = jax.random.laplace(direction_key, x_clean.shape, x_clean.dtype)
        size = x_clean[0].size
        radius = jax.random.uniform(radius_key, (x_clean.shape[0],), x_clean.dtype) ** (1 / size)
        total = jnp.abs(direction).reshape(direction.shape[0], -1).sum(axis=1)
        step = radius_of(self, x_clean) * _expand(radius / total, x_clean) * direction
        return self.project(x_clean + step, x_clean)

    def distance(self, x: AnyImages, x_clean: AnyImages) -> Numbers:
        """Return the sum of absolute differences, [B]."""
        return jnp.abs(x - x_clean).reshape(x.shape[0], -1).sum(axis=1)

    def _flatten(self, direction: jax.Array, x_clean: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the direction, [B, d], and how far every coordinate can go along it."""
        flat = direction.reshape(direction.shape[0], -1)
        clean = x_clean.reshape(flat.shape)
        return flat, jnp.where(flat > 0, self.upper - clean, clean - self.lower)

    def _apply(self, moved: jax.Array, x_clean: jax.Array) -> jax.Array:
        # Rounding of long sums may overshoot the ball by a few units in the last place.
        epsilon = per_input(self, len(moved), moved.dtype).epsilon
        excess = jnp.abs(moved).sum(axis=1) / jnp.maximum(epsilon, jnp.finfo(moved.dtype).tiny)
        moved = moved / jnp.maximum(excess, 1.0)[:, None]
        moved = jnp.where(epsilon[:, None] > 0, moved, 0.0)
        clean = x_clean.reshape(moved.shape)
        return jnp.clip(clean + moved, self.lower, self.upper).reshape(x_clean.shape)


THREATS: dict[str, Any] = {"linf": LInf, "l2": L2, "l1": L1}


def radius_of(threat: Any, like: Images) -> Float[jax.Array, ...]:
    """Return a threat model's radius in a shape that multiplies inputs ``like``, [B, ...]."""
    epsilon = jnp.asarray(threat.epsilon, like.dtype)
    return _expand(epsilon, like) if epsilon.ndim else epsilon


def per_input(threat: Any, batch: int, dtype: Any = jnp.float32) -> Any:
    """Return the threat model with a radius, of a dtype, for each of ``batch`` inputs."""
    # A Python number would become float64 under ``jax_enable_x64``, whatever the inputs are.
    epsilon = jnp.asarray(threat.epsilon).astype(dtype)
    return with_radius(threat, jnp.broadcast_to(epsilon, (batch,)))


def take_rows(threat: Any, rows: Any) -> Any:
    """Return the threat model of the inputs ``rows`` (indices or booleans) alone."""
    epsilon = np.asarray(threat.epsilon)
    return with_radius(threat, epsilon[rows]) if epsilon.ndim else threat


def with_radius(threat: Any, epsilon: Any) -> Any:
    """Return the threat model with another radius, a scalar or one an input, [B]."""
    return dataclasses.replace(threat, epsilon=epsilon)


def box_radius(threat: Any, shape: tuple[int, ...]) -> float:
    """Return the smallest radius whose ball around any input covers the whole box.

    Args:
      threat: Norm and box.
      shape: Shape of one input.
    """
    side, size = threat.upper - threat.lower, math.prod(shape)
    return float(side * {"linf": 1.0, "l2": math.sqrt(size), "l1": size}[threat.norm])


def random_starts(threat: Any, rng_keys: RngKeys, x_clean: Images) -> Images:
    """Return a random point of every input's ball and box, from keys of their own.

    Args:
      threat: The threat model.
      rng_keys: One key an input, [B], so that a start does not depend on the batch.
      x_clean: [B, ...].
    """

    def one(each: tuple[jax.Array, jax.Array, Threat]) -> jax.Array:
        rng_key, row, own = each
        return own.random_start(rng_key, row[None])[0]

    # One after the other: random bits for a whole batch take twice the time to compile.
    found: Images = jax.lax.map(
        one, (rng_keys, x_clean, per_input(threat, x_clean.shape[0], x_clean.dtype))
    )
    return found


def _shrink_to_sum(size: jax.Array, room: jax.Array, epsilon: jax.Array | float) -> jax.Array:
    """Return ``clip(size - t, 0, room)`` for the smallest t >= 0 with a sum of at most epsilon.

    As a function of t the sum is linear between the sorted points where a coordinate leaves its
    wall (size - room) or reaches zero (size).
    """
    leaves, ends = jnp.maximum(size - room, 0.0), size
    points = jnp.concatenate([leaves, ends])
    slopes = jnp.concatenate([jnp.ones_like(size), -jnp.ones_like(size)])
    order = jnp.argsort(-points)
    points, slopes = points[order], slopes[order]
    # From the largest point, where the sum is zero, down: how steeply and how far it has risen.
    falling = -jnp.cumsum(slopes)
    gaps = points - jnp.concatenate([points[1:], jnp.zeros(1, points.dtype)])
    sums = jnp.cumsum(falling * gaps)
    # The first gap in which the sum passes epsilon; none: everything fits.
    passes = sums > epsilon
    index = jnp.argmax(passes)
    inside = jnp.where(falling[index] > 0, falling[index], 1.0)
    below = points[index] - gaps[index]
    threshold = jnp.where(passes.any(), below + (sums[index] - epsilon) / inside, 0.0)
    return jnp.clip(size - threshold, 0.0, room)


def _largest_scale(direction: jax.Array, room: jax.Array, epsilon: jax.Array | float) -> jax.Array:
    """Solve ``sum_i min(t |d_i|, room_i)^2 = epsilon^2`` for t, exactly, by sorting breakpoints.

    Infinite where even the far corner of the box lies inside the ball.
    """
    size = jnp.abs(direction)
    epsilon = jnp.asarray(epsilon, direction.dtype)
    breakpoints = jnp.where(size > 0, room / jnp.where(size > 0, size, 1.0), jnp.inf)
    order = jnp.argsort(breakpoints)
    breakpoints, size, room = breakpoints[order], size[order], room[order]
    still_moving = jnp.cumsum((size**2)[::-1])[::-1]
    used = jnp.cumsum(jnp.where(jnp.isfinite(breakpoints), room, 0.0) ** 2)
    used_before = jnp.concatenate([jnp.zeros((1,), used.dtype), used[:-1]])
    remaining = jnp.maximum(epsilon**2 - used_before, 0.0)
    scales = jnp.sqrt(remaining / jnp.where(still_moving > 0, still_moving, 1.0))
    # Segment k holds if its own scale ends before the k-th coordinate meets the wall.
    fits = (scales <= breakpoints) & (still_moving > 0)
    return jnp.where(fits.any(), scales[jnp.argmax(fits)], jnp.inf)


def _norm(x: jax.Array) -> jax.Array:
    flat = x.reshape(x.shape[0], -1)
    # Scaling first keeps squares of tiny and huge values inside float32's range.
    largest = jnp.abs(flat).max(axis=1)
    safe = jnp.where(largest > 0, largest, 1.0)
    return safe * jnp.sqrt(jnp.sum((flat / safe[:, None]) ** 2, axis=1)) * (largest > 0)


def unit(x: Images) -> Images:
    """Divide every input's values by their Euclidean norm; zero stays zero.

    Args:
      x: [B, ...]; denormal and huge values are safe.
    """
    flat = x.reshape(x.shape[0], -1)
    largest = jnp.abs(flat).max(axis=1, keepdims=True)
    scaled = flat / jnp.where(largest > 0, largest, 1.0)
    norm = jnp.sqrt(jnp.sum(scaled**2, axis=1, keepdims=True))
    return (scaled / jnp.where(norm > 0, norm, 1.0)).reshape(x.shape)


def _expand(per_input: jax.Array, like: jax.Array) -> jax.Array:
    return per_input.reshape(-1, *(1,) * (like.ndim - 1))
