"""Primitives that are affine in what depends on the input, as the referee evaluates them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bnn_adv.certification import referee_linear as linear
from bnn_adv.certification.referee_linear import Expression
from bnn_adv.evaluation.verification_arrays import VerificationError


def as_expression(value: Any) -> Expression:
    """Return a constant as an expression; expressions are returned as they are."""
    return value if isinstance(value, Expression) else linear.constant(value)


UNREAD = "not confirmed: "
"""How messages begin that are about what the referee cannot read, and not about a claim."""


def unknown(name: str) -> VerificationError:
    """Return the error that names what the referee does not know."""
    return VerificationError(
        f"{UNREAD}the referee does not know the primitive {name} of what depends on the "
        "input, and says nothing of this network."
    )


def negative(e: Expression) -> Expression:
    """Return an array times -1."""
    return linear.times(e, np.full(e.shape, -1.0), terms=0)


def select(values: list[Any]) -> Expression:
    """Return elements of several arrays, chosen by a constant."""
    which, *cases = values
    if isinstance(which, Expression):
        raise unknown("select_n by a number")
    parts = [as_expression(case) for case in cases]
    chosen = np.asarray(which).astype(int)
    return linear.arrange(parts, lambda *index: np.choose(chosen, index))


def _place(size: Any, strides: Any, dilation: Any, index: Any, shape: Any) -> Any:
    """Yield, for every place in a window, where it is and the elements there of all windows."""
    for place in itertools.product(*(range(n) for n in size)):
        starts = [p * d for p, d in zip(place, dilation, strict=True)]
        slices = tuple(
            slice(a, a + (n - 1) * step + 1, step)
            for a, n, step in zip(starts, shape, strides, strict=True)
        )
        yield place, index[slices]


def windows(params: Any, index: np.ndarray, shape: tuple[int, ...]) -> Any:
    """Yield, for every place in a pooling window, the elements of all windows there."""
    if any(d != 1 for d in params["base_dilation"]):
        raise unknown("reduce_window with base_dilation")
    padded = np.pad(index, params["padding"], constant_values=-1)
    size, strides, dilation = (
        params[f"window_{name}"] for name in ("dimensions", "strides", "dilation")
    )
    for _, view in _place(size, strides, dilation, padded, shape):
        yield view


def _pad(params: Any, values: list[Any], shape: Any) -> Expression:
    e, fill = values
    if not isinstance(e, Expression) or isinstance(fill, Expression):
        raise unknown("pad by what depends on the input")
    if any(a < 0 or b < 0 or c for a, b, c in params["padding_config"]):
        raise unknown("pad with negative or inner padding")
    widths = [(a, b) for a, b, _ in params["padding_config"]]
    return linear.pick(e, np.pad(e.index, widths, constant_values=-1), float(fill))


def _product(params: Any, values: list[Any], shape: Any) -> Expression:
    a, b = values
    if isinstance(a, Expression) and isinstance(b, Expression):
        raise unknown("mul of two activations")
    e, factor = (a, b) if isinstance(a, Expression) else (b, a)
    factor = np.broadcast_to(np.asarray(factor, np.float64), shape)
    return linear.times(linear.broadcast(e, shape), factor)


def _quotient(params: Any, values: list[Any], shape: Any) -> Expression:
    e, by = values
    if not isinstance(e, Expression) or isinstance(by, Expression):
        raise unknown("div by what depends on the input")
    factor = np.broadcast_to(1 / np.asarray(by, np.float64), shape)
    return linear.times(linear.broadcast(e, shape), factor, terms=3)


def _dot(params: Any, values: list[Any], shape: Any) -> Expression:
    a, b = values
    if isinstance(a, Expression) and isinstance(b, Expression):
        raise unknown("dot_general of two activations")
    is_left = isinstance(a, Expression)
    e, other = (a, b) if is_left else (b, a)
    dimensions = params["dimension_numbers"]
    return linear.dot(e, np.asarray(other, np.float64), is_left=is_left, dimensions=dimensions)


def _convolve(params: Any, values: list[Any], shape: Any) -> Expression:
    e, kernel = values
    plain = all(d == 1 for d in params["lhs_dilation"]) and params["batch_group_count"] == 1
    if not isinstance(e, Expression) or isinstance(kernel, Expression) or not plain:
        raise unknown("conv_general_dilated with a moving kernel, lhs_dilation or batch groups")
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    index = e.index.transpose(numbers.lhs_spec)
    if any(a < 0 or b < 0 for a, b in params["padding"]):
        raise unknown("conv_general_dilated with negative padding")
    index = np.pad(index, [(0, 0), (0, 0), *params["padding"]], constant_values=-1)
    weights = np.asarray(kernel, np.float64).transpose(numbers.rhs_spec)
    outputs, inputs, *size = weights.shape
    rows = np.arange(int(np.prod(shape))).reshape(shape).transpose(numbers.out_spec)
    count, spatial = rows.shape[0], rows.shape[2:]
    # Of output channel o, input channels g I ... (g + 1) I - 1 with its group g.
    group = np.arange(outputs) // (outputs // groups)
    channels = group[:, None] * inputs + np.arange(inputs)[None]
    views, scales = [], []
    dilation, strides = params["rhs_dilation"], params["window_strides"]
    padded = np.moveaxis(index, (0, 1), (-2, -1))
    for place, view in _place(
        (*size, 1, 1), (*strides, 1, 1), (*dilation, 1, 1), padded, (*spatial, *index.shape[:2])
    ):
        own = np.moveaxis(view, (-2, -1), (0, 1))[:, channels]
        views.append(own)
        by = weights[(slice(None), slice(None), *place[: len(size)])]
        scales.append(np.broadcast_to(by.reshape(1, outputs, inputs, *(1,) * len(size)), own.shape))
    assert views[0].shape == (count, outputs, inputs, *spatial)
    places = np.broadcast_to(rows[None, :, :, None], (len(views), *views[0].shape))
    return linear.apply_entries(e, places, np.stack(views), np.stack(scales), shape)


def _window_sum(params: Any, values: list[Any], shape: Any) -> Expression:
    views = np.stack(list(windows(params, values[0].index, shape)))
    rows = np.arange(int(np.prod(shape))).reshape(shape)
    return linear.apply_entries(values[0], rows, views, np.ones(()), shape)


def _sum(params: Any, values: list[Any], shape: Any) -> Expression:
    grown = np.expand_dims(np.empty(shape), tuple(params["axes"])).shape
    rows = np.arange(int(np.prod(shape))).reshape(grown)
    return linear.apply_entries(values[0], rows, values[0].index, np.ones(()), shape)


def _add(*scales: float) -> Callable[..., Expression]:
    def add(params: Any, values: list[Any], shape: Any) -> Expression:
        return linear.add(scales, [as_expression(value) for value in values], shape)

    return add


def _broadcast_in(params: Any, index: np.ndarray) -> np.ndarray:
    grown = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], index.shape, strict=True):
        grown[axis] = size
    return np.broadcast_to(index.reshape(grown), params["shape"])


def _slice(params: Any, index: np.ndarray) -> np.ndarray:
    strides = params["strides"] or (1,) * index.ndim
    ends = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return index[tuple(slice(*end) for end in ends)]


def _concatenate(params: Any, values: list[Any], shape: Any) -> Expression:
    parts = [as_expression(value) for value in values]
    return linear.arrange(parts, lambda *index: np.concatenate(index, params["dimension"]))


def _stack(params: Any, values: list[Any], shape: Any) -> Expression:
    parts = [as_expression(value) for value in values]
    return linear.arrange(parts, lambda *index: np.stack(index, params["axis"]))


MOVES: Mapping[str, Callable[[Any, np.ndarray], np.ndarray]] = {
    "reshape": lambda p, i: i.reshape(p["new_sizes"]),
    "squeeze": lambda p, i: np.squeeze(i, tuple(p["dimensions"])),
    "expand_dims": lambda p, i: np.expand_dims(i, tuple(p["dimensions"])),
    "transpose": lambda p, i: i.transpose(p["permutation"]),
    "rev": lambda p, i: np.flip(i, tuple(p["dimensions"])),
    "broadcast_in_dim": _broadcast_in,
    "slice": _slice,
    "tile": lambda p, i: np.tile(i, p["reps"]),
}
SUMS: Mapping[str, Callable[[Any, list[Any], Any], Expression]] = {
    "add": _add(1.0, 1.0),
    "add_any": _add(1.0, 1.0),
    "sub": _add(1.0, -1.0),
    "neg": lambda p, values, shape: negative(values[0]),
    "mul": _product,
    "div": _quotient,
    "dot_general": _dot,
    "conv_general_dilated": _convolve,
    "reduce_sum": _sum,
    "reduce_window_sum": _window_sum,
    "pad": _pad,
    "concatenate": _concatenate,
    "stack": _stack,
}
