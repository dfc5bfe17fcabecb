"""What a traced function is made of."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.extend import core


def equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """Yield the equations of a traced function, and of all functions that it calls."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def computed_dtypes(jaxpr: core.Jaxpr) -> set[jnp.dtype]:
    """Return the floating-point types in which a traced function computes anything."""
    dtypes = {
        jnp.dtype(out.aval.dtype)
        for equation in equations(jaxpr)
        for out in equation.outvars
        if isinstance(out.aval, jax.core.ShapedArray)
        and not jnp.issubdtype(out.aval.dtype, jax.dtypes.extended)
    }
    return {dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)}
