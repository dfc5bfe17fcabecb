"""Draws that stay on disk: memory-mapped arrays, read a chunk at a time while the device works.

A posterior of hundreds of large networks can exceed the memory of a device, and of the host. Its
folder holds one ``.npy`` file a parameter array, with the draws on the leading axis.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from bnn_adv.compute import files
from bnn_adv.compute.leaves import (
    from_plain,
    lost_name,
    name_dtype,
    plain_shape,
    restored,
    storable,
    to_plain,
)

_INDEX = "draws.json"

_MOST_OPEN = 4
"""Folders of draws whose files stay open and whose next chunk is kept."""


class _Folders:
    """The folders of draws by number, and those that were read last, the newest at the end."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._numbers = itertools.count()
        self._known: weakref.WeakValueDictionary[int, _Folder] = weakref.WeakValueDictionary()
        self._opened: OrderedDict[int, _Folder] = OrderedDict()

    def __identity__(self) -> None:
        """Return nothing: which folders are open says nothing of the draws."""

    def add(self, folder: _Folder) -> int:
        """Return a number for a folder."""
        number = next(self._numbers)
        self._known[number] = folder
        return number

    def get(self, number: Any) -> _Folder:
        """Return the folder of a number; while it is among the last that were read, it lives."""
        return self._known[int(number)]

    def note(self, folder: _Folder) -> None:
        """Put a folder at the end, and close those before the last ``_MOST_OPEN``."""
        self._opened.pop(id(folder), None)
        self._opened[id(folder)] = folder
        while len(self._opened) > _MOST_OPEN:
            self._opened.popitem(last=False)[1].close()


_folders = _Folders()


@functools.cache
def _reader() -> ThreadPoolExecutor:
    """Return the thread that reads ahead, one for all draws."""
    return ThreadPoolExecutor(1, thread_name_prefix="read-draws")


class _Folder:
    """The files of draws: opened when they are read, closed when others are."""

    def __init__(self, files_: list[tuple[Path, str | None]], num_samples: int) -> None:
        self.num_samples = num_samples
        self._files = files_
        self._stamps = [_stamp(path) for path, _ in files_]
        self._maps: list[np.ndarray] | None = None
        self._lock = threading.Lock()
        self._next: tuple[tuple[int, int], Future[list[np.ndarray]]] | None = None

    @property
    def arrays(self) -> list[np.ndarray]:
        """All draws' leaves in plain form (``leaves``), memory-mapped: [S, ...] each."""
        with _folders.lock:
            maps = self._maps
            if maps is None:
                for (path, _), stamp in zip(self._files, self._stamps, strict=True):
                    if _stamp(path) != stamp:
                        raise ValueError(
                            f"{path} was replaced while its draws were in use. Open the folder "
                            "again for the new ones."
                        )
                maps = self._maps = [_map(path, dtype) for path, dtype in self._files]
            _folders.note(self)
        return list(maps)

    def close(self) -> None:
        """Close the files, and forget the next chunk; what is read again is opened again."""
        self._maps = self._next = None

    def fetch(self, start: int, size: int) -> list[np.ndarray]:
        """Return the draws from ``start`` on, and have a thread read those after them."""
        with self._lock:
            pending, self._next = self._next, None
        if pending is not None and pending[0] == (start, size):
            found = pending[1].result()
        else:
            found = self._copy(start, size)
        # After the last chunk comes the first one again: every step of an attack reads them all.
        after = start + size if start + size < self.num_samples else 0
        after = min(after, self.num_samples - size)
        with self._lock:
            self._next = (after, size), _reader().submit(self._copy, after, size)
        return found

    def _copy(self, start: int, size: int) -> list[np.ndarray]:
        return [to_plain(np.array(array[start : start + size])) for array in self.arrays]


