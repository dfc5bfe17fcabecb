"""Checkpoints on disk: Orbax steps, the parts that they list, and checksums of both."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.compute import files, parallel
from bnn_adv.compute.canonical import digest
from bnn_adv.compute.identity import OtherWorkError

Parts = dict[str, dict[str, np.ndarray]]
"""Finished arrays by name of the part and of the array."""


class Saved(NamedTuple):
    """A checkpoint that was read back.

    step: Units of work that were done.
    record: What was written beside the state, JSON values.
    parts: Finished parts by name, in the order in which they were added.
    leaves: (path, array) of every leaf of the state.
    """

    step: int
    record: dict[str, Any]
    parts: Parts
    leaves: list[tuple[str, np.ndarray]]

    @property
    def meta(self) -> dict[str, Any]:
        """The caller's part of the record."""
        found: dict[str, Any] = self.record["meta"]
        return found

    def fit(self, template: Any) -> Any:
        """Return the state with the structure, dtypes and shardings of ``template``.

        Raises:
          OtherWorkError: The program's state has other leaves than the saved one.
        """
        found, structure = jax.tree_util.tree_flatten_with_path(template)
        paths = [jax.tree_util.keystr(path) for path, _ in found]
        if paths != [path for path, _ in self.leaves]:
            raise OtherWorkError(
                f"The checkpoint holds {[path for path, _ in self.leaves]}, the program needs "
                f"{paths}. Delete the checkpoint folder to start over."
            )
        leaves = [
            _place(path, value, leaf)
            for (path, value), (_, leaf) in zip(self.leaves, found, strict=True)
        ]
        return jax.tree.unflatten(structure, leaves)


