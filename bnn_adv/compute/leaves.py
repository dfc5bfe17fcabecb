"""Parameter leaves as plain NumPy arrays and back: typed random keys, dtypes that files lose.

A leaf of a draw need not be an array of numbers that NumPy knows. Dropout that stays on has a typed
key among its parameters, which does not convert; networks in half precision have bfloat16, which
NumPy's files forget.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.compute import parallel

_KEY = "key:"


def is_key(leaf: Any) -> bool:
    """Return whether a leaf (array, tracer or ``ShapeDtypeStruct``) holds typed random keys."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def has_key(params: Any) -> bool:
    """Return whether any leaf of a pytree holds typed random keys."""
    return any(is_key(leaf) for leaf in jax.tree.leaves(params))


def to_plain(leaf: Any) -> np.ndarray:
    """Return a leaf as a NumPy array: of the dtype that JAX computes in; keys as their data.

    Without ``jax_enable_x64``, float64 becomes float32 as it would on its way into a program. A
    memory-mapped array of the right dtype stays one.
    """
    plain: np.ndarray = parallel.to_host(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    dtype = computed_dtype(plain.dtype)
    return plain if dtype == plain.dtype else plain.astype(dtype)


def from_plain(plain: Any, like: Any) -> Any:
    """Return a leaf of the kind of ``like`` (array or ``ShapeDtypeStruct``) from its plain form."""
    return jax.random.wrap_key_data(plain, impl=key_impl(like)) if is_key(like) else plain


def plain_shape(like: Any) -> Any:
    """Return shape and dtype of a leaf's plain form."""
    if is_key(like):
        like = jax.ShapeDtypeStruct(like.shape, like.dtype)
        return jax.eval_shape(jax.random.key_data, like)
    return jax.ShapeDtypeStruct(np.shape(like), computed_dtype(like.dtype))


def computed_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype in which JAX computes with numbers of a dtype, in native byte order."""
    dtype = np.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.number):
        found: np.dtype[Any] = dtype
        return found
    if dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype.newbyteorder("=")))


def name_dtype(leaf: Any) -> str:
    """Return the name of a leaf's dtype as JAX computes in it, keys as ``key:`` and their kind."""
    return f"{_KEY}{key_impl(leaf)}" if is_key(leaf) else computed_dtype(leaf.dtype).name


def key_impl(leaf: Any) -> str:
    """Return the name of a key's kind of random number generator, also of a shape's."""
    if isinstance(leaf, jax.Array):
        return str(jax.random.key_impl(leaf))
    known = ("threefry2x32", "rbg", "unsafe_rbg")
    kinds = {jax.eval_shape(functools.partial(jax.random.key, 0, impl=n)).dtype: n for n in known}
    return kinds[leaf.dtype]


def lost_name(leaf: Any) -> str | None:
    """Return the name of a dtype that must be stored beside an array, for NumPy's files lose it."""
    if is_key(leaf):
        return name_dtype(leaf)
    dtype = np.asarray(leaf).dtype
    return dtype.name if _is_foreign(dtype) else None


def storable(leaf: Any) -> np.ndarray:
    """Return a leaf in a form that NumPy's files keep: keys and bfloat16 as integers."""
    array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    return array.view(f"u{array.dtype.itemsize}") if _is_foreign(array.dtype) else array


def restored(array: Any, name: str | None, *, wrap: bool = True) -> Any:
    """Return the leaf that ``storable`` was given.

    Args:
      array: What it returned.
      name: What ``lost_name`` said of the leaf.
      wrap: Make typed keys of keys' data; False leaves the data.
    """
    if name is None:
        return array
    if name.startswith(_KEY):
        return jax.random.wrap_key_data(array, impl=name.removeprefix(_KEY)) if wrap else array
    return array.view(np.dtype(name))


def _is_foreign(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "V" and dtype.names is None and jnp.issubdtype(dtype, jnp.number)