@jax.tree_util.register_pytree_node_class
class DiskDraws:
    """Stand for S draws in a folder: a pytree node whose only leaf is the number of the folder.

    ``read`` works inside compiled programs, by a callback to the host. While the device computes
    with one chunk, a thread of the host reads the next one. The number is data of a program, so
    that draws of one network in several folders run the same ones.

    Args:
      folder: Written by ``write_draws``.
      template: One draw: pytree of arrays or ``ShapeDtypeStruct``.

    Raises:
      FileNotFoundError: The folder holds no draws.
      ValueError: An array is missing, unknown or of another shape; the message names it.
    """

    def __init__(self, folder: str | os.PathLike[str], template: Any) -> None:
        path = self.folder = Path(folder).expanduser()
        self.template = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, w.dtype), template)
        index = files.read_json(path / _INDEX)
        self.num_samples = int(index["num_samples"])
        wanted = flatten_names(self.template)
        dtypes, named = index.get("dtypes", {}), index["arrays"]
        arrays = {name: _map(path / file, dtypes.get(name)) for name, file in named.items()}
        check_draws(path, arrays, wanted, dtypes)
        stored = [(path / named[name], dtypes.get(name)) for name in wanted]
        self._folder: _Folder | None = _Folder(stored, self.num_samples)
        self._number: Any = np.int32(_folders.add(self._folder))

    def tree_flatten(self) -> tuple[tuple[Any], tuple[Any, ...]]:
        """Return the number of the folder, and what programs are compiled for."""
        leaves, structure = jax.tree.flatten(self.template)
        return (self._number,), (structure, tuple(leaves), self.num_samples)

    @classmethod
    def tree_unflatten(cls, kind: tuple[Any, ...], children: tuple[Any]) -> DiskDraws:
        """Return the draws again; within a program the number is traced."""
        found = object.__new__(cls)
        structure, leaves, found.num_samples = kind
        found.template = jax.tree.unflatten(structure, leaves)
        (found._number,) = children
        is_known = isinstance(found._number, np.integer | jax.Array) and not isinstance(
            found._number, jax.core.Tracer
        )
        found._folder = _folders.get(found._number) if is_known else None
        return found

    def __identity__(self) -> dict[str, Any]:
        """Return what the draws are, wherever the folder is, see ``canonical.digest``."""
        return {"template": self.template, "arrays": self.arrays}

    @property
    def arrays(self) -> list[np.ndarray]:
        """All draws' leaves in plain form (``leaves``), memory-mapped: [S, ...] each.

        Raises:
          ValueError: A file was replaced since.
        """
        return (self._folder or _folders.get(self._number)).arrays

    def read(self, start: jax.Array, size: int) -> Any:
        """Return the draws from ``start`` on, stacked: a pytree of [size, ...]."""
        leaves, structure = jax.tree.flatten(self.template)
        plain = [plain_shape(leaf) for leaf in leaves]
        shapes = [jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype) for leaf in plain]
        found = jax.pure_callback(functools.partial(_fetch, size=size), shapes, self._number, start)
        return jax.tree.unflatten(structure, list(map(from_plain, found, leaves)))

    def take(self, indices: Any) -> Any:
        """Return the draws at ``indices`` in memory, a pytree of NumPy arrays (keys: JAX's)."""
        leaves, structure = jax.tree.flatten(self.template)
        chosen = [np.array(array[np.asarray(indices)]) for array in self.arrays]
        return jax.tree.unflatten(structure, list(map(from_plain, chosen, leaves)))


def _fetch(number: Any, start: Any, *, size: int) -> list[np.ndarray]:
    return _folders.get(number).fetch(int(start), size)


