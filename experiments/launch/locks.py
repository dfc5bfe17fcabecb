"""One process at a time works in a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import time
from pathlib import Path

NAME = ".lock"
"""Name of the file that the process which works in a folder keeps locked."""

_held: dict[Path, int] = {}
"""Files that this process has open; it may open its own folder again."""


def acquire(folder: Path) -> bool:
    """Lock a folder until this process ends, or ``release``.

    The system frees the lock of a process that is gone, however it went: a file that was left
    behind keeps nobody out.

    Returns:
      Whether it was free; False where this process had locked it before.

    Raises:
      BlockingIOError: Another process works there; the message says which one.
      OSError: The folder cannot be written to.
    """
    path = folder.resolve() / NAME
    if path in _held and _is_at(_held[path], path):
        return False
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(file)
        except BlockingIOError:
            holder = os.read(file, 500).decode("utf-8", "replace").strip()
            os.close(file)
            raise BlockingIOError(
                f"{folder} is in use by {holder or 'another process'}. Wait until it has ended, "
                "or give another --workdir."
            ) from None
        # Whoever had it may have removed the file between our two calls.
        if _is_at(file, path):
            break
        os.close(file)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError):  # The disk is full: nobody learns who it is.
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {platform.node()} since {started}\n".encode())
    _held[path] = file
    return True


def release(folder: Path) -> None:
    """Free a folder that this process has locked, and remove the lock's file."""
    path = folder.resolve() / NAME
    file = _held.pop(path, None)
    if file is not None:
        # While it is still locked: nobody else's is removed.
        if _is_at(file, path):
            path.unlink(missing_ok=True)
        os.close(file)


def _lock(file: int) -> None:
    try:
        import fcntl
    except ImportError:  # Not on this system.
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            raise BlockingIOError(error.errno, "locked") from error
        # Some network file systems know no locks.


def _is_at(file: int, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(file), os.stat(path))
    return False
