r"""Activations between two lines: ``a_l z + b_l <= f(z) <= a_u z + b_u`` for all ``l <= z <= u``.

Relu has the lines of CROWN (Zhang et al. 2018, arXiv 1811.00866, table 1), with a slope of the
lower line that may be chosen (alpha-CROWN, Xu et al. 2021, arXiv 2011.13824). Convex functions have
a tangent below and a chord above; S-shaped ones tangents through the ends where both curvatures
meet in the interval (the same, table 2). All lines are moved outwards by what float64 may have
rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

_ULP = 2.0**-52
_TINY = 1e-300
"""More than what is lost where numbers near zero are taken for zero."""
_TIE = 2.0**-26
"""Share of an interval within which two lines count as equally good, so that rounding of the ends,
which another order of sums has otherwise, does not choose between them."""
_HALVINGS = 40
"""Of the search for a tangent; each half that is kept is valid, whenever the search ends."""


class Lines(NamedTuple):
    """Two lines that enclose a function; arrays of the shape of the interval's ends.

    lower_slope: Slope of the lower line.
    lower_offset: Its value at zero.
    upper_slope: Slope of the upper line.
    upper_offset: Its value at zero.
    """

    lower_slope: jax.Array
    lower_offset: jax.Array
    upper_slope: jax.Array
    upper_offset: jax.Array


Function = Callable[[jax.Array], jax.Array]


class Relaxation(NamedTuple):
    """An activation, element by element.

    name: Of the function, for messages.
    fn: The function.
    lines: ``(lower, upper, choice) -> Lines``; ``choice`` in [0, 1] may pick one of several, all of
      them valid.
    start: ``(lower, upper) -> choice`` where nobody optimises it.
    choose: ``(lower, upper, at) -> choice`` of the lines that are tightest at a point.
    ends: ``(lower, upper) -> (smallest, largest)`` value.
    steepest: ``(lower, upper) -> slope``, the largest absolute slope in the interval.
    rounding: Units in the last place by which float32 evaluates it wrongly, at most.
    simple: As ``lines``, without a search, so that they can be differentiated; None: ``lines`` can.
    """

    name: str
    fn: Function
    lines: Callable[[jax.Array, jax.Array, jax.Array], Lines]
    start: Callable[[jax.Array, jax.Array], jax.Array]
    choose: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    ends: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    steepest: Callable[[jax.Array, jax.Array], jax.Array]
    rounding: float
    simple: Callable[[jax.Array, jax.Array, jax.Array], Lines] | None = None


def enclose(relaxation: Relaxation, lower: jax.Array, upper: jax.Array, choice: jax.Array) -> Lines:
    """Return the two lines, moved outwards by what was rounded in making them."""
    found = relaxation.lines(lower, upper, choice)
    far = jnp.maximum(jnp.abs(lower), jnp.abs(upper))
    value = jnp.maximum(jnp.abs(relaxation.fn(lower)), jnp.abs(relaxation.fn(upper)))

    def slack(slope: jax.Array, offset: jax.Array) -> jax.Array:
        return 64 * _ULP * ((1 + jnp.abs(slope)) * far + jnp.abs(offset) + value) + _TINY

    # A line of relu that is a segment of relu itself was not computed. Of other functions, lines
    # of a tiny interval at zero may look alike, and are rounded.
    is_exact = (relaxation.rounding == 0) & (
        (found.lower_slope == found.upper_slope)
        & (found.lower_offset == found.upper_offset)
        & (found.lower_offset == 0)
    )
    below, above = (jnp.where(is_exact, 0.0, slack(*line)) for line in (found[:2], found[2:]))
    return found._replace(
        lower_offset=found.lower_offset - below, upper_offset=found.upper_offset + above
    )


def _chord(fn: Function, lower: jax.Array, upper: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return slope and offset of the line through both ends; flat where they coincide."""
    width = upper - lower
    # In float32, where nothing is certified, slopes of narrower ones would be noise.
    least = 1e-12 if width.dtype == jnp.float64 else 1e-5
    is_wide = width > least * (1 + jnp.abs(lower) + jnp.abs(upper))
    low, high = fn(lower), fn(upper)
    slope = jnp.where(is_wide, (high - low) / jnp.where(is_wide, width, 1.0), 0.0)
    return slope, jnp.where(is_wide, low - slope * lower, jnp.maximum(low, high))


def _rising(fn: Function) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    def ends(lower: jax.Array, upper: jax.Array) -> tuple[jax.Array, jax.Array]:
        low, high = fn(lower), fn(upper)
        return low - 8 * _ULP * jnp.abs(low) - _TINY, high + 8 * _ULP * jnp.abs(high) + _TINY

    return ends


def _middle(lower: jax.Array, upper: jax.Array) -> jax.Array:
    return jnp.full_like(lower, 0.5)


