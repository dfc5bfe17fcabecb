r"""The referee's arithmetic of affine functions: sparse matrices in NumPy, float64.

What a network computes between two activations is affine in *atoms*, which are the input and the
results of activations: ``e = c + sum_a M_a z_a``. Primitives act on such expressions. Those that
only move numbers about act on an array of row numbers instead; the others are matrices themselves.

Beside every M stands ``|L_n| ... |L_1|``, the product of the absolute matrices that it was made of,
and the largest number of roundings that any term went through. Whoever computes ``e`` with unit
roundoff u, in any order of sums, errs by at most ``gamma_n (sum_a |..| |z_a| + |c|)`` with
``gamma_n = n u / (1 - n u)`` (Higham 2002, lemma 3.3), the referee itself included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

Matrix = Any
"""``scipy.sparse.csr_array``, or a NumPy array where most entries are not zero."""

Index = np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Expression:
    """``constant + sum_a matrices[a] z_a``, flat, of an array of some shape.

    Args:
      shape: Of the array.
      constant: What does not depend on atoms, [n].
      matrices: By the atom's number: coefficients, [n, size of the atom].
      constant_size: Absolute constants, nothing cancelled, [n].
      sizes: Absolute coefficients, nothing cancelled.
      terms: Roundings that any term went through, at most.
      multiple_of: Another expression and what this one is times it, element by element.
    """

    shape: tuple[int, ...]
    constant: np.ndarray
    matrices: Mapping[int, Matrix]
    constant_size: np.ndarray
    sizes: Mapping[int, Matrix]
    terms: int = 0
    multiple_of: tuple[Expression, np.ndarray] | None = None

    @property
    def index(self) -> Index:
        """Numbers of the rows, in the array's shape."""
        return np.arange(len(self.constant)).reshape(self.shape)


def densify(e: Expression) -> Expression:
    """Return an expression whose matrices are NumPy arrays where a quarter is not zero."""

    def dense(matrix: Matrix) -> Matrix:
        is_full = matrix.nnz > matrix.shape[0] * matrix.shape[1] / 4
        return matrix.toarray() if is_full else matrix

    return dataclasses.replace(
        e,
        matrices={a: dense(m) for a, m in e.matrices.items()},
        sizes={a: dense(m) for a, m in e.sizes.items()},
    )


def atom(number: int, shape: tuple[int, ...]) -> Expression:
    """Return an atom itself."""
    size = int(np.prod(shape))
    one = {number: sparse.eye_array(size, format="csr")}
    return Expression(shape, np.zeros(size), one, np.zeros(size), one)


def constant(value: Any) -> Expression:
    """Return what depends on no atom."""
    value = np.asarray(value, np.float64)
    return Expression(value.shape, value.reshape(-1), {}, np.abs(value).reshape(-1), {})


def pick(e: Expression, index: Index, fill: float = 0.0) -> Expression:
    """Return elements by their numbers, in the shape of ``index``; ``fill`` where it is -1."""
    flat = index.reshape(-1)
    kept = flat >= 0

    def rows(matrix: Matrix) -> Matrix:
        if kept.all():
            return matrix[flat]
        places = np.flatnonzero(kept)
        shape = (len(flat), len(places))
        back = sparse.csr_array((np.ones(len(places)), (places, np.arange(len(places)))), shape)
        return back @ matrix[flat[kept]]

    at = np.where(kept, flat, 0)
    return Expression(
        index.shape,
        np.where(kept, e.constant[at], fill),
        {a: rows(m) for a, m in e.matrices.items()},
        np.where(kept, e.constant_size[at], abs(fill)),
        {a: rows(m) for a, m in e.sizes.items()},
        e.terms,
    )


def stack(parts: Sequence[Expression]) -> Expression:
    """Return several arrays behind each other, flat."""

    def join(kind: str) -> dict[int, Matrix]:
        atoms = {a: m.shape[1] for part in parts for a, m in getattr(part, kind).items()}
        return {
            a: sparse.vstack(
                [getattr(p, kind).get(a, sparse.csr_array((len(p.constant), size))) for p in parts],
                format="csr",
            )
            for a, size in atoms.items()
        }

    values = np.concatenate([part.constant for part in parts])
    return Expression(
        values.shape,
        values,
        join("matrices"),
        np.concatenate([part.constant_size for part in parts]),
        join("sizes"),
        max(part.terms for part in parts),
    )


