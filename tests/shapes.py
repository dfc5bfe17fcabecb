"""The checker that jaxtyping applies to every function while the tests run."""

from __future__ import annotations

import inspect
import typing

import beartype
from jaxtyping import AbstractArray


def check_arrays(function):
    """Return a function that checks the arrays among its arguments, by beartype, and nothing else.

    Whatever else is of the wrong type, the library says so in its own words, which tests read.
    """
    hints = function.__annotations__
    function.__annotations__ = {n: h for n, h in hints.items() if _is_array(h)}
    return beartype.beartype(function) if function.__annotations__ else function


def _is_array(hint):
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(map(_is_array, typing.get_args(hint)))