def _relu_lines(lower: jax.Array, upper: jax.Array, choice: jax.Array) -> Lines:
    crosses = (lower < 0) & (upper > 0)
    is_on = (lower >= 0).astype(lower.dtype)
    width = jnp.where(crosses, upper - lower, 1.0)
    slope = jnp.where(crosses, upper / width, is_on)
    return Lines(
        jnp.where(crosses, choice, is_on),
        jnp.zeros_like(lower),
        slope,
        jnp.where(crosses, -slope * lower, 0.0),
    )


def _relu_start(lower: jax.Array, upper: jax.Array) -> jax.Array:
    return (upper + lower > _TIE * (upper - lower)).astype(lower.dtype)


def _relu_side(lower: jax.Array, upper: jax.Array, at: jax.Array) -> jax.Array:
    return (at > _TIE * (upper - lower)).astype(at.dtype)


def _at_point(lower: jax.Array, upper: jax.Array, at: jax.Array) -> jax.Array:
    width = upper - lower
    return jnp.clip((at - lower) / jnp.where(width > 0, width, 1.0), 0.0, 1.0)


def _convex(fn: Function) -> Callable[[jax.Array, jax.Array, jax.Array], Lines]:
    slope_of = _elementwise_slope(fn)

    def lines(lower: jax.Array, upper: jax.Array, choice: jax.Array) -> Lines:
        point = lower + choice * (upper - lower)
        slope = slope_of(point)
        return Lines(slope, fn(point) - slope * point, *_chord(fn, lower, upper))

    return lines


def _s_shaped(fn: Function) -> Callable[[jax.Array, jax.Array, jax.Array], Lines]:
    """Return the lines of a function that is convex below zero and concave above."""
    slope_of = _elementwise_slope(fn)

    def tangent(point: jax.Array) -> tuple[jax.Array, jax.Array]:
        slope = slope_of(point)
        return slope, fn(point) - slope * point

    def lines(lower: jax.Array, upper: jax.Array, choice: jax.Array) -> Lines:
        chord = _chord(fn, lower, upper)
        middle = tangent(lower + choice * (upper - lower))
        # The lower line through the upper end touches the convex side at a point below which every
        # tangent is a lower line too; the upper line likewise.
        below = _touching(tangent, fn, lower, upper)
        mirrored = _touching(_mirror(tangent), lambda z: -fn(-z), -upper, -lower)
        above = mirrored[0], -mirrored[1]
        return _by_curvature(fn, lower, upper, (chord, middle, below, above))

    return lines


_Line = tuple[jax.Array, jax.Array]


def _by_curvature(
    fn: Function, lower: jax.Array, upper: jax.Array, found: tuple[_Line, _Line, _Line, _Line]
) -> Lines:
    """Return the lines of an S-shaped function: chord and tangent, or two where it bends twice."""
    chord, middle, below, above = found
    is_convex, is_concave = upper <= 0, lower >= 0

    def choose(convex: jax.Array, concave: jax.Array, mixed: jax.Array) -> jax.Array:
        return jnp.where(is_convex, convex, jnp.where(is_concave, concave, mixed))

    flat = jnp.zeros_like(lower)
    # A chord of a point is flat at the larger end, which is no lower line.
    low_chord = (
        jnp.where(chord[0] == 0, flat, chord[0]),
        jnp.where(chord[0] == 0, jnp.minimum(fn(lower), fn(upper)), chord[1]),
    )
    return Lines(
        *(choose(m, c, b) for m, c, b in zip(middle, low_chord, below, strict=True)),
        *(choose(c, m, a) for c, m, a in zip(chord, middle, above, strict=True)),
    )


def _parallel(fn: Function) -> Callable[[jax.Array, jax.Array, jax.Array], Lines]:
    """Return lines through both ends with the smaller of their slopes, where curvatures meet.

    Of a rising S-shaped function every slope in between is larger (DeepPoly, Singh et al. 2019,
    POPL, section 4.3).
    """
    slope_of = _elementwise_slope(fn)

    def lines(lower: jax.Array, upper: jax.Array, choice: jax.Array) -> Lines:
        point = lower + choice * (upper - lower)
        middle_slope = slope_of(point)
        middle = middle_slope, fn(point) - middle_slope * point
        slope = jnp.minimum(slope_of(lower), slope_of(upper))
        below = slope, fn(lower) - slope * lower
        above = slope, fn(upper) - slope * upper
        chord = _chord(fn, lower, upper)
        return _by_curvature(fn, lower, upper, (chord, middle, below, above))

    return lines


