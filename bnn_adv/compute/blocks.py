"""Cut a batch of inputs into blocks whose intermediate values fit into a fast memory.

A network's intermediate values for a hundred images exceed a CPU's caches, and those of a full
data set any memory. Results do not depend on the blocks but for the order of float32 sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.compute.leaves import is_key
from bnn_adv.compute.types import AnyImages, ApplyFn, Params

_SMALLEST = 24
"""Inputs that count as fitting, whatever their size: products of few rows are slow. A block that
divides the batch may have half as many."""


def budget() -> int:
    """Return how many bytes of intermediate values a block may have on the default backend."""
    # CPU: the estimate is several times what is alive at once, which then fits into second- and
    # third-level caches; smaller blocks are slower on two cores. Accelerators: large enough to be
    # busy, far below memory.
    return 3 * 2**23 if jax.default_backend() == "cpu" else 2**31


def bytes_per_input(apply_fn: ApplyFn, params: Params, x: AnyImages) -> int:
    """Return the size of all intermediate values of one input, forward.

    From the traced program, before fusion: an upper estimate.

    Args:
      apply_fn: The network's function.
      params: One draw (arrays, tracers or ``ShapeDtypeStruct``).
      x: Inputs, [B, ...]; their values do not matter.
    """

    def total(batch: int) -> int:
        inputs = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
        return _bytes(jax.make_jaxpr(apply_fn)(params, inputs).jaxpr)

    # The difference leaves out what depends on the weights alone.
    return max(total(2) - total(1), 1)


def choose_chunk(apply_fn: ApplyFn, params: Params, x: AnyImages, most: int) -> int:
    """Return how many networks to evaluate at once under ``vmap``.

    One on a CPU, where XLA's products of batches of matrices are up to twice as slow as plain
    ones. On an accelerator as many as fill it.

    Args:
      apply_fn: The network's function.
      params: One draw, as for ``bytes_per_input``.
      x: Inputs that are evaluated at once, [B, ...]; their values do not matter.
      most: Networks in all.
    """
    if jax.default_backend() == "cpu":
        return 1
    each = bytes_per_input(apply_fn, params, x)
    # Typed keys have no size that counts.
    weights = sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(params)
        if not is_key(leaf)
    )
    size = weights + each * choose_block(each, x.shape[0])
    return int(np.clip(budget() // size, 1, most))


def choose_block(bytes_each: int, batch: int, *, most_bytes: int | None = None) -> int:
    """Return how many inputs to take at once: all of them where they fit.

    Args:
      bytes_each: From ``bytes_per_input``.
      batch: Inputs in all, B.
      most_bytes: See ``budget``, the default.

    Returns:
      1..B; B divided by a whole number where that loses little.
    """
    most = max((budget() if most_bytes is None else most_bytes) // bytes_each, _SMALLEST)
    if most >= batch:
        return batch
    divisors = [size for size in range(most, most // 2, -1) if batch % size == 0]
    return divisors[0] if divisors else most


def map_blocks(fn: Callable[[Any], Any], xs: Any, block: int) -> Any:
    """Map ``fn`` over blocks of the leading axis, one after the other.

    Args:
      fn: Maps leaves [b, ...] to leaves [b, ...], row by row.
      xs: Pytree of leaves [B, ...].
      block: Rows at once.

    Returns:
      As ``fn`` of all rows, [B, ...].
    """
    batch = jax.tree.leaves(xs)[0].shape[0]
    if block >= batch:
        return fn(xs)
    count, take, rest = _deal(xs, block)
    results = jax.lax.map(lambda index: fn(take(index)), jnp.arange(count))
    # Rows were dealt out like cards, see _deal.
    whole = jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1).reshape(-1, *a.shape[2:]), results)
    if rest is None:
        return whole
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), whole, fn(rest))


def sum_blocks(fn: Callable[[Any], Any], xs: Any, block: int) -> Any:
    """Add up ``fn`` over blocks of the leading axis.

    Args:
      fn: Maps leaves [b, ...] to a pytree of arrays, additive over rows.
      xs: Pytree of leaves [B, ...].
      block: Rows at once.
    """
    batch = jax.tree.leaves(xs)[0].shape[0]
    if block >= batch:
        return fn(xs)
    count, take, rest = _deal(xs, block)
    if rest is None:
        shapes = jax.eval_shape(lambda: fn(take(jnp.zeros((), jnp.int32))))
        start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    else:
        start = fn(rest)

    def body(carry: Any, index: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, carry, fn(take(index))), None

    return jax.lax.scan(body, start, jnp.arange(count))[0]


def _deal(xs: Any, block: int) -> tuple[int, Callable[[jax.Array], Any], Any]:
    """Return the number of blocks, a function that takes one, and the rows left over, or None.

    Row i goes to block i % n: rows that are split over devices in order then stay where they are,
    for every device has its share of every block. Only one block at a time is copied.
    """
    batch = jax.tree.leaves(xs)[0].shape[0]
    count = batch // block
    whole = count * block
    dealt = jax.tree.map(lambda a: a[:whole].reshape(block, count, *a.shape[1:]), xs)

    def take(index: jax.Array) -> Any:
        return jax.tree.map(
            lambda a: jax.lax.dynamic_index_in_dim(a, index, axis=1, keepdims=False), dealt
        )

    return count, take, None if whole == batch else jax.tree.map(lambda a: a[whole:], xs)


def _bytes(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inner = [value for value in equation.params.values() if hasattr(value, "jaxpr")]
        if inner:
            total += sum(_bytes(closed.jaxpr) for closed in inner)
            continue
        for variable in equation.outvars:
            shape, dtype = variable.aval.shape, variable.aval.dtype
            if not jnp.issubdtype(dtype, jax.dtypes.extended):
                total += math.prod(shape) * np.dtype(dtype).itemsize
    return total
