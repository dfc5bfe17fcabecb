"""How hard the compiler works: little where programs run for less time than it takes to make them.

The first call of an evaluation makes dozens of programs. XLA optimises each of them for half a
second on a CPU, whether it runs for hours or for a millisecond. With low effort that is a fifth;
what it makes is up to a few times slower where it does not call a library (products of small
matrices, element by element), and rounds otherwise in the last digit: products and sums are not
contracted into one operation.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state

MOST_BYTES = 2**31
"""Bytes of intermediate values, over all passes, up to which work is brief: a second or two."""

_OPTIONS: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    # The older emitters compile in a third of the time, and small programs are not worth splitting.
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}

# Of the calling code alone: another thread, and whatever runs after, is compiled as ever. The value
# is the level of tracing at which the effort was lowered; a program within another one is compiled
# with that one.
_level: ContextVar[Any] = ContextVar("level", default=None)


@contextlib.contextmanager
def lower(whether: bool = True) -> Iterator[None]:
    """Compile with low effort what ``programs.jit`` compiles within, and collect no cycles.

    Args:
      whether: False changes nothing.
    """
    if not whether:
        yield
        return
    token = _level.set(get_opaque_trace_state())
    try:
        with _without_collector(), _without_locations():
            yield
    finally:
        _level.reset(token)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Leave cycles to be collected later: tracing makes many objects, and looks at all of them.

    What runs is brief, and so is what it leaves; a twentieth of a first call goes there otherwise.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _without_locations() -> contextlib.AbstractContextManager[Any]:
    """Leave source lines out of programs of this thread: they are of no use in brief ones.

    Finding them takes a twentieth of a first call. Tracebacks of Python do not need them.
    """
    # The public setting is that of all threads, and has no way back that is safe among several.
    with contextlib.suppress(ImportError, AttributeError, TypeError):
        from jax._src.config import traceback_in_locations_limit

        found: contextlib.AbstractContextManager[Any] = traceback_in_locations_limit(0)
        return found
    return contextlib.nullcontext()


def is_low() -> bool:
    """Return whether what is called now is to be compiled with low effort."""
    level = _level.get()
    return level is not None and bool(get_opaque_trace_state() == level) and bool(options())


@functools.cache
def options() -> dict[str, Any]:
    """Return compiler options of low effort, those that this XLA knows; none but on a CPU."""
    if jax.default_backend() != "cpu":
        return {}
    if _knows(_OPTIONS):
        return _OPTIONS
    return {name: value for name, value in _OPTIONS.items() if _knows({name: value})}


def _knows(given: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options=given).lower().compile()
    except (RuntimeError, ValueError):
        return False
    return True