def _touching(
    tangent: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    fn: Function,
    lower: jax.Array,
    upper: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return slope and offset of the steepest tangent at z <= 0 that is below ``fn(upper)``.

    Below zero the function is convex, so that each tangent there stays below it; above zero it is
    concave, so that a line below both ends stays below it. Where no tangent was found, a line at
    the value of the lower end: the function rises.
    """
    end = fn(upper)

    def is_below(point: jax.Array) -> jax.Array:
        slope, offset = tangent(point)
        return slope * upper + offset <= end - 64 * _ULP * (1 + jnp.abs(slope * upper))

    start = jnp.minimum(lower, 0.0)
    low = jnp.where(is_below(start), start, jnp.minimum(2 * start, -40.0))

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        valid = is_below(middle)
        return jnp.where(valid, middle, low), jnp.where(valid, high, middle)

    point = jax.lax.fori_loop(0, _HALVINGS, halve, (low, jnp.zeros_like(low)))[0]
    (slope, offset), valid = tangent(point), is_below(point)
    return jnp.where(valid, slope, 0.0), jnp.where(valid, offset, fn(lower))


def _mirror(
    tangent: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Return the tangents of ``-fn(-z)``."""

    def mirrored(point: jax.Array) -> tuple[jax.Array, jax.Array]:
        slope, offset = tangent(-point)
        return slope, -offset

    return mirrored


def _elementwise_slope(fn: Function) -> Function:
    def slope_of(point: jax.Array) -> jax.Array:
        slope: jax.Array = jax.jvp(fn, (point,), (jnp.ones_like(point),))[1]
        return slope

    return slope_of


def _square_ends(lower: jax.Array, upper: jax.Array) -> tuple[jax.Array, jax.Array]:
    largest = jnp.maximum(lower**2, upper**2)
    holds_zero = (lower <= 0) & (upper >= 0)
    smallest = jnp.where(holds_zero, 0.0, jnp.minimum(lower**2, upper**2))
    return smallest * (1 - 8 * _ULP), largest * (1 + 8 * _ULP)


def convex(name: str, fn: Function, *, rounding: float = 32.0) -> Relaxation:
    """Return the relaxation of a function that is convex and rises.

    Args:
      name: For messages.
      fn: The function, element by element.
      rounding: See ``Relaxation``.
    """
    slope_of = _elementwise_slope(fn)
    return Relaxation(
        name,
        fn,
        _convex(fn),
        _middle,
        _at_point,
        _rising(fn),
        lambda low, high: slope_of(high),
        rounding,
    )


def s_shaped(name: str, fn: Function, *, rounding: float = 32.0) -> Relaxation:
    """Return the relaxation of a rising function that is convex below zero and concave above.

    Args:
      name: For messages.
      fn: The function, element by element.
      rounding: See ``Relaxation``.
    """
    slope_of = _elementwise_slope(fn)

    def steepest(lower: jax.Array, upper: jax.Array) -> jax.Array:
        return slope_of(jnp.clip(0.0, lower, upper))

    own = _s_shaped(fn), _middle, _at_point, _rising(fn), steepest
    return Relaxation(name, fn, *own, rounding, _parallel(fn))


def _relu(z: jax.Array) -> jax.Array:
    return jnp.maximum(z, 0.0)


def _relu_steepest(lower: jax.Array, upper: jax.Array) -> jax.Array:
    # Where it is off on the whole interval it passes nothing on, no error either.
    return (upper > 0).astype(upper.dtype)


RELU = Relaxation(
    "relu",
    _relu,
    _relu_lines,
    _relu_start,
    _relu_side,
    lambda lo, up: (_relu(lo), _relu(up)),
    _relu_steepest,
    0.0,
)
SQUARE = Relaxation(
    "square",
    jnp.square,
    _convex(jnp.square),
    _middle,
    _at_point,
    _square_ends,
    lambda lower, upper: 2 * jnp.maximum(jnp.abs(lower), jnp.abs(upper)),
    1.0,
)
SOFTPLUS = convex("softplus", jax.nn.softplus)
ELU = convex("elu", jax.nn.elu)

RELAXATIONS: dict[str, Relaxation] = {
    "tanh": s_shaped("tanh", jnp.tanh),
    "logistic": s_shaped("logistic", jax.nn.sigmoid),
    "erf": s_shaped("erf", jax.scipy.special.erf),
    "exp": convex("exp", jnp.exp),
    "square": SQUARE,
}
"""By the primitive's name: activations that are one primitive. ``register_activation`` adds."""


def register_activation(name: str, relaxation: Relaxation) -> None:
    """Let bounds pass through a primitive that acts element by element.

    Args:
      name: Of the primitive, as ``jax.make_jaxpr`` prints it.
      relaxation: Its lines, see ``convex`` and ``s_shaped``.

    Raises:
      ValueError: The name is taken.
    """
    if name in RELAXATIONS:
        raise ValueError(f"The primitive {name!r} is registered already.")
    RELAXATIONS[name] = relaxation
