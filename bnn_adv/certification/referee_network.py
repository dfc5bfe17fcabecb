"""The referee's own reading of a network: what JAX traced, as affine maps and activations.

Constants (whatever does not depend on the input) are computed as the network computes them; of the
input, nothing is ever evaluated by JAX. What is unknown is refused by the primitive's name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from bnn_adv.certification import referee_linear as linear
from bnn_adv.certification.referee_linear import Expression
from bnn_adv.certification.referee_primitives import (
    MOVES,
    SUMS,
    UNREAD,
    as_expression,
    negative,
    select,
    unknown,
    windows,
)
from bnn_adv.compute.disk import as_arrays
from bnn_adv.compute.leaves import from_plain
from bnn_adv.evaluation.verification_arrays import VerificationError
from bnn_adv.posteriors.posterior import Posterior, one_draw


class Node(NamedTuple):
    """An activation of an affine function: ``z_i = kind(expression)``.

    kind: Its name; ``"same"``: the affine function itself, bounded once where it is used twice.
    expression: The affine function.
    twin: Number of the atom that ``expression`` is, if it is one of kind ``"same"``; else 0.
    pair: Two affine functions whose maximum the expression is, element by element; None else.
    """

    kind: str
    expression: Expression
    twin: int = 0
    pair: tuple[Expression, Expression] | None = None


class Network(NamedTuple):
    """A network with the weights of one draw.

    nodes: Activations in order; the first makes atom 1, the input being atom 0.
    logits: The logits, [1, C].
    """

    nodes: list[Node]
    logits: Expression


class _Sign(NamedTuple):
    """Whether an expression is positive (``is_above``) or negative."""

    expression: Expression
    is_above: bool


_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_CALLING = {
    *("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"),
    *("custom_vjp_call_jaxpr", "remat", "remat2", "checkpoint"),
}
_SAME = {"convert_element_type", "copy", "copy_p", "stop_gradient", "optimization_barrier"}
_SIGNS = {"gt": True, "ge": True, "lt": False, "le": False}
_ACTIVATIONS = ("tanh", "logistic")


def trace(apply_fn: Callable[[Any, Any], Any], draw: Any, shape: tuple[int, ...]) -> Any:
    """Return what JAX traces of a network for one input of a shape."""
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    # As predictions are made.
    with jax.default_matmul_precision("highest"):
        return jax.make_jaxpr(apply_fn)(draw, x)


def read(traced: Any, draw: Any, shape: tuple[int, ...]) -> Network:
    """Return a traced network with the weights of one draw.

    Raises:
      VerificationError: A primitive is unknown to the referee; the message names it.
    """
    reader = _Reader()
    source = linear.atom(0, (1, *shape))
    with jax.default_matmul_precision("highest"):
        (logits,) = reader.run(traced.jaxpr, traced.consts, [*jax.tree.leaves(draw), source])
    if not isinstance(logits, Expression):
        raise VerificationError(f"{UNREAD}the logits do not depend on the input.")
    return Network(reader.nodes, linear.densify(logits))


def open_draws(posterior: Posterior, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return what ``read_draw`` takes besides the draw's number."""
    template = one_draw(posterior)
    traced = trace(posterior.logits, template, shape)
    return traced, shape, template, as_arrays(posterior.samples)


def read_draw(traced: Any, shape: Any, template: Any, leaves: Any, number: int) -> Network:
    """Return the network with the weights of one draw."""
    likes, structure = jax.tree.flatten(template)
    arrays = [
        from_plain(np.asarray(leaf[number]), like) for leaf, like in zip(leaves, likes, strict=True)
    ]
    return read(traced, jax.tree.unflatten(structure, arrays), shape)


