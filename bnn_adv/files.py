"""Write files so that a reader sees the old content or the new, never half of either."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bnn_adv.leaves import lost_name, restored, storable

_DTYPES = "__dtypes__"
"""Names, in a file of arrays, the dtypes that NumPy's format loses."""


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary neighbour of ``path`` and rename it to ``path`` on success.

    Args:
      path: Destination. Its folder is created where it is absent.

    Yields:
      A binary file. If the block raises, the temporary file is removed and ``path`` is untouched.

    Raises:
      OSError: The folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only the owner reads; results are meant to be shared.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically."""
    with atomic_writer(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON, atomically.

    Raises:
      ValueError: ``value`` holds a NaN or an infinity, which JSON does not know.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write named arrays to one ``.npz`` file, atomically and without pickle.

    Args:
      path: Destination, with its ``.npz`` ending.
      arrays: Numeric (also bfloat16 and its like), boolean or text arrays by name, or typed keys.

    Raises:
      ValueError: An array has dtype object, which only pickle could store.
    """
    dtypes = {name: lost for name, leaf in arrays.items() if (lost := lost_name(leaf))}
    converted = {name: storable(array) for name, array in arrays.items()}
    for name, array in converted.items():
        if array.dtype == object:
            raise ValueError(
                f"Array {name!r} has dtype object and would be pickled; "
                "store numbers, booleans or text only."
            )
    if dtypes:
        converted[_DTYPES] = np.array(json.dumps(dtypes))
    with atomic_writer(path) as file:
        np.savez(file, **converted)  # type: ignore[arg-type]


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the arrays that ``write_arrays`` wrote, without unpickling; typed keys as such.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is damaged or not an ``.npz`` file.
    """
    try:
        # np.load does not close a damaged file that it opened itself.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
        dtypes = json.loads(str(found.pop(_DTYPES))) if _DTYPES in found else {}
        return {name: restored(array, dtypes.get(name)) for name, array in found.items()}
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{os.fspath(path)} cannot be read as an .npz file ({error}). "
            "It is damaged or truncated: delete it and write it again."
        ) from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is not JSON; the message names it.
    """
    text = Path(path).read_text("utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{os.fspath(path)} is not JSON ({error}): delete it and run again."
        ) from error
