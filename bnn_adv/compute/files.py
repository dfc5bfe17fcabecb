"""Write files so that a reader sees the old content or the new, never half of either."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from bnn_adv.compute.leaves import lost_name, restored, storable

TEMPORARY = ".bnn_adv.tmp"
"""Ending of the files that ``atomic_writer`` renames when they are complete."""

_DTYPES = "__dtypes__"
"""Names, in a file of arrays, the dtypes that NumPy's format loses."""

_SMALL = 1 << 26
_MOST_PACKED = 100
"""How often an array may exceed the bytes that it is packed in, and all that is read the size of
its file, beyond ``_SMALL`` bytes; files of this package are not packed, and numbers that say
something do not pack so well."""


def user_folder() -> Path:
    """Return this user's folder for cached data: ``$XDG_CACHE_HOME/bnn_adv`` or its default."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "bnn_adv"


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary neighbour of ``path`` and rename it to ``path`` on success.

    Args:
      path: Destination, ``~`` being the home. Its folder is created where it is absent.

    Yields:
      A binary file. If the block raises, the temporary file is removed and ``path`` is untouched.

    Raises:
      OSError: The folder cannot be written to, or the disk is full.
    """
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
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


_PLAIN_LIST = re.compile(r"\[\n\s*([^\[\]{}\"]*?)\n\s*\]")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON, a list of numbers on one line, atomically.

    Raises:
      ValueError: ``value`` holds a NaN or an infinity, which JSON does not know.
    """
    text = json.dumps(value, indent=2, allow_nan=False)
    # No string of JSON holds a line break: what is matched is a list, and nothing within a text.
    text = _PLAIN_LIST.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    write_text(path, text + "\n")


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


class ArrayHeader(NamedTuple):
    """What an ``.npz`` file says of one of its arrays.

    shape: Its shape; of typed keys that of their data.
    dtype: Its dtype, as stored.
    lost: Name of its own dtype where NumPy's format loses that, see ``leaves.lost_name``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    lost: str | None = None

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.dtype.itemsize * math.prod(self.shape)


def inspect_arrays(path: str | os.PathLike[str]) -> dict[str, ArrayHeader]:
    """Return shape and dtype of the arrays of an ``.npz`` file without reading them.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is damaged, not an ``.npz`` file, or made to unpack to much more than it
        holds.
    """
    with _reading(path), zipfile.ZipFile(Path(path).expanduser()) as archive:
        headers = {
            member.filename.removesuffix(".npy"): _read_header(archive, member)
            for member in archive.infolist()
        }
        if headers.pop(_DTYPES, None) is None:
            return headers
        with archive.open(f"{_DTYPES}.npy") as file:
            dtypes = _parse_dtypes(np.lib.format.read_array(file, allow_pickle=False))
        return {name: header._replace(lost=dtypes.get(name)) for name, header in headers.items()}


def read_arrays(
    path: str | os.PathLike[str], names: Collection[str] | None = None
) -> dict[str, Any]:
    """Read the arrays that ``write_arrays`` wrote, without unpickling; typed keys as such.

    Args:
      path: The file.
      names: What to read where it is there; whatever else the file holds is not read. None: all.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: As for ``inspect_arrays``, also of all arrays that are to be read together.
    """
    headers = inspect_arrays(path)
    chosen = [name for name in headers if names is None or name in names]
    # np.load does not close a damaged file that it opened itself.
    with _reading(path), open(Path(path).expanduser(), "rb") as file:
        _check_total(file, sum(headers[name].size for name in chosen))
        with np.load(file, allow_pickle=False) as stored:
            dtypes = _parse_dtypes(stored[_DTYPES]) if _DTYPES in stored.files else {}
            return {name: restored(stored[name], dtypes.get(name)) for name in chosen}


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{os.fspath(path)} cannot be read as an .npz file ({error}). "
            "It is damaged or truncated: delete it and write it again."
        ) from error


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> ArrayHeader:
    """Return an array's header, which must announce what the archive holds of it."""
    if member.file_size > max(_SMALL, _MOST_PACKED * member.compress_size):
        raise ValueError(
            f"{member.filename} would unpack {member.compress_size} bytes to {member.file_size}"
        )
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
        header = ArrayHeader(shape, dtype)
        size = file.tell() + header.size
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which are not unpickled")
    if size != member.file_size:
        raise ValueError(
            f"{member.filename} announces {dtype}{list(shape)} and holds {member.file_size} bytes"
        )
    return header


def _check_total(file: BinaryIO, size: int) -> None:
    """Raise where arrays of ``size`` bytes together are much more than their file."""
    packed = os.fstat(file.fileno()).st_size
    if size > max(_SMALL, _MOST_PACKED * packed):
        raise ValueError(f"it would unpack {packed} bytes to {size}")


def _parse_dtypes(record: np.ndarray) -> dict[str, str]:
    """Return by name the dtypes that are stored in another form."""
    found: dict[str, str] = json.loads(str(record))
    return found


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is not JSON; the message names it.
    """
    text = Path(path).expanduser().read_text("utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{os.fspath(path)} is not JSON ({error}): delete it and run again."
        ) from error
