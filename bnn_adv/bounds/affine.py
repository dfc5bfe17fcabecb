r"""Affine primitives: what they compute in float64, and how far an interval goes through them.

A primitive is affine where its result is affine in those operands that depend on the input, the
others (weights, indices) being constants. Of such a primitive three things are needed:

    value       f(a)                 evaluated as it is; its transpose is JAX's own
    radius      |L| r                f's linear part with absolute weights, applied to radii
    magnitude   |L| m + |f(0)|       the same with absolute constants added: what rounding scales by

Constants either multiply (weights of ``dot_general``) or are added (the bias of ``add``). Absolute
constants give the magnitude, and added constants set to zero the radius; only where a primitive
subtracts does the absolute form differ from the form itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

Params = Mapping[str, Any]
Apply = Callable[..., Any]


class Affine(NamedTuple):
    """How a primitive that is affine is evaluated.

    apply: ``(params, *operands) -> result`` in float64; affine in the operands that depend on the
      input, however many, and with non-negative coefficients where constants are non-negative.
    is_product: Whether constant operands multiply those that depend on the input. They are added
      otherwise. Of a product exactly one operand may depend on the input.
    apply_absolute: The same function with the absolute value of every coefficient; None where
      non-negative constants make ``apply`` that.
    count_terms: ``(params, *operands) -> int``, the terms that one element of the result adds up,
      by which rounding grows: 0 where nothing is rounded.
    constants: Positions of operands that may not depend on the input.
    """

    apply: Apply
    is_product: bool = False
    apply_absolute: Apply | None = None
    count_terms: Callable[..., int] = lambda params, *operands: 0
    constants: tuple[int, ...] = ()

    @property
    def absolute(self) -> Apply:
        """Return the function with absolute coefficients."""
        return self.apply_absolute or self.apply


def _one(params: Params, *operands: Any) -> int:
    return 1


def _dot(params: Params, a: Any, b: Any) -> Any:
    return lax.dot_general(a, b, params["dimension_numbers"], precision=lax.Precision.HIGHEST)


def _count_dot(params: Params, a: Any, b: Any) -> int:
    (contracted, _), _ = params["dimension_numbers"]
    return 1 + math.prod(int(a.shape[axis]) for axis in contracted)


def _convolve(params: Params, a: Any, b: Any) -> Any:
    kept = (
        *("window_strides", "padding", "lhs_dilation", "rhs_dilation", "dimension_numbers"),
        *("feature_group_count", "batch_group_count"),
    )
    named = {name: params[name] for name in kept}
    return lax.conv_general_dilated(a, b, precision=lax.Precision.HIGHEST, **named)


def _count_convolve(params: Params, a: Any, b: Any) -> int:
    outputs = int(b.shape[params["dimension_numbers"].rhs_spec[0]])
    return 1 + math.prod(int(size) for size in b.shape) // outputs


def _count_sum(params: Params, a: Any) -> int:
    return math.prod(int(a.shape[axis]) for axis in params["axes"])


def _window_sum(params: Params, a: Any) -> Any:
    names = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
    size, strides, padding, base, window = (tuple(params[name]) for name in names)
    # A constant: with any other start JAX knows no derivative.
    zero = np.zeros((), a.dtype)
    return lax.reduce_window(a, zero, lax.add, size, strides, padding, base, window)


def _cumulate(params: Params, a: Any) -> Any:
    return lax.cumsum(a, axis=params["axis"], reverse=params["reverse"])


def _gather(params: Params, a: Any, indices: Any) -> Any:
    names = ("dimension_numbers", "slice_sizes", "indices_are_sorted", "unique_indices", "mode")
    named = {name: params[name] for name in names}
    fill = params.get("fill_value")
    # What lies outside is a NaN by default, for which nothing can be said.
    return lax.gather(a, indices, fill_value=fill, **named)


def _scatter_add(params: Params, a: Any, indices: Any, updates: Any) -> Any:
    names = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    named = {name: params[name] for name in names}
    return lax.scatter_add(a, indices, updates, **named)


def _count_updates(params: Params, a: Any, indices: Any, updates: Any) -> int:
    # All of them may go to one place.
    return 1 + math.prod(int(size) for size in updates.shape)


def _broadcast(params: Params, a: Any) -> Any:
    return lax.broadcast_in_dim(a, params["shape"], params["broadcast_dimensions"])


def _slice(params: Params, a: Any) -> Any:
    return lax.slice(a, params["start_indices"], params["limit_indices"], params["strides"])


def _dynamic_slice(params: Params, a: Any, *starts: Any) -> Any:
    return lax.dynamic_slice(a, starts, params["slice_sizes"])


def _same(params: Params, a: Any) -> Any:
    return a


def _sum_of(params: Params, *operands: Any) -> Any:
    return sum(operands[1:], operands[0])


AFFINE: dict[str, Affine] = {
    "add": Affine(_sum_of, count_terms=_one),
    "add_any": Affine(_sum_of, count_terms=_one),
    "sub": Affine(lambda p, a, b: a - b, apply_absolute=_sum_of, count_terms=_one),
    "neg": Affine(lambda p, a: -a, apply_absolute=_same),
    "mul": Affine(lambda p, a, b: a * b, is_product=True, count_terms=_one),
    # A compiler may multiply by the rounded inverse: twice the error of a division.
    "div": Affine(
        lambda p, a, b: a / b, is_product=True, count_terms=lambda p, a, b: 3, constants=(1,)
    ),
    "dot_general": Affine(_dot, is_product=True, count_terms=_count_dot),
    "conv_general_dilated": Affine(_convolve, is_product=True, count_terms=_count_convolve),
    "reduce_sum": Affine(lambda p, a: jnp.sum(a, axis=tuple(p["axes"])), count_terms=_count_sum),
    "reduce_window_sum": Affine(
        _window_sum, count_terms=lambda p, a: math.prod(p["window_dimensions"])
    ),
    "cumsum": Affine(_cumulate, count_terms=lambda p, a: a.shape[p["axis"]]),
    "reshape": Affine(lambda p, a: a.reshape(p["new_sizes"])),
    "squeeze": Affine(lambda p, a: lax.squeeze(a, p["dimensions"])),
    "expand_dims": Affine(lambda p, a: lax.expand_dims(a, p["dimensions"])),
    "transpose": Affine(lambda p, a: lax.transpose(a, p["permutation"])),
    "rev": Affine(lambda p, a: lax.rev(a, p["dimensions"])),
    "broadcast_in_dim": Affine(_broadcast),
    "slice": Affine(_slice),
    "dynamic_slice": Affine(_dynamic_slice, constants=tuple(range(1, 17))),
    "gather": Affine(_gather, constants=(1,)),
    "scatter-add": Affine(_scatter_add, count_terms=_count_updates, constants=(1,)),
    "concatenate": Affine(lambda p, *a: lax.concatenate(a, p["dimension"])),
    "stack": Affine(lambda p, *a: jnp.stack(a, axis=p["axis"])),
    "tile": Affine(lambda p, a: jnp.tile(a, p["reps"])),
    "pad": Affine(lambda p, a, value: lax.pad(a, value, p["padding_config"])),
    "select_n": Affine(lambda p, which, *a: lax.select_n(which, *a), constants=(0,)),
    "convert_element_type": Affine(_same),
    "copy": Affine(_same),
    "copy_p": Affine(_same),
    "stop_gradient": Affine(_same),
    "optimization_barrier": Affine(_same),
    "reduce_precision": Affine(_same),
}
"""By the primitive's name: those through which bounds pass exactly. ``register_affine`` adds."""


def register_affine(name: str, rule: Affine) -> None:
    """Let bounds pass through a primitive that is affine.

    Args:
      name: Of the primitive, as ``jax.make_jaxpr`` prints it.
      rule: How it is evaluated.

    Raises:
      ValueError: The name is taken.
    """
    if name in AFFINE:
        raise ValueError(f"The primitive {name!r} is registered already.")
    AFFINE[name] = rule


def as_wide(value: Any, dtype: Any = jnp.float64) -> Any:
    """Return a constant in float64, or of another dtype; what is no floating-point number stays."""
    is_float = jnp.issubdtype(jnp.result_type(value), jnp.floating)
    return jnp.asarray(value).astype(dtype) if is_float else value


def absolute_constant(value: Any) -> Any:
    """Return the absolute value of a floating-point constant; indices and truth values stay."""
    return jnp.abs(value) if jnp.issubdtype(jnp.result_type(value), jnp.floating) else value


def zero_constant(value: Any) -> Any:
    """Return zero in place of a floating-point constant; indices and truth values stay."""
    return jnp.zeros_like(value) if jnp.issubdtype(jnp.result_type(value), jnp.floating) else value
