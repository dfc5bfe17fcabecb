"""Map and reduce over the draws of a posterior, a chunk at a time.

Memory holds one chunk's results, whatever the number of draws. The draws may lie on one device, be
split over the devices of a mesh (``shards``), or stay on disk (``DiskDraws``); results are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bnn_adv.compute.disk import DiskDraws

_IDENTITY = {"sum": 0.0, "log_sum_exp": -jnp.inf, "min": jnp.inf}
_REDUCE: dict[str, Callable[..., jax.Array]] = {
    "sum": jnp.sum,
    "log_sum_exp": jax.nn.logsumexp,
    "min": jnp.min,
}
_COMBINE: dict[str, Callable[..., jax.Array]] = {
    "sum": jnp.add,
    "log_sum_exp": jnp.logaddexp,
    "min": jnp.minimum,
}


def count_draws(xs: Any) -> int:
    """Return the length of the leading axis that all leaves of ``xs`` share."""
    first = jax.tree.leaves(xs, is_leaf=_is_on_disk)[0]
    found: int = first.num_samples if _is_on_disk(first) else first.shape[0]
    return found


def fold_samples(
    fn: Callable[[Any], Any], xs: Any, how: Any, *, chunk: int, shards: int = 1
) -> Any:
    """Reduce ``fn`` over the leading axis of ``xs`` without holding more than a chunk of results.

    The axis is cut into equal chunks; where that is not possible, the last one starts early and
    what it repeats is left out, so that one program serves every chunk.

    Args:
      fn: Maps one element (a draw, with what belongs to it) to a pytree of arrays.
      xs: Pytree whose leaves have a leading axis of S elements, or ``DiskDraws``.
      how: Pytree whose structure is a prefix of ``fn``'s result, with ``"sum"``,
        ``"log_sum_exp"`` or ``"min"`` at its leaves.
      chunk: Elements that are mapped at once with ``vmap``, on each shard.
      shards: Parts into which the axis is split over devices; each is folded by itself, and one
        reduction over devices ends the fold.

    Returns:
      ``fn``'s result, reduced.
    """
    if shards == 1:
        return _fold(fn, xs, how, chunk)
    parts = jax.vmap(lambda own: _fold(fn, own, how, chunk))(_split(xs, shards))
    return _reduce(how, parts)


def map_samples(fn: Callable[[Any], Any], xs: Any, *, chunk: int, shards: int = 1) -> Any:
    """Map ``fn`` over the leading axis of ``xs``, a chunk at a time.

    Args:
      fn: Maps one element to a pytree of arrays.
      xs: As for ``fold_samples``.
      chunk: Elements at once on each shard.
      shards: Parts into which the axis is split over devices.

    Returns:
      ``fn``'s results, stacked: [S, ...].
    """
    if shards == 1:
        return _map(fn, xs, chunk)
    parts = jax.vmap(lambda own: _map(fn, own, chunk))(_split(xs, shards))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), parts)


def fold_and_map(
    fn: Callable[[Any], tuple[Any, Any]], xs: Any, how: Any, *, chunk: int
) -> tuple[Any, Any]:
    """Reduce the first of ``fn``'s two results and stack the second, in one pass, on one device.

    Args:
      fn: Maps one element to (what is reduced, what is kept), both pytrees of arrays.
      xs: As for ``fold_samples``.
      how: As for ``fold_samples``, of what is reduced.
      chunk: Elements at once.

    Returns:
      What ``fold_samples`` and ``map_samples`` would return, to the last bit.
    """
    size, count, chunk = _balance(count_draws(xs), chunk)

    def one_chunk(index: jax.Array) -> tuple[Any, Any]:
        start = jnp.minimum(index * chunk, size - chunk)
        values, kept = jax.vmap(fn)(_slice(xs, start, chunk))
        return _reduce(how, _leave_out_repeats(how, values, index, size, chunk)), kept

    first = jnp.zeros((), jnp.int32)
    if count == 1:
        return one_chunk(first)
    shapes, of_kept = jax.eval_shape(one_chunk, first)
    zeros = jax.tree.map(lambda s: jnp.zeros((size, *s.shape[1:]), s.dtype), of_kept)

    def body(carry: Any, index: jax.Array) -> tuple[Any, None]:
        values, kept = one_chunk(index)
        start = jnp.minimum(index * chunk, size - chunk)
        put = jax.lax.dynamic_update_slice_in_dim
        stacked = jax.tree.map(lambda a, v: put(a, v, start, 0), carry[1], kept)
        return (_combine(how, carry[0], values), stacked), None

    found: tuple[Any, Any] = jax.lax.scan(body, (_identity(how, shapes), zeros), jnp.arange(count))[
        0
    ]
    return found


def _fold(fn: Callable[[Any], Any], xs: Any, how: Any, chunk: int) -> Any:
    return fold_and_map(lambda element: (fn(element), ()), xs, how, chunk=chunk)[0]


def _identity(how: Any, shapes: Any) -> Any:
    return _broadcast(lambda name, s: jnp.full(s.shape, _IDENTITY[name], s.dtype), how, shapes)


def _leave_out_repeats(how: Any, values: Any, index: jax.Array, size: int, chunk: int) -> Any:
    """Return a chunk's results, of what the last one repeats those that change nothing."""
    if size % chunk == 0:
        return values
    is_new = jnp.minimum(index * chunk, size - chunk) + jnp.arange(chunk) >= index * chunk
    return _broadcast(
        lambda name, v: jnp.where(is_new.reshape(-1, *(1,) * (v.ndim - 1)), v, _IDENTITY[name]),
        how,
        values,
    )


def _map(fn: Callable[[Any], Any], xs: Any, chunk: int) -> Any:
    return fold_and_map(lambda element: ((), fn(element)), xs, (), chunk=chunk)[1]


def _balance(size: int, chunk: int) -> tuple[int, int, int]:
    """Return size, number of chunks and their length: as few as asked for, and as equal."""
    count = -(-size // chunk)
    return size, count, -(-size // count)


def _slice(xs: Any, start: jax.Array, size: int) -> Any:
    def one(leaf: Any) -> Any:
        if _is_on_disk(leaf):
            return leaf.read(start, size)
        # A slice in place: reshaping into chunks would copy all draws.
        return jax.lax.dynamic_slice_in_dim(leaf, start, size)

    return jax.tree.map(one, xs, is_leaf=_is_on_disk)


def _split(xs: Any, shards: int) -> Any:
    if any(_is_on_disk(leaf) for leaf in jax.tree.leaves(xs, is_leaf=_is_on_disk)):
        raise ValueError("Draws on disk cannot be split over a mesh: load them, or use one device.")
    return jax.tree.map(lambda a: a.reshape(shards, -1, *a.shape[1:]), xs)


def _is_on_disk(node: Any) -> bool:
    return isinstance(node, DiskDraws)


def _reduce(how: Any, values: Any) -> Any:
    def one(name: str, value: jax.Array) -> jax.Array:
        return _REDUCE[name](value, axis=0)

    return _broadcast(one, how, values)


def _combine(how: Any, left: Any, right: Any) -> Any:
    def one(name: str, a: jax.Array, b: jax.Array) -> jax.Array:
        return _COMBINE[name](a, b)

    return _broadcast(one, how, left, right)


def _broadcast(fn: Callable[..., Any], how: Any, *trees: Any) -> Any:
    """Apply ``fn(name, leaves...)`` with the names of ``how`` spread over its prefixes."""

    def subtree(name: str, *parts: Any) -> Any:
        return jax.tree.map(lambda *leaves: fn(name, *leaves), *parts)

    return jax.tree.map(subtree, how, *trees)