def arrange(parts: Sequence[Expression], place: Callable[..., Index]) -> Expression:
    """Return one array of the elements of several, by what ``place`` makes of their numbers."""
    starts = np.cumsum([0, *(len(part.constant) for part in parts[:-1])])
    numbers = [part.index + start for part, start in zip(parts, starts, strict=True)]
    return pick(stack(parts), place(*numbers))


def broadcast(e: Expression, shape: tuple[int, ...]) -> Expression:
    """Return an array in a larger shape, as NumPy broadcasts."""
    return e if e.shape == shape else pick(e, np.broadcast_to(e.index, shape))


def add(scales: Sequence[Any], parts: Sequence[Expression], shape: tuple[int, ...]) -> Expression:
    """Return the sum of arrays, each times a constant that broadcasts to ``shape``."""
    scaled = [
        times(broadcast(part, shape), np.broadcast_to(scale, shape), terms=0)
        for scale, part in zip(scales, parts, strict=True)
    ]

    is_plain = all(np.all(np.abs(scale) == 1) for scale in scales)

    def total(kind: str) -> dict[int, Matrix]:
        found: dict[int, Matrix] = {}
        for part in scaled:
            for a, m in getattr(part, kind).items():
                found[a] = found[a] + m if a in found else m
        return found

    return Expression(
        shape,
        np.sum([part.constant for part in scaled], axis=0),
        total("matrices"),
        np.sum([part.constant_size for part in scaled], axis=0),
        total("sizes"),
        max(part.terms for part in scaled) + len(scaled) - is_plain,
    )


def times(e: Expression, factor: np.ndarray, *, terms: int = 1) -> Expression:
    """Return an array times a constant of its shape, element by element."""
    flat = np.asarray(factor, np.float64).reshape(-1)
    if (flat == 1).all():
        return e
    by, size_by = (sparse.diags_array(v, format="csr") for v in (flat, np.abs(flat)))
    return Expression(
        e.shape,
        flat * e.constant,
        {a: by @ m for a, m in e.matrices.items()},
        np.abs(flat) * e.constant_size,
        {a: size_by @ m for a, m in e.sizes.items()},
        e.terms + terms,
        (e, flat),
    )


def apply_entries(
    e: Expression, rows: Index, columns: Index, values: np.ndarray, shape: tuple[int, ...]
) -> Expression:
    """Return a matrix, given by its entries, times an array; columns of -1 hold nothing.

    Args:
      e: The array.
      rows: Where an entry adds to, any shape.
      columns: What it multiplies.
      values: By how much.
      shape: Of the result.
    """
    rows, columns, values = np.broadcast_arrays(rows, columns, np.asarray(values, np.float64))
    kept = columns >= 0
    place = (rows[kept], columns[kept])
    size = (int(np.prod(shape)), len(e.constant))
    by = sparse.csr_array((values[kept], place), size)
    size_by = sparse.csr_array((np.abs(values[kept]), place), size)
    most = int(np.bincount(rows[kept], minlength=1).max(initial=0))
    return Expression(
        shape,
        by @ e.constant,
        {a: by @ m for a, m in e.matrices.items()},
        size_by @ e.constant_size,
        {a: size_by @ m for a, m in e.sizes.items()},
        e.terms + most,
    )


def dot(e: Expression, other: np.ndarray, *, is_left: bool, dimensions: Any) -> Expression:
    """Return ``dot_general`` of an array with a constant; ``is_left`` where the array is first."""
    (left_sum, right_sum), (left_batch, right_batch) = dimensions
    left, right = (e.index, other) if is_left else (other, e.index)

    def spread(array: np.ndarray, batch: Any, summed: Any) -> tuple[np.ndarray, tuple[int, ...]]:
        free = [i for i in range(array.ndim) if i not in (*batch, *summed)]
        moved = array.transpose(*batch, *free, *summed)
        return moved, tuple(array.shape[i] for i in free)

    left, left_free = spread(left, left_batch, left_sum)
    right, right_free = spread(right, right_batch, right_sum)
    batch, summed = left.shape[: len(left_batch)], left.shape[left.ndim - len(left_sum) :]
    ones = (1,) * len(left_free), (1,) * len(right_free)
    left = left.reshape(*batch, *left_free, *ones[1], *summed)
    right = right.reshape(*batch, *ones[0], *right_free, *summed)
    shape = (*batch, *left_free, *right_free)
    rows = np.arange(int(np.prod(shape))).reshape(*shape, *(1,) * len(summed))
    columns, values = (left, right) if is_left else (right, left)
    return apply_entries(e, rows, columns, values, shape)
