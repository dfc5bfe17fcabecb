"""Decoded arrays on disk, so that a slow source is decoded once.

A cache file holds named arrays and a digest of them. Its name holds a digest of the files that it
was decoded from: a changed source gets a new cache file, a damaged cache file is rebuilt.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bnn_adv.compute import files

_DIGEST = "digest"
_LONGEST_DIGEST = 1024
_log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]


def files_digest(paths: Iterable[Path]) -> str:
    """Return a hexadecimal digest of the files' names, sizes and contents."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(paths):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def cached(
    decode: Callable[[], Arrays],
    *,
    name: str,
    digest: str,
    folders: Sequence[Path],
    expected: Mapping[str, tuple[int, ...]] | None = None,
    check: Callable[[Arrays], str] | None = None,
) -> Arrays:
    """Return what ``decode`` returns, from a cache file where there is a sound one.

    A cache that cannot be written costs time, not the result: it is logged and passed over.

    Args:
      decode: Reads the source; called only if no folder has a sound cache file.
      name: Name of the data set.
      digest: Digest of the source, for instance ``files_digest``.
      folders: Where to look, and then to write to the first one that can be written. A folder
        whose mode allows nobody to write is left alone even where the user is root.
      expected: Shapes of the arrays (uint8) by name; a file that announces others is not read.
      check: Returns what is wrong with the arrays of a file, empty where nothing is: that they are
        as they were written does not say that the right ones were.

    Returns:
      The named arrays.
    """
    paths = [folder / f"bnn_adv-{name}-{digest}.npz" for folder in folders]
    for path in paths:
        arrays = _read(path, expected)
        if arrays is None:
            continue
        if not (problem := check(arrays) if check else ""):
            return arrays
        _log.warning("Decoding again: %s %s", path, problem)
    arrays = decode()
    for path in filter(_may_write_beside, paths):
        try:
            files.write_arrays(path, {**arrays, _DIGEST: np.array(_arrays_digest(arrays))})
        except OSError as error:
            _log.info("Cannot cache %s in %s: %s", name, path.parent, error)
        else:
            break
    return arrays


def _may_write_beside(path: Path) -> bool:
    # The system lets root write anywhere, so the mode says what the owner of a folder wants.
    return not path.parent.exists() or bool(path.parent.stat().st_mode & 0o222)


def _read(path: Path, expected: Mapping[str, tuple[int, ...]] | None) -> Arrays | None:
    if not path.is_file():
        return None
    try:
        # numpy leaves a file open that begins like a zip and is not one, as a truncated one does.
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is truncated or no .npz file.")
        if expected is not None:
            _check_headers(path, files.inspect_arrays(path), expected)
        arrays = files.read_arrays(path)
    except (OSError, ValueError) as error:
        _log.warning("Decoding again: %s", error)
        return None
    stored = arrays.pop(_DIGEST, None)
    if stored is None or str(stored) != _arrays_digest(arrays):
        _log.warning("Decoding again: %s does not hold what was written to it.", path)
        return None
    return arrays


def _check_headers(
    path: Path,
    found: Mapping[str, files.ArrayHeader],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    announced = {name: header for name, header in found.items() if name != _DIGEST}
    wanted = {
        name: files.ArrayHeader(shape, np.dtype(np.uint8)) for name, shape in expected.items()
    }
    size = found[_DIGEST].dtype.itemsize if _DIGEST in found else 0
    if announced != wanted or size > _LONGEST_DIGEST or found.get(_DIGEST, ((),))[0] != ():
        raise ValueError(f"{path} announces other arrays than those of its data set.")


def _arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.data)
    return digest.hexdigest()
