"""Check the shapes in the package's signatures while the tests run."""

from __future__ import annotations

import functools
import inspect
import re
import typing

import beartype
import jaxtyping

_PACKAGES = ("networks", "posteriors", "attacks", "evaluation")


def install():
    """Check shapes in every signature of the package; to be called before it is imported."""
    everything = jaxtyping.jaxtyped

    def jaxtyped(fn=None, *, typechecker):
        """Leave alone what names no shape: decorating hundreds of functions takes seconds."""
        if fn is None:
            return functools.partial(jaxtyped, typechecker=typechecker)
        return everything(fn, typechecker=typechecker) if _names_shapes(fn) else fn

    jaxtyping.jaxtyped = jaxtyped
    packages = [f"bnn_adv.{name}" for name in _PACKAGES]
    jaxtyping.install_import_hook(packages, f"{__name__}.check_arrays")


def check_arrays(function):
    """Return a function that checks the arrays among its arguments, by beartype, and nothing else.

    Whatever else is of the wrong type, the library says so in its own words, which tests read.
    """
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if _is_array(hint)}
    return beartype.beartype(function) if function.__annotations__ else function


def _names_shapes(fn):
    if inspect.isclass(fn):
        # JAX rebuilds records around placeholders: their fields are not checked.
        return False
    function = fn.fget if isinstance(fn, property) else getattr(fn, "__func__", fn)
    words = re.findall(r"\w+", " ".join(map(str, function.__annotations__.values())))
    named = [function.__globals__.get(word) for word in words]
    return any(
        _is_array(each) or (inspect.isclass(each) and issubclass(each, jaxtyping.AbstractDtype))
        for each in named
    )


def _is_array(hint):
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_is_array, typing.get_args(hint)))
