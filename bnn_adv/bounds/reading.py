"""Equation by equation from what JAX traced to steps and activations, see ``graph``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from bnn_adv.bounds.affine import AFFINE
from bnn_adv.bounds.graph import (
    CertificationError,
    Constant,
    Graph,
    Operand,
    Predicate,
    Variable,
    is_zero,
    unknown_primitive,
)
from bnn_adv.bounds.readers import (
    CALLS,
    COMPARISONS,
    COMPOSITES,
    READERS,
    is_same,
    read_choice,
    read_comparison,
)
from bnn_adv.bounds.relaxations import RELAXATIONS

_CALLING = {
    *("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"),
    *("custom_vjp_call_jaxpr", "remat", "remat2", "checkpoint", "custom_lin"),
}
_KEEP_ZERO = {"broadcast_in_dim", "convert_element_type", "copy", "reshape"}
_MOST_TURNS = 256
_PRECISE = (None, lax.Precision.HIGHEST, lax.DotAlgorithmPreset.F32_F32_F32)


def trace(
    apply_fn: Callable[[Any, Any], Any], draw: Any, shape: tuple[int, ...]
) -> core.ClosedJaxpr:
    """Return a network as JAX traces it for one input, before anything is computed.

    Args:
      apply_fn: ``(params, x) -> logits``.
      draw: One draw: arrays, or their shapes and dtypes.
      shape: Of one input.
    """
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    # As predictions are made, see ``Posterior.precision``.
    with jax.default_matmul_precision("highest"):
        return jax.make_jaxpr(apply_fn)(draw, x)


def read(
    traced: core.ClosedJaxpr, draw: Any, shape: tuple[int, ...], dtype: Any = jnp.float64
) -> Graph:
    """Return the graph of a traced network with the weights of one draw.

    Args:
      traced: See ``trace``.
      draw: The draw, arrays.
      shape: Of one input.
      dtype: Of the graph's constants.

    Raises:
      CertificationError: A primitive that bounds do not pass through; the message names it.
    """
    graph = Graph((1, *shape), dtype)
    leaves: list[Operand] = [Constant(leaf) for leaf in jax.tree.leaves(draw)]
    constants: list[Operand] = [Constant(value) for value in traced.consts]
    (output,) = read_equations(graph, traced.jaxpr, constants, [*leaves, graph.source])
    if not isinstance(output, Variable):
        raise CertificationError(
            "The network's logits do not depend on its input: there is nothing to certify."
        )
    graph.output = output
    return graph


def read_equations(
    graph: Graph, jaxpr: core.Jaxpr, constants: Sequence[Operand], inputs: Sequence[Operand]
) -> list[Any]:
    """Add a traced function's equations to a graph, and return its results.

    Raises:
      CertificationError: A primitive that bounds do not pass through; the message names it.
    """
    env: dict[core.Var, Any] = {}
    env.update(zip(jaxpr.constvars, constants, strict=True))
    env.update(zip(jaxpr.invars, inputs, strict=True))

    def look(atom: Any) -> Any:
        return Constant(atom.val) if isinstance(atom, core.Literal) else env[atom]

    for equation in jaxpr.eqns:
        if not equation.outvars:
            continue  # It prints, say.
        operands = [look(atom) for atom in equation.invars]
        if all(isinstance(operand, Constant) for operand in operands):
            results = _compute(equation, operands, jaxpr.debug_info)
        else:
            results = _read_one(graph, equation, operands)
        env.update(zip(equation.outvars, results, strict=True))
    return [look(atom) for atom in jaxpr.outvars]


def _compute(
    equation: core.JaxprEqn, operands: Sequence[Constant], debug_info: Any
) -> list[Operand]:
    """Compute what does not depend on the input, as the network does."""
    dtype = getattr(equation.outvars[0].aval, "dtype", None)
    may_be_zero = equation.primitive.name in _KEEP_ZERO and isinstance(dtype, np.dtype)
    if may_be_zero and all(is_zero(operand.value) for operand in operands):
        # Known without a computation, which is put off while programs are traced.
        return [Constant(np.zeros(_shape_of(equation), dtype))]
    found = {
        id(atom): (atom, operand.value)
        for atom, operand in zip(equation.invars, operands, strict=True)
        if not isinstance(atom, core.Literal)
    }
    inputs = [atom for atom, _ in found.values()]
    outputs = list(equation.outvars)
    # Without names of arguments, whichever they are, JAX warns.
    jaxpr = core.Jaxpr([], inputs, outputs, [equation], equation.effects, debug_info)
    compute = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, []))
    return [Constant(value) for value in compute(*(value for _, value in found.values()))]


def _read_one(graph: Graph, equation: core.JaxprEqn, operands: list[Any]) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    shape = _shape_of(equation)
    if name in _CALLING:
        return _read_call(graph, equation, operands)
    if name == "scan":
        return _read_scan(graph, equation, operands)
    if name in COMPARISONS:
        return [read_comparison(name, operands)]
    if any(isinstance(operand, Predicate) for operand in operands):
        return [read_choice(graph, name, operands, shape)]
    _check_precision(equation)
    if name in READERS:
        return [READERS[name](graph, params, operands, shape)]
    if name == "split":
        return _read_split(graph, params, operands[0])
    if name == "unstack":
        return _read_unstack(graph, params, operands[0])
    if name in RELAXATIONS:
        return [graph.node(RELAXATIONS[name], operands[0])]
    if name in AFFINE and len(equation.outvars) == 1:
        return [graph.step(name, operands, params, shape)]
    raise unknown_primitive(name)


def _shape_of(equation: core.JaxprEqn) -> tuple[int, ...]:
    return tuple(getattr(equation.outvars[0].aval, "shape", ()))


def _check_precision(equation: core.JaxprEqn) -> None:
    name, params = equation.primitive.name, equation.params
    given = params.get("precision")
    asked = given if isinstance(given, tuple) else (given,)
    if any(each not in _PRECISE for each in asked):
        raise CertificationError(
            f"The network's {name} asks for the precision {given}, which may round more than a "
            "certificate allows for: leave it out, and the posterior's counts."
        )
    if name == "reduce_precision" and (params["exponent_bits"] < 8 or params["mantissa_bits"] < 23):
        raise CertificationError(
            f"The network rounds what depends on its input ({name}): a step function, for which "
            "no bound is known."
        )
    for variable in equation.outvars:
        dtype = getattr(variable.aval, "dtype", jnp.dtype(bool))
        if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
            raise CertificationError(
                f"The network computes in {jnp.dtype(dtype).name} ({equation.primitive.name}), "
                "which rounds more than a certificate allows for: use float32."
            )
        if not jnp.issubdtype(dtype, jnp.floating):
            raise CertificationError(
                f"The network turns what depends on its input into {jnp.dtype(dtype).name} "
                f"({equation.primitive.name}): a step function, for which no bound is known."
            )


def _read_call(graph: Graph, equation: core.JaxprEqn, operands: list[Any]) -> list[Any]:
    inner = next(equation.params[name] for name in CALLS if name in equation.params)
    closed = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, [])
    shape = _shape_of(equation)
    for reference, read in COMPOSITES.items():
        if is_same(closed, reference):
            return [read(graph, operands, shape)]
    constants = [Constant(value) for value in closed.consts]
    return read_equations(graph, closed.jaxpr, constants, operands)


def _read_scan(graph: Graph, equation: core.JaxprEqn, operands: list[Any]) -> list[Any]:
    """Read a loop of fixed length turn by turn."""
    params = equation.params
    length, fixed, carried = params["length"], params["num_consts"], params["num_carry"]
    if length > _MOST_TURNS or length < 1:
        raise CertificationError(
            f"The network loops {length} times over what depends on its input; loops of 1 to "
            f"{_MOST_TURNS} turns can be certified."
        )
    constants, carry = operands[:fixed], operands[fixed : fixed + carried]
    body, rows = params["jaxpr"], operands[fixed + carried :]
    turns = range(length - 1, -1, -1) if params["reverse"] else range(length)
    results: list[list[Any]] = []
    for turn in turns:
        own = [_take(graph, row, turn) for row in rows]
        consts = [Constant(value) for value in body.consts]
        found = read_equations(graph, body.jaxpr, consts, [*constants, *carry, *own])
        carry = found[:carried]
        results.append(found[carried:])
    if params["reverse"]:
        results.reverse()
    stacked = [_stack(graph, values) for values in zip(*results, strict=True)]
    return [*carry, *stacked]


def _take(graph: Graph, row: Operand, turn: int) -> Operand:
    if isinstance(row, Constant):
        return Constant(row.value[turn])
    starts = (turn, *(0 for _ in row.shape[1:]))
    limits = (turn + 1, *row.shape[1:])
    cut = {"start_indices": starts, "limit_indices": limits, "strides": None}
    part = graph.step("slice", (row,), cut, (1, *row.shape[1:]))
    return graph.step("squeeze", (part,), {"dimensions": (0,)}, row.shape[1:])


def _stack(graph: Graph, values: tuple[Any, ...]) -> Operand:
    if all(isinstance(value, Constant) for value in values):
        return Constant(jnp.stack([value.value for value in values]))
    parts: list[Operand] = []
    for value in values:
        if isinstance(value, Constant):
            parts.append(Constant(value.value[None]))
        else:
            grown = (1, *value.shape)
            parts.append(graph.step("expand_dims", (value,), {"dimensions": (0,)}, grown))
    shape = next(part.shape for part in parts if isinstance(part, Variable))
    return graph.step("concatenate", parts, {"dimension": 0}, (len(parts), *shape[1:]))


def _read_split(graph: Graph, params: Any, operand: Variable) -> list[Variable]:
    axis, start, parts = params["axis"], 0, []
    for size in params["sizes"]:
        starts, limits = [0] * len(operand.shape), list(operand.shape)
        starts[axis], limits[axis] = start, start + size
        cut = {"start_indices": tuple(starts), "limit_indices": tuple(limits), "strides": None}
        shape = tuple(b - a for a, b in zip(starts, limits, strict=True))
        parts.append(graph.step("slice", (operand,), cut, shape))
        start += size
    return parts


def _read_unstack(graph: Graph, params: Any, operand: Variable) -> list[Variable]:
    axis, size = params["axis"], operand.shape[params["axis"]]
    parts = _read_split(graph, {"axis": axis, "sizes": (1,) * size}, operand)
    shape = (*operand.shape[:axis], *operand.shape[axis + 1 :])
    return [graph.step("squeeze", (part,), {"dimensions": (axis,)}, shape) for part in parts]
