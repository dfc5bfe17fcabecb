"""The referee's lines around activations, derived anew: ``l_s z + l_o <= f(z) <= u_s z + u_o``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

_ULP = 2.0**-52
_TIE = 2.0**-26
"""Share of an interval within which its ends, or a point and zero, count as equally far."""

Array = np.ndarray


class Lines(NamedTuple):
    """Slopes and offsets of the line below and the line above, arrays of one shape."""

    lower_slope: Array
    lower_offset: Array
    upper_slope: Array
    upper_offset: Array


class Activation(NamedTuple):
    """A function that rises, element by element.

    fn: The function.
    slope: Its derivative.
    curve: ``"same"``, ``"relu"``, ``"convex"``, or ``"s"``: convex below zero and concave above.
    rounding: Units of float32 roundoff by which float32 evaluates it wrongly, at most.
    """

    fn: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    curve: str
    rounding: float

    def steepest(self, lower: Array, upper: Array) -> Array:
        """Return the largest slope in an interval."""
        if self.curve == "same":
            return np.ones_like(upper)
        if self.curve == "relu":
            return (upper > 0) * 1.0
        return self.slope(np.clip(0.0, lower, upper) if self.curve == "s" else upper)


ACTIVATIONS = {
    "same": Activation(lambda z: z, np.ones_like, "same", 0.0),
    "relu": Activation(lambda z: np.maximum(z, 0.0), lambda z: (z > 0) * 1.0, "relu", 0.0),
    "tanh": Activation(np.tanh, lambda z: 1 - np.tanh(z) ** 2, "s", 32.0),
    "logistic": Activation(
        special.expit, lambda z: special.expit(z) * special.expit(-z), "s", 32.0
    ),
    "softplus": Activation(lambda z: np.logaddexp(z, 0.0), special.expit, "convex", 32.0),
}
"""By the name that ``referee_network`` gives them."""


def enclose(kind: str, lower: Array, upper: Array, at: Array | None = None) -> Lines:
    """Return the lines around an activation on an interval, moved outwards by float64's rounding.

    Args:
      kind: Name of the activation.
      lower: Smallest input, any shape.
      upper: Largest input.
      at: Where lines shall be tight if there is a choice, a shape that the others broadcast to;
        None: relu's line below has the smaller area, tangents touch in the middle.
    """
    activation = ACTIVATIONS[kind]
    if activation.curve == "same":
        one, zero = np.ones_like(lower), np.zeros_like(lower)
        return Lines(one, zero, one, zero)
    if activation.curve == "relu":
        return _relu(lower, upper, at)
    at = (lower + upper) / 2 if at is None else np.clip(at, lower, upper)
    lower, upper = (np.broadcast_to(end, at.shape) for end in (lower, upper))
    fn, slope = activation.fn, activation.slope

    def tangent(point: Array) -> tuple[Array, Array]:
        own = slope(point)
        return own, fn(point) - own * point

    is_wide = upper - lower > 1e-12 * (1 + np.abs(lower) + np.abs(upper))
    chord = np.where(is_wide, (fn(upper) - fn(lower)) / np.where(is_wide, upper - lower, 1.0), 0.0)
    below_chord = np.where(is_wide, fn(lower) - chord * lower, fn(lower))
    above_chord = np.where(is_wide, below_chord, fn(upper))
    if activation.curve == "convex":
        return _outwards(activation, lower, upper, (*tangent(at), chord, above_chord))
    is_convex, is_concave = upper <= 0, lower >= 0
    # A tangent at p <= 0 is below the convex side; below the concave side it is if it is below the
    # upper end. The other line is the same of -f(-z), with an odd function less its middle.
    low = _touch(tangent, fn, lower, upper, 1.0)
    high = _touch(tangent, fn, -upper, -lower, -1.0)
    chosen = [
        np.where(is_convex, a, np.where(is_concave, b, c))
        for a, b, c in zip(
            (*tangent(at), chord, above_chord),
            (chord, below_chord, *tangent(at)),
            (*low, *high),
            strict=True,
        )
    ]
    return _outwards(activation, lower, upper, chosen)


def _relu(lower: Array, upper: Array, at: Array | None) -> Lines:
    crosses = (lower < 0) & (upper > 0)
    # Both lines below are right. Where they are equally good (two windows of a pooling layer that
    # see the same) rounding must not choose, or another implementation has another margin.
    choice = (upper + lower if at is None else at) > _TIE * (upper - lower)
    is_on = (lower >= 0) * 1.0
    slope = np.where(crosses, upper / np.where(crosses, upper - lower, 1.0), is_on)
    offset = np.where(crosses, -slope * lower, 0.0)
    offset = offset + np.where(crosses, 32 * _ULP * (upper - lower), 0.0)
    return Lines(np.where(crosses, choice * 1.0, is_on), np.zeros_like(slope), slope, offset)


def _touch(
    tangent: Callable[[Array], tuple[Array, Array]],
    fn: Callable[[Array], Array],
    lower: Array,
    upper: Array,
    sign: float,
) -> tuple[Array, Array]:
    """Return the line through the far end that touches the near side, found by halving.

    With ``sign`` -1 the function is seen from behind, ``-f(-z)``, and the line is turned back.
    """

    def line(point: Array) -> tuple[Array, Array]:
        slope, offset = tangent(sign * point)
        return slope, sign * offset

    end = sign * fn(sign * upper)
    # The value of a tangent at the upper end rises with its point, up to the inflection.
    near, far = np.minimum(2 * lower, -40.0), np.zeros_like(lower)
    for _ in range(60):
        middle = (near + far) / 2
        slope, offset = line(middle)
        is_below = slope * upper + offset <= end
        near, far = np.where(is_below, middle, near), np.where(is_below, far, middle)
    slope, offset = line(near)
    is_below = slope * upper + offset <= end
    slope = np.where(is_below, slope, 0.0)
    offset = np.where(is_below, offset, sign * fn(sign * lower))
    return slope, sign * offset


def _outwards(activation: Activation, lower: Array, upper: Array, found: Sequence[Array]) -> Lines:
    lines = Lines(*found)
    far = np.maximum(np.abs(lower), np.abs(upper))
    value = np.maximum(np.abs(activation.fn(lower)), np.abs(activation.fn(upper)))

    def slack(slope: Array, offset: Array) -> Array:
        moved: Array = 64 * _ULP * ((1 + np.abs(slope)) * far + np.abs(offset) + value)
        return moved

    return lines._replace(
        lower_offset=lines.lower_offset - slack(*lines[:2]),
        upper_offset=lines.upper_offset + slack(*lines[2:]),
    )
