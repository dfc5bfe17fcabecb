"""Leave soon, and with progress saved, when a scheduler or a user asks for it.

Python runs its signal handlers in the main thread, and only between two bytecodes: while that
thread waits for a device or for the compiler, a handler waits too, for minutes on a large network.
A second thread therefore learns of the signal at once, gives the main thread a few seconds to come
to a place where it saves by itself, and else saves the last completed state on its behalf.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_requested: int | None = None
_savers: list[Callable[[], None]] = []


class Interrupted(SystemExit):
    """Leave because a signal asked for it; ``code`` is 143 for SIGTERM, 130 for Ctrl-C."""


def requested() -> int | None:
    """Return the exit status that a signal asked for, or None."""
    return _requested


@contextlib.contextmanager
def saving(save: Callable[[], None]) -> Iterator[None]:
    """Have ``save`` called if the block is interrupted.

    Args:
      save: Saves what was last completed; may be called from another thread.

    Raises:
      Interrupted: A signal had come before the block began.
    """
    if _requested is not None:
        raise Interrupted(_requested)
    if signal.getsignal(signal.SIGTERM) is _on_signal:
        # jax.distributed.initialize puts a handler of its own beneath Python's.
        _install()
    _savers.append(save)
    try:
        yield
    except KeyboardInterrupt:
        save()
        raise
    finally:
        _savers.remove(save)


@contextlib.contextmanager
def exit_on_signals(message: str, *, grace_seconds: float = 3.0) -> Iterator[None]:
    """End the process in seconds on SIGTERM (status 143) and Ctrl-C (130), progress saved.

    For entry points; does nothing outside the main thread. A second Ctrl-C does not wait.

    Args:
      message: Printed before leaving.
      grace_seconds: Time for the main thread to save by itself.
    """
    global _requested
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    previous = _install()
    watcher = threading.Thread(target=_watch, args=(reader, message, grace_seconds), daemon=True)
    watcher.start()
    try:
        yield
    except Interrupted as stop:
        # Without os._exit, Python would wait for what still runs on the device.
        _leave(int(str(stop.code)), message)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        os.close(writer)
        watcher.join()
        os.close(reader)
        _requested = None


def _install() -> dict[signal.Signals, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, _on_signal) for number in _SIGNALS}


def _on_signal(number: int, frame: object) -> None:
    global _requested
    _requested = 128 + number
    # Where nothing could be saved there is nothing to wait for.
    if not _savers:
        raise Interrupted(_requested)


def _watch(reader: int, message: str, grace_seconds: float) -> None:
    global _requested
    deadline = float("inf")
    while True:
        left = deadline - time.monotonic()
        ready, _, _ = select.select(
            [reader], [], [], None if left == float("inf") else max(left, 0)
        )
        if not ready:
            break
        numbers = os.read(reader, 1)
        if not numbers:
            return
        if numbers[0] == signal.SIGINT and deadline < float("inf"):
            _leave(130, message)
        if numbers[0] in _SIGNALS and deadline == float("inf"):
            _requested = 128 + numbers[0]
            deadline = time.monotonic() + grace_seconds
    for save in tuple(_savers):
        save()
    _leave(_requested or 143, message)


def _leave(code: int, message: str) -> None:
    with contextlib.suppress(Exception):
        print(message, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
