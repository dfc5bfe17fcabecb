r"""Upper bounds of logit differences in float32, for training: cheap, differentiable, no proof.

For every x' in an l_inf ball around x, cut with the box of valid inputs, and every class j

    z_j(x') - z_y(x') <= u_j,    hence    p_y(x') >= 1 / sum_j exp(u_j).

``interval``: interval bound propagation (Gowal et al. 2018, arXiv 1810.12715). Every layer has a
centre and a radius, which an affine step with coefficients L maps to ``L c`` and ``|L| r``; the
last affine steps are merged into the differences ("elision of the last layer", their section 3).
``crown_ibp``: intervals between layers, then lines of activations backward from the differences
(CROWN-IBP, Zhang et al. 2020, arXiv 1906.06316); the smaller of both bounds counts.

Here nothing counts what float32 rounds: bounds may be off in the last digits, and are no
certificate. ``bnn_adv.certify`` makes those, from ``linear``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.bounds.affine import absolute_constant, as_wide, zero_constant
from bnn_adv.bounds.graph import Constant, Graph, Node, Operand, Step, Variable
from bnn_adv.bounds.linear import pull_rows
from bnn_adv.bounds.reading import read, trace
from bnn_adv.bounds.relaxations import Lines
from bnn_adv.bounds.windows import merge_windows
from bnn_adv.compute.types import ApplyFn, Params

Method = Literal["interval", "crown_ibp"]


class Interval(NamedTuple):
    """What one variable may be: within ``radius`` of ``centre``, element by element."""

    centre: jax.Array
    radius: jax.Array

    @property
    def lower(self) -> jax.Array:
        """Smallest value."""
        return self.centre - self.radius

    @property
    def upper(self) -> jax.Array:
        """Largest value."""
        return self.centre + self.radius


class Box(NamedTuple):
    """Values that an input may have, and how far it may move.

    epsilon: Radius of the l_inf ball, one an input, [B].
    lower: Smallest valid input value.
    upper: Largest valid input value.
    """

    epsilon: jax.Array
    lower: float = 0.0
    upper: float = 1.0


def bound_differences(
    apply_fn: ApplyFn, params: Params, x: jax.Array, y: jax.Array, box: Box, *, method: Method
) -> jax.Array:
    """Return upper bounds of ``z_j - z_y`` while inputs move; zero for the label itself.

    Two to three forward passes by intervals, and a backward pass for each class more by lines.
    Exact in real arithmetic for an affine network, and at a radius of zero, where the gradients are
    those of the network too; at kinks of activations, as relu's at 0, they may be other slopes
    between those of both sides.

    Args:
      apply_fn: ``(params, x) -> logits``.
      params: One draw.
      x: Inputs, float32 [B, *D]; what lies outside the box stays within reach.
      y: Labels, int32 [B].
      box: Radii and valid values.
      method: ``"interval"`` or ``"crown_ibp"``.

    Returns:
      float32 [B, C].

    Raises:
      CertificationError: The network has a primitive that bounds do not pass through.
    """
    traced = trace(apply_fn, params, x.shape[1:])

    def one_input(x: jax.Array, y: jax.Array, epsilon: jax.Array) -> jax.Array:
        graph = read(traced, params, x.shape, x.dtype)
        merge_windows(graph)
        source = _source(x[None], epsilon, box)
        ranges = through_network(graph, source)
        count = graph.output.shape[-1]
        is_label = jnp.arange(count) == y
        # Lower bounds of z_y - z_j.
        rows = is_label.astype(x.dtype)[None, :] - jnp.eye(count, dtype=x.dtype)
        rows = rows.reshape(count, *graph.output.shape)
        bounds = _by_intervals(graph, ranges, rows)
        if method == "crown_ibp":
            bounds = jnp.minimum(bounds, _by_lines(graph, ranges, rows))
        return jnp.where(is_label, 0.0, bounds)

    found: jax.Array = jax.vmap(one_input)(x, y, box.epsilon)
    return found


def _source(x: jax.Array, epsilon: jax.Array, box: Box) -> Interval:
    low = jnp.minimum(jnp.maximum(box.lower - x, -epsilon), 0.0)
    high = jnp.maximum(jnp.minimum(box.upper - x, epsilon), 0.0)
    return Interval(x + (low + high) / 2, (high - low) / 2)


def through_network(graph: Graph, source: Interval) -> dict[int, Interval]:
    """Return the interval of every variable of a network, by the variable's number.

    Args:
      graph: The network with the weights of one draw.
      source: What the input may be, [1, *D].
    """
    ranges = {graph.source.number: source}
    for item in graph.items:
        number = item.output.number
        if isinstance(item, Node):
            own = ranges[item.input.number]
            ranges[number] = _from_ends(*item.relaxation.ends(own.lower, own.upper))
        elif number in graph.maxima:
            first, second = (_range_of(o, ranges, graph) for o in graph.maxima[number])
            ranges[number] = _from_ends(
                jnp.maximum(first.lower, second.lower), jnp.maximum(first.upper, second.upper)
            )
        else:
            ranges[number] = _through_step(item, ranges)
    return ranges


def _from_ends(lower: jax.Array, upper: jax.Array) -> Interval:
    return Interval((lower + upper) / 2, (upper - lower) / 2)


def _range_of(operand: Operand, ranges: Mapping[int, Interval], graph: Graph) -> Interval:
    if isinstance(operand, Variable):
        return ranges[operand.number]
    value = as_wide(operand.value, graph.dtype)
    return Interval(value, jnp.zeros_like(value))


def _through_step(step: Step, ranges: Mapping[int, Interval]) -> Interval:
    rule = step.rule
    # Constants that are added move the centre alone.
    change = absolute_constant if rule.is_product else zero_constant
    centres, radii = [], []
    for operand in step.inputs:
        if isinstance(operand, Constant):
            centres.append(operand.value)
            radii.append(change(operand.value))
        else:
            centres.append(ranges[operand.number].centre)
            radii.append(ranges[operand.number].radius)
    return Interval(rule.apply(step.params, *centres), rule.absolute(step.params, *radii))


def _by_intervals(graph: Graph, ranges: Mapping[int, Interval], rows: jax.Array) -> jax.Array:
    """Return minus the smallest value of rows of the logits, [C], merged with affine steps."""
    stops = {node.output.number for node in graph.nodes} | set(graph.maxima)
    left, offset = pull_rows(graph, graph.output, rows, _refuse, stops)
    return -offset - sum(_smallest(own, ranges[number]) for number, own in left.items())


def _by_lines(graph: Graph, ranges: Mapping[int, Interval], rows: jax.Array) -> jax.Array:
    """Return minus the smallest value of rows of the logits, [C], as lines of the input."""

    def enclose_node(node: Node) -> Lines:
        own, relaxation = ranges[node.input.number], node.relaxation
        choice = relaxation.start(own.lower, own.upper)
        return (relaxation.simple or relaxation.lines)(own.lower, own.upper, choice)

    left, offset = pull_rows(graph, graph.output, rows, enclose_node)
    return -offset - sum(_smallest(own, ranges[number]) for number, own in left.items())


def _smallest(rows: jax.Array, own: Interval) -> jax.Array:
    flat = rows.reshape(rows.shape[0], -1)
    centre, radius = own.centre.reshape(-1), own.radius.reshape(-1)
    with jax.default_matmul_precision("highest"):
        return flat @ centre - jnp.abs(flat) @ radius


def _refuse(node: Node) -> Any:
    raise AssertionError(f"Rows are pulled through {node.relaxation.name}, where they stop.")
