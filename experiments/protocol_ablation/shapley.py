"""Share a difference out among its causes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def shapley_values(value: Mapping[frozenset[str], Any], names: Iterable[str]) -> dict[str, Any]:
    r"""Share ``value(all) - value(none)`` out among causes whose effects interact.

    Each cause gets what it adds, averaged over all orders in which the causes could be turned on
    (Shapley 1953, A value for n-person games):

        phi_i = sum_{A without i} |A|! (n - |A| - 1)! / n!  ( value(A + i) - value(A) )

    The values of all causes add up to the whole difference, and one that never changes anything
    gets zero.

    Args:
      value: The number of every subset of the causes; or an array, of which each entry is shared
        out by itself: ``metrics.mean_change`` then gives a share its interval over images.
      names: The causes, n.

    Returns:
      phi by name, in units of ``value`` and of its shape.

    Raises:
      ValueError: A subset has no value; the message names it.
    """
    names = sorted(names)
    size = len(names)
    subsets = [
        frozenset(name for bit, name in enumerate(names) if number >> bit & 1)
        for number in range(2**size)
    ]
    missing = [subset for subset in subsets if subset not in value]
    if missing:
        raise ValueError(
            f"Shapley values of {size} causes need all {2**size} subsets, {len(missing)} are "
            f"missing: {sorted(missing[0]) or 'the empty one'} among them."
        )
    weights = [
        math.factorial(k) * math.factorial(size - k - 1) / math.factorial(size) for k in range(size)
    ]
    return {
        name: np.sum(
            [
                weights[len(without)] * (np.asarray(value[without | {name}]) - value[without])
                for without in subsets
                if name not in without
            ],
            axis=0,
        )
        for name in names
    }
