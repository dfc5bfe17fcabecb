"""Gradients of networks with roots, logarithms and quotients, where those have none.

The derivative of ``sqrt(s)`` at 0 is infinite; by the chain rule a norm at zero has the gradient
infinity times zero, NaN, although its subgradients are finite. Here such a step of the chain rule
counts as zero, what is beyond float32's range as its end: the norm at zero adds nothing, and all
that the network computes beside it keeps its gradient. Values do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

STEEPEST = 1e30
"""Sums and ratios of gradients' components, of any number of them, stay within float32's range."""

_SINGULAR = {
    **dict.fromkeys(("sqrt", "rsqrt", "cbrt", "log", "log1p", "pow", "integer_pow"), 0),
    **dict.fromkeys(("acos", "asin", "acosh", "atanh", "erf_inv"), 0),
    "div": 1,
}
"""Primitives whose derivative is infinite or NaN somewhere; by name, in which operand."""

_CALLS = ("jit", "pjit", "closed_call", "core_call")
"""Primitives that only call another function."""


def finite_gradient(gradient: jax.Array) -> jax.Array:
    """Return a gradient as attacks follow it: NaN as zero, infinities (and beyond) as +-1e30.

    Networks with finite logits can have NaN gradients, such as that of a norm or a root at zero. An
    attack that takes such a component for zero still moves in all others; the check
    ``zero_gradients`` names the share of images where that happens.
    """
    return jnp.clip(jnp.nan_to_num(gradient, nan=0.0), -STEEPEST, STEEPEST)


def with_finite_steps(function: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """Return a function of inputs with the same values, and a finite gradient at more of them.

    Where nothing singular is computed of the inputs the function stays as it is. Loops and
    branches stay as they are too: what they leave NaN counts as zero in the end, see
    ``finite_gradient``.

    Args:
      function: ``x -> values``, an array.
    """

    def call(x: jax.Array) -> Any:
        traced = jax.make_jaxpr(function)(x)
        if not _look(traced.jaxpr, [True])[1]:
            # Not by the function itself, which would be traced a second time.
            return core.jaxpr_as_fun(traced)(x)[0]
        return _evaluate(traced.jaxpr, traced.consts, [x], [True])[0]

    return call


def is_singular(function: Callable[[jax.Array], Any], x: jax.Array) -> bool:
    """Return whether ``with_finite_steps`` would change anything about a function's gradient."""
    return _look(jax.make_jaxpr(function)(x).jaxpr, [True])[1]


@jax.custom_vjp
def _guarded(value: jax.Array) -> jax.Array:
    return value


def _forward(value: jax.Array) -> tuple[jax.Array, None]:
    return value, None


def _backward(_: None, cotangent: jax.Array) -> tuple[jax.Array]:
    return (finite_gradient(cotangent),)


_guarded.defvjp(_forward, _backward)


def _called(equation: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Return the function that an equation calls, if it does nothing else."""
    return equation.params["jaxpr"] if equation.primitive.name in _CALLS else None


def _place(equation: core.JaxprEqn, moves: Sequence[bool]) -> int | None:
    """Return which operand has no finite derivative everywhere, if it depends on the inputs."""
    name = equation.primitive.name
    place = _SINGULAR.get(name)
    if place is None or not moves[place]:
        return None
    return None if name == "integer_pow" and equation.params["y"] >= 0 else place


def _of(known: dict[core.Var, bool], variables: Sequence[Any]) -> list[bool]:
    return [not isinstance(v, core.Literal) and known.get(v, False) for v in variables]


def _look(jaxpr: core.Jaxpr, moves: Sequence[bool]) -> tuple[list[bool], bool]:
    """Return which results depend on the inputs that move, and whether a step is singular."""
    known, found = dict(zip(jaxpr.invars, moves, strict=True)), False
    for equation in jaxpr.eqns:
        own = _of(known, equation.invars)
        if (inner := _called(equation)) is not None:
            results, is_singular = _look(inner.jaxpr, own)
            found |= is_singular
        else:
            results = [any(own)] * len(equation.outvars)
            found |= _place(equation, own) is not None
        known |= dict(zip(equation.outvars, results, strict=True))
    return _of(known, jaxpr.outvars), found


def _run(equation: core.JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Return what one equation says of its operands."""
    params = equation.primitive.get_bind_params(equation.params)
    with equation.ctx.manager:
        found: Any = equation.primitive.bind(*operands, **params)
    return list(found) if equation.primitive.multiple_results else [found]


def _evaluate(
    jaxpr: core.Jaxpr, consts: Sequence[Any], operands: Sequence[Any], moves: Sequence[bool]
) -> list[Any]:
    """Return what a traced function returns, its singular steps guarded."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *operands], strict=True))
    known = dict(zip(jaxpr.invars, moves, strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in jaxpr.eqns:
        given, own = [read(v) for v in equation.invars], _of(known, equation.invars)
        if (inner := _called(equation)) is not None:
            found = _evaluate(inner.jaxpr, inner.consts, given, own)
            results = _look(inner.jaxpr, own)[0]
        else:
            if (place := _place(equation, own)) is not None:
                given[place] = _guarded(given[place])
            found = _run(equation, given)
            results = [any(own)] * len(equation.outvars)
        values |= dict(zip(equation.outvars, found, strict=True))
        known |= dict(zip(equation.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]
