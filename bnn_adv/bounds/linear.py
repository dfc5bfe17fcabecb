r"""Bounds of what a network computes while its input moves within a ball.

Two ways, of which the tighter counts. *Intervals* (Gowal et al. 2018, arXiv 1810.12715) go forward:
an affine step with coefficients L maps centre c and radius r to ``L c`` and ``|L| r``. *Linear
bounds* (CROWN, Zhang et al. 2018, arXiv 1811.00866) go backward: rows ``Lambda z`` of any layer are
replaced, activation by activation, by rows of the layer before, each coefficient taking the line
that bounds it from below, until they are linear in the input, where ``balls`` minimises them.

Rounding. A step whose elements add up n terms errs by at most ``n u |L| m``, with u the unit
roundoff and m magnitudes (Higham 2002, section 3.1). Forward, bounds are widened by that with u of
float64, and with that of float32 it is what the network itself may err by. Backward, the product of
all absolute coefficients along all paths, applied to magnitudes of the input, scales the error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.bounds import balls
from bnn_adv.bounds.affine import absolute_constant, as_wide, zero_constant
from bnn_adv.bounds.balls import Ball
from bnn_adv.bounds.graph import Constant, Graph, Node, Operand, Step, Variable
from bnn_adv.bounds.relaxations import Lines, enclose

_U64, _U32 = 2.0**-53, 2.0**-24
_TINY, _LARGEST = 2.0**-126, 2.0**127
"""Sizes below which float32 may take a number for zero, and above which it may overflow."""


class Range(NamedTuple):
    """What one variable may be.

    lower: Smallest value of every element.
    upper: Largest value.
    error: How far the float32 network may be off, at most.
    paths: Sum over all paths from the input of absolute coefficients times magnitudes, by which the
      rounding of backward bounds scales.
    """

    lower: jax.Array
    upper: jax.Array
    error: jax.Array
    paths: jax.Array

    @property
    def magnitude(self) -> jax.Array:
        """Largest absolute value."""
        return jnp.maximum(jnp.abs(self.lower), jnp.abs(self.upper))


class Bounds(NamedTuple):
    """What is known of a network on one ball.

    ranges: By the variable's number.
    choices: By the number of an activation's result: which line was taken.
    """

    ranges: dict[int, Range]
    choices: dict[int, Any]


def bound_network(
    graph: Graph, norm: str, ball: Ball, *, most_rows: int, use_linear: bool = True
) -> Bounds:
    """Bound everything that a network computes on one ball.

    Args:
      graph: The network with the weights of one draw.
      norm: Name of the norm.
      ball: What the input may become.
      most_rows: Elements of a layer up to which linear bounds are computed for it; larger ones
        have their intervals (CROWN-IBP, Zhang et al. 2020, arXiv 1906.06316).
      use_linear: Whether layers have linear bounds at all.
    """
    lower, upper = ball.x + ball.low, ball.x + ball.high
    far = jnp.maximum(jnp.abs(lower), jnp.abs(upper))
    # The attacker's input is float32, and so is the network's: exact but for tiny numbers.
    source = Range(lower, upper, jnp.full_like(lower, _TINY), far)
    bounds = Bounds({graph.source.number: source}, {})
    for item in graph.items:
        if isinstance(item, Step):
            found = _through_step(item, bounds.ranges)
            if item.output.number in graph.maxima:
                found = _cut_maximum(found, graph.maxima[item.output.number], bounds.ranges)
            bounds.ranges[item.output.number] = found
            continue
        own = bounds.ranges[item.input.number]
        if use_linear and math.prod(item.input.shape) <= most_rows:
            own = _tighten(graph, norm, ball, bounds, item.input)
            bounds.ranges[item.input.number] = own
        choice = item.relaxation.start(own.lower, own.upper)
        bounds.choices[item.output.number] = choice
        bounds.ranges[item.output.number] = _through_node(item, own, choice)
    return bounds


def _through_step(step: Step, ranges: dict[int, Range]) -> Range:
    rule, terms = step.rule, _count(step)
    own = [o.value if isinstance(o, Constant) else ranges[o.number] for o in step.inputs]
    has_constant = any(isinstance(operand, Constant) for operand in step.inputs)
    if not (terms or has_constant or rule.apply_absolute):
        # What only moves numbers about moves all four alike.
        return Range(*_apply(rule.apply, step, own, lambda r: tuple(r)))
    added = absolute_constant if rule.is_product else zero_constant
    (centre,) = _apply(rule.apply, step, own, lambda r: ((r.lower + r.upper) / 2,))
    radius, error = _apply(
        rule.absolute, step, own, lambda r: ((r.upper - r.lower) / 2, r.error), added
    )
    magnitude, paths = _apply(
        rule.absolute, step, own, lambda r: (r.magnitude + r.error, r.paths), absolute_constant
    )
    wide = radius * (1 + 4 * (terms + 2) * _U64) + 4 * (terms + 2) * _U64 * magnitude
    error = error + _float32_error(terms, magnitude, own)
    return Range(centre - wide, centre + wide, error, paths)


def _float32_error(terms: int, magnitude: jax.Array, own: list[Any]) -> jax.Array:
    """Return what float32 adds to the error where n terms are summed; infinite at an overflow."""
    share = terms * _U32 / (1 - terms * _U32) if terms * _U32 < 1 else math.inf
    # Numbers near zero, weights among them, lose more than a share of themselves.
    sizes = [value.magnitude.max(initial=1.0) for value in own if isinstance(value, Range)]
    lost = 2 * terms * _TINY * sum(sizes)
    return jnp.where(magnitude < _LARGEST, share * magnitude + lost, jnp.inf)


def _cut_maximum(found: Range, pair: tuple[Operand, Operand], ranges: dict[int, Range]) -> Range:
    """Return the range of the larger of two, which their difference alone does not give."""
    both = []
    for operand in pair:
        if isinstance(operand, Constant):
            value = as_wide(operand.value)
            both.append(Range(value, value, jnp.zeros_like(value), value))
        else:
            both.append(ranges[operand.number])
    first, second = both
    return found._replace(
        lower=jnp.maximum(found.lower, jnp.maximum(first.lower, second.lower)),
        upper=jnp.minimum(found.upper, jnp.maximum(first.upper, second.upper)),
        # A maximum rounds nothing, and moves by no more than what it is of.
        error=jnp.minimum(found.error, jnp.maximum(first.error, second.error)),
    )


def _apply(
    apply: Any, step: Step, own: list[Any], pick: Any, change: Any = lambda constant: constant
) -> jax.Array:
    """Apply a step to several arrays of every operand at once, [K, ...] each."""
    moving = [jnp.stack(pick(value)) for value in own if isinstance(value, Range)]

    def call(*values: jax.Array) -> jax.Array:
        given = iter(values)
        found: jax.Array = apply(
            step.params, *(next(given) if isinstance(v, Range) else change(v) for v in own)
        )
        return found

    found: jax.Array = jax.vmap(call)(*moving)
    return found


def _count(step: Step) -> int:
    shapes = [o.value if isinstance(o, Constant) else _Shaped(o.shape) for o in step.inputs]
    return step.rule.count_terms(step.params, *shapes)


class _Shaped(NamedTuple):
    shape: tuple[int, ...]


def _through_node(node: Node, own: Range, choice: Any) -> Range:
    relaxation = node.relaxation
    lower, upper = relaxation.ends(own.lower, own.upper)
    lines = enclose(relaxation, own.lower, own.upper, choice)
    slope = jnp.maximum(jnp.abs(lines.lower_slope), jnp.abs(lines.upper_slope))
    # Whatever line is taken later has a slope of at most the function's largest.
    slope = jnp.maximum(slope, relaxation.steepest(own.lower, own.upper))
    offset = jnp.maximum(jnp.abs(lines.lower_offset), jnp.abs(lines.upper_offset))
    steepest = relaxation.steepest(own.lower - own.error, own.upper + own.error)
    size = jnp.maximum(jnp.abs(lower), jnp.abs(upper))
    error = steepest * own.error + relaxation.rounding * _U32 * (size + 1e-30)
    error = jnp.where(size + error < _LARGEST, error, jnp.inf)
    return Range(lower, upper, error, slope * own.paths + offset + size)


def _tighten(graph: Graph, norm: str, ball: Ball, bounds: Bounds, target: Variable) -> Range:
    """Return a layer's range, cut with its linear bounds."""
    own = bounds.ranges[target.number]
    size = math.prod(target.shape)
    rows = jnp.eye(size).reshape(size, *target.shape)
    slack = rounding_factor(graph) * own.paths.reshape(-1)

    a, offset = pull_back(graph, bounds, target, rows)
    # Of a layer that is affine in the input the largest value has the very same coefficients.
    is_affine = not any(
        isinstance(item, Node) and item.output.number < target.number for item in graph.items
    )
    minus = (-a, -offset) if is_affine else pull_back(graph, bounds, target, -rows)

    def smallest(a: jax.Array, offset: jax.Array) -> jax.Array:
        # Not summed row by row: these rows are those of all inputs, and this a matrix product.
        at_x = a.reshape(size, -1) @ ball.x.reshape(-1)
        found = balls.minimise_roughly(norm, ball, a) + at_x + offset - slack
        return found.reshape(target.shape)

    lower = jnp.maximum(own.lower, smallest(a, offset))
    upper = jnp.minimum(own.upper, -smallest(*minus))
    return own._replace(lower=lower, upper=jnp.maximum(lower, upper))


