"""Compiled programs, and what keeps their number bounded.

JAX keeps every program that it has compiled, and with it all that the program was compiled for: the
function that turns parameters into logits, and what that closes over. A process that evaluates one
network after the other would fill its memory with programs that nobody runs again. And every
compiled function of a program is a mapping of the process's memory, of which Linux allows 65,530 by
default: a study of one network at many sizes (draws, images) reaches them within a quarter of an
hour, and the compiler then ends the process.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax

from bnn_adv.compute import effort

MOST = 8
"""Networks whose programs are kept; one more, and those of all are dropped."""

_MAPS = Path("/proc/self/maps")
_MOST_MAPS = Path("/proc/sys/vm/max_map_count")
_SECONDS_BETWEEN_LOOKS = 5.0
"""Counting tens of thousands of mappings takes some hundredths of a second."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

_compiled: list[Compiled] = []
_noted: dict[int, Callable[[], Any]] = {}
_memories: list[dict[Any, Any]] = []


class _Room:
    """How many memory mappings may be in use before programs are dropped.

    Attributes:
      most: That number; None until the first look.
      next_look: When to count again, in seconds of ``time.monotonic``.
    """

    most: int | None = None
    next_look = 0.0


class Compiled:
    """Call ``jax.jit(fn, **options)``, all of whose programs and traces ``drop`` can forget.

    Where ``effort`` is low, programs are compiled so, beside those of full effort.
    """

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

        self._jitted, self._call = jax.jit(call, **self._options), call
        self._quick: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns."""
        if not effort.is_low():
            return self._jitted(*args, **kwargs)
        if self._quick is None:
            options = {**self._options, "compiler_options": effort.options()}
            self._quick = jax.jit(self._call, **options)
        return self._quick(*args, **kwargs)

    def _cache_size(self) -> int:
        """Return how many programs there are."""
        quick: int = 0 if self._quick is None else self._quick._cache_size()
        full: int = self._jitted._cache_size()  # type: ignore[attr-defined]
        return full + quick

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


def memory() -> dict[Any, Any]:
    """Return an empty dictionary of what tracing has found of networks, which ``drop`` empties."""
    found: dict[Any, Any] = {}
    _memories.append(found)
    return found


def note(apply_fn: Any) -> None:
    """Say, outside of compiled programs, whose programs are about to run.

    Where the process is short of memory mappings, or the network is one too many, all are dropped.

    Args:
      apply_fn: The function of a network.
    """
    if _is_full():
        _make_room()
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
    for found in _memories:
        found.clear()
    # One more place where JAX (0.10) remembers structures of arguments, and their functions. It has
    # no public name but for clear_caches, which would drop the caller's own programs as well.
    with contextlib.suppress(ImportError, AttributeError):
        from jax._src import pjit

        pjit._process_in_axis_resources.cache_clear()


def _is_full() -> bool:
    """Return whether more than half of the memory mappings that a process may have are in use."""
    now = time.monotonic()
    if now < _Room.next_look:
        return False
    _Room.next_look = now + _SECONDS_BETWEEN_LOOKS
    if _Room.most is None:
        _Room.most = _limit() // 2
    return _count_maps() > _Room.most


def _make_room() -> None:
    """Drop all programs of ours, and where that is not enough those of the whole process."""
    drop()
    gc.collect()
    if _Room.most is not None and _count_maps() > _Room.most:
        # Also what JAX compiled for single operations, and the caller's own: compiled again at
        # need, where the compiler would end the process otherwise.
        jax.clear_caches()
        gc.collect()
        _Room.most = max(_Room.most, (_count_maps() + _limit()) // 2)


def _count_maps() -> int:
    """Return the memory mappings of this process; 0 where the system does not say."""
    try:
        with _MAPS.open("rb") as lines:
            return sum(1 for _ in lines)
    except OSError:
        return 0


def _limit() -> int:
    """Return how many mappings a process may have."""
    try:
        return int(_MOST_MAPS.read_text("utf-8"))
    except (OSError, ValueError):
        return 65530


def sized_by(compiled: Any) -> Callable[[_Function], _Function]:
    """Let a function that prepares a compiled one's arguments say how many programs that has."""

    def decorate(fn: _Function) -> _Function:
        # Asked anew each time: ``drop`` puts another function in the place of the old one.
        fn.__dict__["_cache_size"] = lambda: compiled._cache_size()
        return fn

    return decorate
