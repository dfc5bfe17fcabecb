"""Primitives that become several steps: maxima and pooling, choices by a sign, powers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from bnn_adv.bounds.affine import AFFINE
from bnn_adv.bounds.graph import (
    CertificationError,
    Constant,
    Graph,
    Operand,
    Predicate,
    Step,
    Variable,
    is_zero,
    unknown_primitive,
)
from bnn_adv.bounds.relaxations import ELU, RELU, SOFTPLUS, SQUARE

CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Names under which primitives hold the one function that they call."""

COMPARISONS = {"gt": True, "ge": True, "lt": False, "le": False}
"""By the primitive's name: whether it asks if the first operand is the larger one."""


def read_comparison(name: str, operands: list[Any]) -> Predicate:
    """Read ``a > 0`` and its kind: what is chosen by it may be a leaky unit."""
    left, right = operands
    if isinstance(left, Variable) and isinstance(right, Constant) and is_zero(right.value):
        return Predicate(left, COMPARISONS[name])
    if isinstance(right, Variable) and isinstance(left, Constant) and is_zero(left.value):
        return Predicate(right, not COMPARISONS[name])
    raise CertificationError(
        f"The network compares what depends on its input ({name}) with something other than zero: "
        "a step function, for which no bound is known. jnp.maximum and jnp.minimum have bounds."
    )


def read_choice(graph: Graph, name: str, operands: list[Any], shape: tuple[int, ...]) -> Variable:
    """Read ``where(a > 0, s a, t a)``: continuous, hence ``t a + (s - t) relu(a)``."""
    if name == "select_n" and len(operands) == 3 and isinstance(operands[0], Predicate):
        predicate, below, above = operands
        variable = predicate.variable
        if not predicate.is_above:
            below, above = above, below
        slopes = [_slope_over(graph, case, variable) for case in (below, above)]
        if variable.shape == shape and all(slope is not None for slope in slopes):
            low, high = (jnp.asarray(slope, graph.dtype) for slope in slopes)
            relu = graph.node(RELU, variable)
            return graph.combine((low, high - low), (variable, relu))
    raise CertificationError(
        f"The network chooses by the sign of what depends on its input ({name}) between values "
        "that are not multiples of it, for which no bound is known. Write it by jnp.maximum, or "
        "use jax.nn.relu, leaky_relu, elu or softplus."
    )


def _slope_over(graph: Graph, case: Any, variable: Variable) -> Any:
    """Return s where a case is ``s * variable``, element by element; None where it is not."""
    if isinstance(case, Constant):
        return 0.0 if is_zero(case.value) else None
    if case == variable:
        return 1.0
    made = next((s for s in graph.items if isinstance(s, Step) and s.output == case), None)
    if made is None:
        return None
    if made.rule in (AFFINE["convert_element_type"], AFFINE["copy"], AFFINE["stop_gradient"]):
        return _slope_over(graph, made.inputs[0], variable)
    if made.rule is AFFINE["neg"]:
        slope = _slope_over(graph, made.inputs[0], variable)
        return None if slope is None else -slope
    if made.rule is AFFINE["mul"] and variable in made.inputs:
        (factor,) = (o for o in made.inputs if isinstance(o, Constant))
        return factor.value
    return None


def _read_maximum(graph: Graph, params: Any, operands: list[Any], shape: Any) -> Variable:
    a, b = (_broadcast(graph, operand, shape) for operand in operands)
    return graph.maximum(a, b)


def _read_minimum(graph: Graph, params: Any, operands: list[Any], shape: Any) -> Variable:
    a, b = (_negative(graph, _broadcast(graph, operand, shape)) for operand in operands)
    return graph.step("neg", (graph.maximum(a, b),), {}, shape)


def _negative(graph: Graph, operand: Operand) -> Operand:
    if isinstance(operand, Constant):
        return Constant(-jnp.asarray(operand.value))
    return graph.step("neg", (operand,), {}, operand.shape)


def _broadcast(graph: Graph, operand: Operand, shape: tuple[int, ...]) -> Operand:
    if isinstance(operand, Constant):
        if is_zero(operand.value):
            return operand
        return Constant(jnp.broadcast_to(jnp.asarray(operand.value), shape))
    if operand.shape == tuple(shape):
        return operand
    last = tuple(range(len(shape) - len(operand.shape), len(shape)))
    params = {"shape": tuple(shape), "broadcast_dimensions": last}
    return graph.step("broadcast_in_dim", (operand,), params, shape)


def _read_absolute(graph: Graph, params: Any, operands: list[Any], shape: Any) -> Variable:
    return graph.combine((2.0, -1.0), (graph.node(RELU, operands[0]), operands[0]))


def _read_clamp(graph: Graph, params: Any, operands: list[Any], shape: Any) -> Variable:
    low, x, high = operands
    if not isinstance(x, Variable):
        raise CertificationError("The network clips by bounds that depend on its input.")
    raised = _read_maximum(graph, params, [x, low], shape)
    return _read_minimum(graph, params, [raised, high], shape)