def pull_back(
    graph: Graph,
    bounds: Bounds,
    target: Variable,
    rows: jax.Array,
    choices: dict[int, Any] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return rows of a layer, bounded from below, as a linear function of the input.

    Args:
      graph: The network.
      bounds: Of the layers before ``target``.
      target: The layer.
      rows: Coefficients, [R, *shape of the layer].
      choices: Which lines of activations are taken; None: those that ``bounds`` took.

    Returns:
      Coefficients ``a``, [R, 1, *D], and offsets ``b``, [R]: for every x in the ball
      ``rows z(x) >= a x + b``.
    """
    chosen = bounds.choices if choices is None else choices

    def enclose_node(node: Node) -> Lines:
        own = bounds.ranges[node.input.number]
        return enclose(node.relaxation, own.lower, own.upper, chosen[node.output.number])

    left, offset = pull_rows(graph, target, rows, enclose_node)
    zero = jnp.zeros((rows.shape[0], *graph.source.shape))
    return left.get(graph.source.number, zero), offset


def pull_rows(
    graph: Graph,
    target: Variable,
    rows: jax.Array,
    enclose_node: Callable[[Node], Lines],
    stops: Container[int] = (),
) -> tuple[dict[int, jax.Array], jax.Array]:
    """Return rows of a layer, bounded from below, as rows of variables before it.

    Args:
      graph: The network.
      target: The layer.
      rows: Coefficients, [R, *shape of the layer].
      enclose_node: The lines between which an activation lies.
      stops: Numbers of the variables, beside the input, beyond which nothing is pulled.

    Returns:
      By the variable's number its coefficients, [R, *shape]; offsets, [R].
    """
    coefficients: dict[int, jax.Array] = {target.number: rows}
    offset = jnp.zeros(rows.shape[0], rows.dtype)

    def add(variable: Variable, value: jax.Array) -> None:
        known = coefficients.get(variable.number)
        coefficients[variable.number] = value if known is None else known + value

    for item in reversed(graph.items):
        if item.output.number in stops or item.output.number not in coefficients:
            continue
        own = coefficients.pop(item.output.number)
        if isinstance(item, Node):
            value, moved = _cross(own, enclose_node(item))
            add(item.input, value)
        else:
            moved, pulled = _transpose(item, own)
            for variable, value in pulled:
                add(variable, value)
        offset = offset + moved
    return coefficients, offset


def minimise_merged(graph: Graph, bounds: Bounds, rows: jax.Array) -> jax.Array:
    """Return the smallest value of rows of the output by intervals, [R], less rounding.

    The steps behind the last activations are merged with the rows before anything is bounded: of a
    difference of logits, what both have in common cancels (Gowal et al. 2018, section 3.2).

    Args:
      graph: The network.
      bounds: Of all that it computes.
      rows: Coefficients, [R, *shape of the output].
    """
    stops = {node.output.number for node in graph.nodes} | set(graph.maxima)
    left, found = pull_rows(graph, graph.output, rows, _stop, stops)
    for number, own in left.items():
        ends = bounds.ranges[number]
        smallest = jnp.where(own > 0, own * ends.lower, own * ends.upper)
        # An end may be infinite.
        smallest = jnp.where(own == 0, 0.0, smallest)
        found = found + smallest.reshape(rows.shape[0], -1).sum(axis=1)
    paths = jnp.abs(rows) * bounds.ranges[graph.output.number].paths
    found = found - rounding_factor(graph) * paths.reshape(rows.shape[0], -1).sum(axis=1)
    # Of what overflows nothing is said: lines may still know.
    return jnp.where(jnp.isnan(found), -jnp.inf, found)


def _stop(node: Node) -> Lines:
    raise AssertionError(f"Rows are pulled through {node.relaxation.name}, where they stop.")


def _cross(rows: jax.Array, lines: Lines) -> tuple[jax.Array, jax.Array]:
    positive, negative = jnp.maximum(rows, 0.0), jnp.minimum(rows, 0.0)
    value = positive * lines.lower_slope + negative * lines.upper_slope
    offset = positive * lines.lower_offset + negative * lines.upper_offset
    return value, offset.reshape(rows.shape[0], -1).sum(axis=1)


def _transpose(step: Step, rows: jax.Array) -> tuple[Any, list[tuple[Variable, jax.Array]]]:
    """Return what a step adds to the offsets, and the rows of each of its operands."""
    moving = [o for o in step.inputs if isinstance(o, Variable)]
    at_zero, transpose = jax.vjp(
        _function_of(step), *(jnp.zeros(o.shape, rows.dtype) for o in moving)
    )
    pulled = jax.vmap(transpose)(rows)
    has_constant = not step.rule.is_product and len(moving) < len(step.inputs)
    offset = (rows * at_zero).reshape(rows.shape[0], -1).sum(axis=1) if has_constant else 0.0
    return offset, list(zip(moving, pulled, strict=True))


def _function_of(step: Step) -> Callable[..., jax.Array]:
    """Return a step as a function of those of its operands that depend on the input."""

    def call(*values: jax.Array) -> jax.Array:
        given = iter(values)
        found: jax.Array = step.rule.apply(
            step.params,
            *(o.value if isinstance(o, Constant) else next(given) for o in step.inputs),
        )
        return found

    return call


def rounding_factor(graph: Graph) -> float:
    """Return what backward bounds may be off by, in units of ``Range.paths``."""
    steps = [item for item in graph.items if isinstance(item, Step)]
    terms = sum(_count(step) + math.prod(step.output.shape) + 8 for step in steps)
    terms += math.prod(graph.source.shape) + 64 * len(graph.nodes) + 64
    return 4 * terms * _U64


def choose_at(graph: Graph, bounds: Bounds, points: jax.Array) -> dict[int, Any]:
    """Return the lines of activations that are tightest where the network is at certain inputs.

    Args:
      graph: The network.
      bounds: Of its layers.
      points: Inputs, [R, 1, *D].

    Returns:
      By the number of an activation's result: choices for each point, [R, *shape].
    """
    values: dict[int, jax.Array] = {graph.source.number: points}
    choices: dict[int, Any] = {}
    for item in graph.items:
        if isinstance(item, Node):
            own, at = bounds.ranges[item.input.number], values[item.input.number]
            values[item.output.number] = item.relaxation.fn(at)
            choices[item.output.number] = item.relaxation.choose(own.lower, own.upper, at)
            continue
        moving = [values[o.number] for o in item.inputs if isinstance(o, Variable)]
        values[item.output.number] = jax.vmap(_function_of(item))(*moving)
    return choices
