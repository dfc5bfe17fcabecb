"""Arguments that callers hand over, checked and converted once: labels, indices, keys, counts."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def as_labels(y: Any, count: int, num_classes: int | None = None) -> np.ndarray:
    """Return labels as int32 [N].

    Args:
      y: Integers, one an input.
      count: Number of inputs, N.
      num_classes: Labels must be below it; None: only that none is negative is checked.

    Raises:
      ValueError: Other types or shapes (one-hot, a column), or labels that are no classes.
    """
    y = as_array(y, "Labels")
    if y.shape != (count,) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"Labels must be integers of shape ({count},), one an input; got {y.dtype} of shape "
            f"{y.shape}. {_advise_labels(y, count)}"
        )
    check_label_range(y, num_classes)
    found: np.ndarray = y.astype(np.int32)
    return found


def check_label_range(y: np.ndarray, num_classes: int | None) -> None:
    """Raise unless integer labels are classes, see ``as_labels``.

    Raises:
      ValueError: A label is negative, or not below ``num_classes``.
    """
    least, most = int(y.min()), int(y.max())
    if num_classes is None:
        if least < 0 or most > np.iinfo(np.int32).max:
            raise ValueError(f"Labels must be classes, counted from 0; found {least}..{most}.")
    elif least < 0 or most >= num_classes:
        raise ValueError(
            f"Labels must lie in 0..{num_classes - 1}, for the network gives {num_classes} logits; "
            f"found {least}..{most}. Classes are counted from 0."
        )


def _advise_labels(y: np.ndarray, count: int) -> str:
    if y.ndim == 2 and y.shape == (count, 1):
        return "A column becomes a vector by y[:, 0]."
    if y.ndim == 1 and len(y) != count:
        return f"There are {count} inputs and {len(y)} labels."
    if y.ndim == 1 and y.dtype == bool:
        return "Two classes as booleans become integers by astype(int)."
    if y.ndim == 1:
        return "Numbers that are whole become integers by astype(int); others are no classes."
    return "One-hot labels become integers by argmax(-1)."


def as_indices(indices: Any, count: int) -> np.ndarray:
    """Return the numbers that name images, int [N]; None counts from zero.

    Raises:
      ValueError: They are not N distinct integers from 0 on (below 2^32, as keys take them).
    """
    if indices is None:
        return np.arange(count)
    found = as_array(indices, "indices")
    if found.shape != (count,) or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"indices must be integers of shape ({count},), one an image; got {found.dtype} of "
            f"shape {found.shape}."
        )
    if int(found.min()) < 0 or int(found.max()) >= 2**32 or len(np.unique(found)) < count:
        raise ValueError(
            f"indices must be distinct and at least 0, for they choose an image's random numbers; "
            f"found {found.min()}..{found.max()} with {len(np.unique(found))} distinct of {count}."
        )
    return found


def check_key(rng_key: Any) -> None:
    """Raise unless a random key is one typed key.

    Raises:
      TypeError: It is an array of integers (an old-style key), a seed, or several keys.
    """
    dtype = getattr(rng_key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        what = f"an array of {dtype}" if dtype is not None else type(rng_key).__name__
        raise TypeError(
            f"rng_key must be a typed key, jax.random.key(seed), got {what}. An old-style key "
            "becomes one by jax.random.wrap_key_data."
        )
    if rng_key.shape:
        raise TypeError(f"rng_key must be one key, got an array of shape {rng_key.shape}.")


def check_count(name: str, value: Any, least: int) -> None:
    """Raise unless a setting is a whole number of at least ``least``.

    Raises:
      ValueError: The message names the setting and its value.
    """
    try:
        whole = operator.index(value)
    except TypeError:
        whole = least - 1
    if isinstance(value, bool | np.bool_) or whole < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}{_note(value)}.")


def _note(value: Any) -> str:
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return "" if is_whole else ": give a whole number"


def as_array(values: Any, what: str) -> np.ndarray:
    """Return numbers as an array.

    Raises:
      ValueError: They are no array of real numbers.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(
            f"{what} hold {np.ma.count_masked(values)} masked values, and a mask would be lost: "
            "leave these rows out, or fill them."
        )
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} cannot be made an array: {error}") from error
    if array.dtype.kind in "OUSMm" or array.dtype.kind == "c":
        raise ValueError(
            f"{what} must be an array of numbers, got {type(values).__name__} of {array.dtype}."
        )
    return array
