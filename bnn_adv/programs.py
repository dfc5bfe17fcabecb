"""Compiled programs, and what keeps their number bounded.

JAX keeps every program that it has compiled, and with it all that the program was compiled for: the
function that turns parameters into logits, what that closes over, and draws that stay on disk. A
process that evaluates one network after the other would fill its memory with programs that nobody
runs again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import jax

MOST = 8
"""Networks whose programs are kept; one more, and those of all are dropped."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

_compiled: list[Any] = []
_noted: dict[int, Any] = {}


def jit(fn: Callable[..., Any], **options: Any) -> Any:
    """Return ``jax.jit(fn, **options)``, whose programs ``note`` may drop."""
    compiled = jax.jit(fn, **options)
    _compiled.append(compiled)
    return compiled


def note(apply_fn: Any, samples: Any = None) -> None:
    """Say, outside of compiled programs, whose programs are about to run.

    Args:
      apply_fn: The function of a network.
      samples: Its draws, which count where they are a static part of programs.
    """
    is_static = samples is not None and not jax.tree.leaves(samples)
    for one in (apply_fn, samples) if is_static else (apply_fn,):
        _note(one)


def _note(one: Any) -> None:
    number = id(one)
    if number in _noted and _noted[number]() is one:
        return
    if len(_noted) >= MOST:
        drop()
    try:
        _noted[number] = weakref.ref(one)
    except TypeError:
        _noted[number] = lambda: one


def drop() -> None:
    """Drop the programs of all networks; what runs again is compiled again."""
    _noted.clear()
    for compiled in _compiled:
        compiled.clear_cache()


def sized_by(compiled: Any) -> Callable[[_Function], _Function]:
    """Let a function that prepares a compiled one's arguments say how many programs that has."""

    def decorate(fn: _Function) -> _Function:
        fn.__dict__["_cache_size"] = compiled._cache_size
        return fn

    return decorate
