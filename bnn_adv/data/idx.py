"""The IDX format in which MNIST and its relatives are published.

Source: LeCun, Cortes and Burges, The MNIST database of handwritten digits, 1998. A file is two
zero bytes, a type code, the number of dimensions, each dimension as a big-endian uint32, and the
values in row-major order.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bnn_adv.data.dataset import DatasetError

UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"


def find(folder: str | os.PathLike[str], stem: str) -> Path | None:
    """Find ``stem`` in ``folder``, plain or gzipped, the plain file first."""
    candidates = (Path(folder, stem), Path(folder, f"{stem}.gz"))
    return next((path for path in candidates if path.is_file()), None)


def read(
    path: str | os.PathLike[str],
    *,
    shape: Sequence[int] | None = None,
    md5: str | None = None,
) -> np.ndarray:
    """Read a file of unsigned bytes, gzipped or not, and verify it.

    Args:
      path: The file; whether it is gzipped is told by its first bytes, not by its name.
      shape: Shape that the header must state. ``None`` accepts any.
      md5: Hexadecimal MD5 that the uncompressed file must have. ``None`` skips the check.

    Returns:
      The values, uint8 of the shape in the header.

    Raises:
      DatasetError: The file is absent, truncated, of another type or shape, or has another
        checksum. The message names the file, what was expected and what was found.
    """
    longest = None if shape is None else 4 + 4 * len(shape) + math.prod(shape)
    content = _uncompressed(path, longest)
    found_shape, start = _header(content, path)
    if shape is not None and found_shape != tuple(shape):
        raise DatasetError(
            f"{os.fspath(path)} has the wrong shape: expected {tuple(shape)}, found {found_shape}."
        )
    # Python integers, because a damaged header may state more values than an int64 counts.
    expected_size = start + math.prod(found_shape)
    if len(content) != expected_size:
        problem = "is truncated" if len(content) < expected_size else "is too long"
        raise DatasetError(
            f"{os.fspath(path)} {problem}: its header announces shape {found_shape}, "
            f"{expected_size} bytes with the header, but it holds "
            f"{len(content)}{' or more' if len(content) > (longest or math.inf) else ''}."
        )
    if md5 is not None and (found := _md5(content)) != md5:
        raise DatasetError(
            f"{os.fspath(path)} has the wrong checksum: expected the uncompressed MD5 {md5}, "
            f"found {found}. The file is damaged, or belongs to another data set."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(found_shape)


def encode(array: np.ndarray) -> bytes:
    """Write an array of unsigned bytes in the IDX format.

    Args:
      array: uint8 of any shape with at most 255 axes.

    Returns:
      The content of the uncompressed file.

    Raises:
      DatasetError: The array has another dtype.
    """
    if array.dtype != np.uint8:
        raise DatasetError(f"Only uint8 arrays can be encoded here, not {array.dtype}.")
    header = bytes([0, 0, UNSIGNED_BYTE, array.ndim]) + np.asarray(array.shape, ">u4").tobytes()
    return header + array.tobytes()


def checksum(array: np.ndarray) -> str:
    """Return the hexadecimal MD5 that the uncompressed IDX file of ``array`` (uint8) has."""
    return _md5(encode(array))


def _md5(content: bytes) -> str:
    # Published checksums of these files are MD5: it finds damage, it does not stop a forger.
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _uncompressed(path: str | os.PathLike[str], longest: int | None) -> bytes:
    """Return the content, and one byte more than ``longest`` of one that is longer."""
    most = -1 if longest is None else longest + 1
    try:
        with open(path, "rb") as file:
            packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            file.seek(0)
            if not packed:
                return file.read(most)
            with gzip.open(file) as unpacked:
                return unpacked.read(most)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(
            f"{os.fspath(path)} is truncated or damaged: expected a complete gzip file, "
            f"found {os.path.getsize(path)} bytes that do not decompress ({error})."
        ) from error
    except OSError as error:
        raise DatasetError(f"{os.fspath(path)} cannot be read: {error.strerror}.") from error


def _header(content: bytes, path: str | os.PathLike[str]) -> tuple[tuple[int, ...], int]:
    """Return the shape that the header states and the offset of the first value."""
    magic = content[:4]
    if len(magic) < 4 or magic[:3] != bytes([0, 0, UNSIGNED_BYTE]):
        raise DatasetError(
            f"{os.fspath(path)} is not an IDX file of unsigned bytes: expected it to start with "
            f"00 00 {UNSIGNED_BYTE:02x}, found {magic.hex(' ') or 'nothing'}."
        )
    start = 4 + 4 * magic[3]
    if len(content) < start:
        raise DatasetError(
            f"{os.fspath(path)} is truncated: expected a header of {start} bytes, "
            f"found {len(content)} bytes."
        )
    return tuple(int(length) for length in np.frombuffer(content[4:start], ">u4")), start