def write_draws(folder: str | os.PathLike[str], parts: Iterable[Any], *, num_samples: int) -> None:
    """Write draws to a folder, part by part, so that they never need to fit into memory.

    Args:
      folder: Destination; draws that it held are replaced.
      parts: Stacked draws in order, each a pytree of [k, ...].
      num_samples: Draws in all parts together, S.

    Raises:
      ValueError: The parts hold another number of draws; nothing is written.
    """
    folder, total = Path(folder).expanduser(), 0
    names: dict[str, str] = {}
    dtypes: dict[str, str] = {}
    kinds: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        outputs: dict[str, BinaryIO] = {}
        for part in parts:
            given = flatten_names(part)
            leaves = {name: storable(to_plain(leaf)) for name, leaf in given.items()}
            for name, leaf in leaves.items():
                if name not in outputs:
                    names[name] = f"{len(names):03d}.npy"
                    if lost := lost_name(given[name]):
                        dtypes[name] = lost
                    outputs[name] = stack.enter_context(files.atomic_writer(folder / names[name]))
                    kinds[name] = name_dtype(given[name])
                    _write_header(outputs[name], leaf.dtype, (num_samples, *leaf.shape[1:]))
                if (found := name_dtype(given[name])) != kinds[name]:
                    raise ValueError(
                        f"{name} has dtype {found} in one part and {kinds[name]} in the first."
                    )
                outputs[name].write(np.ascontiguousarray(leaf).data)
            total += len(next(iter(leaves.values())))
        if total != num_samples:
            raise ValueError(f"The parts hold {total} draws where {num_samples} were announced.")
    # Written last: its presence says that the draws are complete.
    index = {"num_samples": total, "arrays": names}
    files.write_json(folder / _INDEX, index | ({"dtypes": dtypes} if dtypes else {}))


def store_in(folder: str | os.PathLike[str]) -> Callable[[Any], DiskDraws]:
    """Return a function that writes stacked draws to a folder and returns them as ``DiskDraws``.

    Args:
      folder: Destination; draws that it held are replaced.
    """

    def store(samples: Any) -> DiskDraws:
        write_draws(folder, [samples], num_samples=len(jax.tree.leaves(samples)[0]))
        template = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape[1:], w.dtype), samples)
        return DiskDraws(folder, template)

    return store


def as_arrays(samples: Any) -> list[np.ndarray]:
    """Return the leaves of stacked draws in plain form (``leaves``), memory-mapped on disk."""
    if isinstance(samples, DiskDraws):
        return samples.arrays
    return [to_plain(leaf) for leaf in jax.tree.leaves(samples)]


def flatten_names(params: Any) -> dict[str, Any]:
    """Return the leaves of a pytree by their path, such as ``hidden_0/kernel``."""
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def check_draws(
    where: object,
    stored: Mapping[str, Any],
    wanted: dict[str, Any],
    dtypes: Mapping[str, str] | None = None,
) -> None:
    """Raise unless stored draws fit one draw of a network.

    Args:
      where: File or folder, for the message.
      stored: Arrays by name, [S, ...], or what has their ``shape``.
      wanted: One draw's leaves by name.
      dtypes: By name, what ``leaves.name_dtype`` said of arrays that are stored in another form.

    Raises:
      ValueError: An array is missing, unknown or of another shape or dtype; the message names it.
    """
    problems = [f"{name} is missing" for name in wanted if name not in stored]
    problems += [f"{name} is not a parameter" for name in stored if name not in wanted]
    problems += [
        f"{name} has shape {stored[name].shape[1:]} a draw where the network has {leaf.shape}"
        for name, leaf in wanted.items()
        if name in stored and stored[name].shape[1:] != plain_shape(leaf).shape
    ]
    problems += [
        f"{name} has dtype {found} where the network has {name_dtype(leaf)}"
        for name, leaf in wanted.items()
        if name in stored
        and (found := (dtypes or {}).get(name, stored[name].dtype.name)) != name_dtype(leaf)
    ]
    if len({array.shape[:1] for array in stored.values()}) > 1:
        problems.append("arrays differ in their number of draws")
    if problems:
        raise ValueError(
            f"{where} does not fit the network: {'; '.join(problems)}. "
            "Load it with the network that it was saved with."
        )


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _map(path: Path, dtype: str | None) -> np.ndarray:
    try:
        found: np.ndarray = restored(
            np.load(path, mmap_mode="r", allow_pickle=False), dtype, wrap=False
        )
        return found
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged or truncated ({error}): write the draws again."
        ) from error


def _write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(
        file,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": shape,
        },
    )