def _read_power(graph: Graph, params: Any, operands: list[Any], shape: Any) -> Variable:
    if params["y"] == 1:
        found: Variable = operands[0]
        return found
    if params["y"] != 2:
        raise unknown_primitive(f"integer_pow[y={params['y']}]")
    return graph.node(SQUARE, operands[0])


def _read_product(graph: Graph, params: Any, operands: list[Any], shape: Any) -> Variable:
    if operands[0] == operands[1]:
        return graph.node(SQUARE, operands[0])
    return graph.step("mul", operands, params, shape)


def _read_reduce_max(graph: Graph, params: Any, operands: list[Any], shape: Any) -> Variable:
    operand, axes = operands[0], tuple(params["axes"])
    sizes = [operand.shape[axis] for axis in axes]
    parts = []
    for place in itertools.product(*(range(size) for size in sizes)):
        starts, limits = [0] * len(operand.shape), list(operand.shape)
        for axis, index in zip(axes, place, strict=True):
            starts[axis], limits[axis] = index, index + 1
        cut = {"start_indices": tuple(starts), "limit_indices": tuple(limits), "strides": None}
        kept = tuple(b - a for a, b in zip(starts, limits, strict=True))
        part = graph.step("slice", (operand,), cut, kept)
        parts.append(graph.step("squeeze", (part,), {"dimensions": axes}, shape))
    return _largest(graph, parts)


def _read_window_max(graph: Graph, params: Any, operands: list[Any], shape: Any) -> Variable:
    """Read max pooling as the maximum of shifted views."""
    size, strides = params["window_dimensions"], params["window_strides"]
    plain = all(d == 1 for d in (*params["base_dilation"], *params["window_dilation"]))
    if not plain or any(low or high for low, high in params["padding"]):
        raise CertificationError(
            "Max pooling with padding or dilation has no bound here: pool without padding."
        )
    parts = []
    for start in itertools.product(*(range(s) for s in size)):
        limits = [a + (n - 1) * step + 1 for a, n, step in zip(start, shape, strides, strict=True)]
        cut = {"start_indices": start, "limit_indices": tuple(limits), "strides": tuple(strides)}
        parts.append(graph.step("slice", operands, cut, shape))
    return _largest(graph, parts)


def _largest(graph: Graph, parts: list[Variable]) -> Variable:
    """Return the largest of several: pairs, then pairs of those, so that few stand in a row."""
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [graph.maximum(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]


def _read_softplus(graph: Graph, operands: list[Any], shape: tuple[int, ...]) -> Variable:
    """Read ``log(e^a + e^b) = b + softplus(a - b)``."""
    a, b = (_broadcast(graph, operand, shape) for operand in operands)
    if isinstance(a, Constant):
        a, b = b, a
    assert isinstance(a, Variable)
    if isinstance(b, Constant) and is_zero(b.value):
        return graph.node(SOFTPLUS, a)
    return graph.combine((1.0, 1.0), (b, graph.node(SOFTPLUS, graph.combine((1.0, -1.0), (a, b)))))


def _read_elu(graph: Graph, operands: list[Any], shape: tuple[int, ...]) -> Variable:
    """Read ``elu(a, s) = s elu(a, 1) + (1 - s) relu(a)``."""
    variable, *scales = operands
    if not isinstance(variable, Variable) or any(isinstance(s, Variable) for s in scales):
        raise unknown_primitive("elu of a scale that depends on the input")
    curved = graph.node(ELU, variable)
    if not scales:
        return curved
    scale = jnp.asarray(scales[0].value, graph.dtype)
    return graph.combine((scale, 1 - scale), (curved, graph.node(RELU, variable)))


COMPOSITES: dict[Callable[..., Any], Callable[..., Variable]] = {
    jnp.logaddexp: _read_softplus,
    jax.nn.elu: _read_elu,
}
"""Functions that are made of primitives without bounds, and have one themselves."""


def is_same(closed: core.ClosedJaxpr, reference: Callable[..., Any]) -> bool:
    """Return whether a traced function is the very one, whatever it is called."""
    avals = tuple((tuple(a.shape), a.dtype.name, a.weak_type) for a in closed.in_avals)
    known = _trace_reference(reference, avals)
    return known is not None and str(closed.jaxpr) == known and not closed.consts


@functools.lru_cache(maxsize=256)
def _trace_reference(reference: Any, avals: Any) -> str | None:
    try:
        shapes = [jax.ShapeDtypeStruct(a, jnp.dtype(b), weak_type=c) for a, b, c in avals]
        # As the network was traced: bounds are made in float64.
        with jax.enable_x64(False):
            outer = jax.make_jaxpr(reference)(*shapes).jaxpr
    except (TypeError, ValueError):
        return None
    (equation,) = outer.eqns[:1]
    for name in CALLS:
        if name in equation.params and len(outer.eqns) == 1:
            inner = equation.params[name]
            return str(inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner)
    return None


READERS: dict[str, Callable[..., Variable]] = {
    "max": _read_maximum,
    "min": _read_minimum,
    "abs": _read_absolute,
    "clamp": _read_clamp,
    "integer_pow": _read_power,
    "mul": _read_product,
    "reduce_max": _read_reduce_max,
    "reduce_window_max": _read_window_max,
}
"""By the primitive's name: those that become several steps."""