class _Reader:
    """Interprets equations and collects activations."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def run(self, jaxpr: Any, constants: Any, inputs: Any) -> list[Any]:
        """Return the results of a traced function: constants, expressions, signs."""
        env: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
        env.update(zip(jaxpr.invars, inputs, strict=True))
        for equation in jaxpr.eqns:
            if not equation.outvars:
                continue  # It prints, say.
            values = [a.val if isinstance(a, core.Literal) else env[a] for a in equation.invars]
            if any(isinstance(value, Expression | _Sign) for value in values):
                found = self._one(equation, values)
            else:
                found = _evaluate(equation, values, jaxpr.debug_info)
            env.update(zip(equation.outvars, found, strict=True))
        return [a.val if isinstance(a, core.Literal) else env[a] for a in jaxpr.outvars]

    def activate(self, kind: str, e: Expression) -> Expression:
        """Add an activation and return its result."""
        self.nodes.append(Node(kind, linear.densify(e)))
        return linear.atom(len(self.nodes), e.shape)

    def rectify(self, e: Expression) -> tuple[Expression, Expression]:
        """Return an expression as an atom, and relu of it."""
        same = self.activate("same", e)
        twin = len(self.nodes)
        self.nodes.append(Node("relu", same, twin))
        return same, linear.atom(len(self.nodes), e.shape)

    def maximum(self, a: Any, b: Any, shape: tuple[int, ...]) -> Expression:
        """Return ``b + relu(a - b)``, as an atom that knows what it is the larger of."""
        a, b = (linear.broadcast(as_expression(value), shape) for value in (a, b))
        if not a.matrices:
            a, b = b, a
        if not b.matrices and not b.constant.any():
            return self.activate("relu", a)
        gap = self.activate("relu", linear.add((1.0, -1.0), (a, b), shape))
        larger = linear.densify(linear.add((1.0, 1.0), (b, gap), shape))
        self.nodes.append(Node("same", larger, 0, (linear.densify(a), linear.densify(b))))
        return linear.atom(len(self.nodes), shape)

    def largest(self, parts: list[Expression]) -> Expression:
        """Return the largest of several arrays, pair by pair."""
        while len(parts) > 1:
            pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
            parts = [self.maximum(p[0], p[-1], p[0].shape) if len(p) == 2 else p[0] for p in pairs]
        return parts[0]

    def _one(self, equation: Any, values: list[Any]) -> list[Any]:
        name, params = equation.primitive.name, equation.params
        shape = tuple(equation.outvars[0].aval.shape)
        if name in _CALLING:
            inner = next(params[key] for key in _CALLS if key in params)
            closed = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, [])
            if _is_log_add_exp(closed):
                return [self._softplus(values, shape)]
            return self.run(closed.jaxpr, closed.consts, values)
        if name in _SIGNS:
            return [_compare(name, values)]
        if isinstance(values[0], _Sign) and name == "select_n":
            return [self._choose(values, shape)]
        if any(isinstance(value, _Sign) for value in values):
            raise unknown(f"{name} of a comparison")
        for variable in equation.outvars:
            if variable.aval.dtype not in (jnp.float32, jnp.float64):
                raise unknown(f"{name} to {variable.aval.dtype}")
        _check_precision(name, params)
        if name == "unstack":
            views = np.moveaxis(values[0].index, params["axis"], 0)
            return [linear.pick(values[0], view) for view in views]
        if name == "split":
            ends = np.cumsum(params["sizes"])[:-1]
            parts = np.split(values[0].index, ends, axis=params["axis"])
            return [linear.pick(values[0], part) for part in parts]
        return [self._value(name, params, values, shape)]

    def _value(self, name: str, params: Any, values: list[Any], shape: Any) -> Expression:
        if name in _SAME:
            found: Expression = values[0]
            return found
        if name in _ACTIVATIONS:
            return self.activate(name, values[0])
        if name in MOVES:
            return linear.pick(values[0], MOVES[name](params, values[0].index))
        if name in SUMS:
            return SUMS[name](params, values, shape)
        if name == "select_n":
            return select(values)
        if name in ("max", "min"):
            a, b = (as_expression(value) for value in values)
            if name == "max":
                return self.maximum(a, b, shape)
            return negative(self.maximum(negative(a), negative(b), shape))
        if name == "abs":
            same, up = self.rectify(values[0])
            return linear.add((2.0, -1.0), (up, same), shape)
        if name == "reduce_max":
            index = np.moveaxis(values[0].index, params["axes"], range(len(params["axes"])))
            rows = index.reshape(-1, *shape)
            return self.largest([linear.pick(values[0], row) for row in rows])
        if name == "reduce_window_max":
            views = list(windows(params, values[0].index, shape))
            if any((view < 0).any() for view in views):
                raise unknown("reduce_window_max with padding")
            return self.largest([linear.pick(values[0], view) for view in views])
        raise unknown(name)

    def _choose(self, values: list[Any], shape: tuple[int, ...]) -> Expression:
        """Return ``where(a > 0, s a, t a) = t a + (s - t) relu(a)``."""
        sign, below, above = values
        if not sign.is_above:
            below, above = above, below
        e = sign.expression
        low, high = (_slope(case, e) for case in (below, above))
        if low is None or high is None or e.shape != shape:
            raise unknown("select_n between what are no multiples of what is compared")
        scales = low.reshape(shape), (high - low).reshape(shape)
        return linear.add(scales, self.rectify(e), shape)

    def _softplus(self, values: list[Any], shape: tuple[int, ...]) -> Expression:
        """Return ``log(e^a + e^b) = b + softplus(a - b)``."""
        a, b = (linear.broadcast(as_expression(value), shape) for value in values)
        gap = self.activate("softplus", linear.add((1.0, -1.0), (a, b), shape))
        return linear.add((1.0, 1.0), (b, gap), shape)


def _evaluate(equation: Any, values: list[Any], names: Any) -> list[Any]:
    """Compute what does not depend on the input, as the network does."""
    given = {
        atom: value
        for atom, value in zip(equation.invars, values, strict=True)
        if not isinstance(atom, core.Literal)
    }
    outputs = list(equation.outvars)
    alone = core.Jaxpr([], list(given), outputs, [equation], equation.effects, names)
    found: list[Any] = core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))(*given.values())
    return found


def _check_precision(name: str, params: Any) -> None:
    asked = params.get("precision")
    for precision in asked if isinstance(asked, tuple) else (asked,):
        if precision not in (None, lax.Precision.HIGHEST):
            raise unknown(f"{name} with precision={precision}")


def _compare(name: str, values: list[Any]) -> _Sign:
    left, right = values
    if isinstance(left, Expression) and not isinstance(right, Expression | _Sign):
        if not np.any(right):
            return _Sign(left, _SIGNS[name])
    elif isinstance(right, Expression) and not np.any(left):
        return _Sign(right, not _SIGNS[name])
    raise unknown(f"{name} with what is not zero")


def _slope(case: Any, e: Expression) -> np.ndarray | None:
    """Return what an array is times ``e``, element by element; None where it is no multiple."""
    slope = np.ones(len(e.constant))
    while isinstance(case, Expression):
        if case is e:
            return slope
        if case.multiple_of is None:
            return None
        case, factor = case.multiple_of
        slope = slope * factor
    return 0 * slope if not np.any(case) else None


@functools.lru_cache(maxsize=64)
def _log_add_exp(shapes: Any) -> str:
    traced = jax.make_jaxpr(jnp.logaddexp)(*(jax.ShapeDtypeStruct(*own) for own in shapes))
    return str(next(traced.eqns[0].params[k] for k in _CALLS if k in traced.eqns[0].params))


def _is_log_add_exp(closed: Any) -> bool:
    names = {equation.primitive.name for equation in closed.jaxpr.eqns}
    if "log1p" not in names or len(closed.in_avals) != 2:
        return False
    known = _log_add_exp(tuple((a.shape, a.dtype) for a in closed.in_avals))
    return known in (str(closed), str(closed.jaxpr))