class Store:
    """Write and read the checkpoints of one folder.

    Args:
      directory: The folder; created at the first save.
      keep: Checkpoints kept.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self._keep = keep
        self._manager: Any = None

    def steps(self) -> list[int]:
        """Return the steps that were completely written, oldest first."""
        exists = (self.directory / "steps").exists()
        return sorted(self._open().all_steps()) if exists else []

    def write(
        self,
        step: int,
        leaves: list[tuple[str, np.ndarray]],
        record: Mapping[str, Any],
        parts: Parts,
        part_files: Mapping[str, str],
    ) -> dict[str, str]:
        """Write a checkpoint, and delete those beyond ``keep``.

        Args:
          step: Its number, above all that are kept.
          leaves: (path, array) of every leaf of the state.
          record: JSON values.
          parts: Parts that no file holds yet.
          part_files: Files of the parts before, with the hashes of what they hold.

        Returns:
          The files of all parts with their hashes.

        Raises:
          Exception: Whatever Orbax and the disk raise; older checkpoints are as before.
        """
        import orbax.checkpoint as ocp

        part_files = dict(part_files)
        if parts:
            # Before the step that lists it: a listed part is complete.
            name = f"{step:012d}.npz"
            part_files[name] = digest(parts, "parts")
            arrays = [array for part in parts.values() for array in part.values()]
            names = np.array([json.dumps([name, list(part)]) for name, part in parts.items()])
            files.write_arrays(
                self.directory / "parts" / name,
                {f"{index}": array for index, array in enumerate(arrays)} | {"names": names},
            )
        flat = [(path, value, _as_bytes(value)) for path, value in leaves]
        described = [
            [path, str(value.dtype), value.shape, zlib.crc32(raw.data)] for path, value, raw in flat
        ]
        text = json.dumps({**record, "step": step, "parts": part_files, "leaves": described})
        # One array: where one of many fails, Orbax leaves the others' tasks behind, and their
        # complaints. It stores none of size zero, hence the last byte.
        state = np.concatenate([raw for _, _, raw in flat] + [np.zeros(1, np.uint8)])
        args = ocp.args.Composite(
            state=ocp.args.StandardSave({"bytes": state}),
            record=ocp.args.JsonSave({"text": text, "crc32": zlib.crc32(text.encode())}),
        )
        with _quietly():
            done = self._open().save(step, args=args, force=True)
        if not done:
            raise RuntimeError(f"Orbax refused to save step {step}")
        return part_files

    def read(self, step: int) -> Saved:
        """Read a checkpoint with its parts and verify every checksum.

        Raises:
          Exception: Something of it is missing or damaged.
        """
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(state=ocp.args.StandardRestore(), record=ocp.args.JsonRestore())
        with _quietly():
            stored = self._open().restore(step, args=args)
        text = stored.record["text"]
        if zlib.crc32(text.encode()) != stored.record["crc32"]:
            raise ValueError("its record has a wrong checksum")
        record = json.loads(text)
        leaves, start = [], 0
        for path, dtype, shape, checksum in record["leaves"]:
            kind = jnp.dtype(dtype)
            end = start + math.prod(shape) * kind.itemsize
            # A copy is aligned, whatever came before it.
            raw, start = np.array(stored.state["bytes"][start:end]), end
            if zlib.crc32(raw.data) != checksum:
                raise ValueError(f"{path} has a wrong checksum")
            leaves.append((path, raw.view(kind).reshape(shape)))
        parts: Parts = {}
        for name, known in dict(record["parts"]).items():
            arrays = files.read_arrays(self.directory / "parts" / name)
            own: Parts = {}
            values = (arrays[f"{index}"] for index in range(len(arrays) - 1))
            for entry in arrays["names"]:
                part, members = json.loads(str(entry))
                own[part] = {member: next(values) for member in members}
            if digest(own, "parts") != known:
                raise ValueError(f"its part {name} was replaced")
            parts |= own
        return Saved(step, record, parts, leaves)

    def set_aside(self, steps: list[int]) -> None:
        """Move damaged checkpoints out of the way of ``keep``, but delete nothing."""
        if steps:
            self.close()
        for step in steps:
            target = self.directory / "damaged" / f"{step}"
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            os.replace(self.directory / "steps" / f"{step}", target)

    def sweep(self, part_files: Mapping[str, str]) -> None:
        """Free what a failed save left on the disk; ``part_files`` are in use."""
        with contextlib.suppress(Exception):
            self.close()
        self._manager = None
        for path in (self.directory / "steps").glob("*tmp*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self.directory / "parts").glob("*"):
            if path.name not in part_files:
                with contextlib.suppress(OSError):
                    path.unlink()

    def close(self) -> None:
        """Let go of Orbax's manager; the next use makes another."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def _open(self) -> Any:
        if self._manager is None:
            # Imported late: it takes as long as the rest of the package.
            import orbax.checkpoint as ocp

            (self.directory / "steps").mkdir(parents=True, exist_ok=True)
            me = jax.process_index()
            alone: dict[str, Any] = {}
            if jax.process_count() > 1:
                # One process writes, each reads for itself: no barriers.
                alone["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
                    primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"only_{me}"
                )
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep, create=False, enable_async_checkpointing=False, **alone
            )
            self._manager = ocp.CheckpointManager(self.directory / "steps", options=options)
        return self._manager


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep Orbax from logging tracebacks of failures that are caught and said in one line."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def to_host(tree: Any) -> list[tuple[str, np.ndarray]]:
    """Return (path, array) of every leaf; collective where arrays span processes."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    plain = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for _, leaf in found]
    hosted = parallel.to_host(plain)
    return [
        (jax.tree_util.keystr(path), host) for (path, _), host in zip(found, hosted, strict=True)
    ]


def _as_bytes(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _place(path: str, value: np.ndarray, leaf: Any) -> Any:
    if _is_key(leaf):
        data = jax.random.key_data(leaf)
        return jax.random.wrap_key_data(_place(path, value, data), impl=jax.random.key_impl(leaf))
    shape = np.shape(leaf)
    dtype = leaf.dtype if isinstance(leaf, jax.Array) else np.asarray(leaf).dtype
    if value.shape != shape or value.dtype != dtype:
        raise OtherWorkError(
            f"{path} is {value.dtype}{list(value.shape)} in the checkpoint, {dtype}{list(shape)} "
            "in the program. Delete the checkpoint folder to start over."
        )
    if not isinstance(leaf, jax.Array):
        return value
    if not leaf.is_fully_addressable:
        return jax.make_array_from_callback(shape, leaf.sharding, lambda index: value[index])
    # An uncommitted array stays so: it may follow others to their devices.
    return jax.device_put(value, leaf.sharding if leaf.committed else None)
