"""Compiled programs, and what keeps their number bounded.

JAX keeps every program that it has compiled, and with it all that the program was compiled for: the
function that turns parameters into logits, and what that closes over. A process that evaluates one
network after the other would fill its memory with programs that nobody runs again.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import jax

MOST = 8
"""Networks whose programs are kept; one more, and those of all are dropped."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

_compiled: list[Compiled] = []
_noted: dict[int, Callable[[], Any]] = {}


class Compiled:
    """Call ``jax.jit(fn, **options)``, all of whose programs and traces ``drop`` can forget."""

    def __init__(self, fn: Callable[..., Any], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, fn)
        self._fn, self._options = fn, options
        self.renew()

    def renew(self) -> None:
        """Forget all programs and traces."""

        # JAX keeps its traces as long as the function that it traced: clear_cache leaves them.
        @functools.wraps(self._fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._fn(*args, **kwargs)

        self._jitted = jax.jit(call, **self._options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns."""
        return self._jitted(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Return what ``jax.jit`` offers besides: ``lower``, ``eval_shape`` and so on."""
        if name == "_jitted":
            raise AttributeError(name)
        return getattr(self._jitted, name)


def jit(fn: Callable[..., Any], **options: Any) -> Any:
    """Return ``jax.jit(fn, **options)``, whose programs ``note`` may drop."""
    compiled = Compiled(fn, options)
    _compiled.append(compiled)
    return compiled


def note(apply_fn: Any) -> None:
    """Say, outside of compiled programs, whose programs are about to run.

    Args:
      apply_fn: The function of a network.
    """
    number = id(apply_fn)
    if number in _noted and _noted[number]() is apply_fn:
        return
    if len(_noted) >= MOST:
        drop()
    try:
        _noted[number] = weakref.ref(apply_fn)
    except TypeError:
        _noted[number] = lambda: apply_fn


def drop() -> None:
    """Drop the programs of all networks; what runs again is compiled again."""
    _noted.clear()
    for compiled in _compiled:
        compiled.renew()
    # One more place where JAX (0.10) remembers structures of arguments, and their functions. It has
    # no public name but for clear_caches, which would drop the caller's own programs as well.
    with contextlib.suppress(ImportError, AttributeError):
        from jax._src import pjit

        pjit._process_in_axis_resources.cache_clear()


def sized_by(compiled: Any) -> Callable[[_Function], _Function]:
    """Let a function that prepares a compiled one's arguments say how many programs that has."""

    def decorate(fn: _Function) -> _Function:
        # Asked anew each time: ``drop`` puts another function in the place of the old one.
        fn.__dict__["_cache_size"] = lambda: compiled._cache_size()
        return fn

    return decorate
