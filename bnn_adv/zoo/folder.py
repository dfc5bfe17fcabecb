"""The files of an entry: names, hashes, sizes, and draws that may be stored in half the bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bnn_adv.compute import files, leaves
from bnn_adv.compute.disk import as_arrays, check_draws, flatten_names
from bnn_adv.networks import find_network, get_apply_fn, init_params
from bnn_adv.posteriors.posterior import Posterior, one_draw
from bnn_adv.zoo.entry import make_settings
from bnn_adv.zoo.record import EntryRecord, ZooError

DRAWS, CERTIFICATE, RECORD, HASHES = "draws.npz", "certificate.npz", "entry.json", "hashes.json"
FILES = (DRAWS, CERTIFICATE, RECORD)
"""What ``HASHES`` vouches for."""

_SCHEMA_VERSION = 1
_AGAIN = "Install bnn_adv again, or write the entry again with bnn_adv.zoo.write"


def hash_files(folder: Path) -> dict[str, Any]:
    """Return size and SHA-256 of an entry's files, as ``HASHES`` holds them."""
    found = {}
    for name in FILES:
        content = (folder / name).read_bytes()
        found[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {"schema_version": _SCHEMA_VERSION, "files": found}


def check_files(folder: Path) -> None:
    """Raise unless a folder holds an entry's files as they were written, and nothing else.

    Raises:
      ZooError: The message names the file, and what differs.
    """
    if not folder.is_dir():
        raise ZooError(f"There is no zoo entry at {folder}.")
    there = {path.name for path in folder.iterdir()}
    problems = [f"{name} is missing" for name in (*FILES, HASHES) if name not in there]
    problems += [f"{name} is no file of an entry" for name in sorted(there - {*FILES, HASHES})]
    if not problems:
        problems = _compare(_read_hashes(folder), hash_files(folder)["files"])
    if problems:
        raise ZooError(
            f"The zoo entry {folder} is not as it was written: {'; '.join(problems)}. {_AGAIN}."
        )


def _read_hashes(folder: Path) -> Mapping[str, Any]:
    try:
        written = files.read_json(folder / HASHES)
    except ValueError as error:
        raise ZooError(f"{folder / HASHES} cannot be read ({error}) {_AGAIN}.") from error
    found = written.get("files") if isinstance(written, dict) else None
    if not isinstance(found, dict) or written.get("schema_version") != _SCHEMA_VERSION:
        raise ZooError(f"{folder / HASHES} is not of schema version {_SCHEMA_VERSION}. {_AGAIN}.")
    return found


def _compare(written: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    problems = []
    for name, own in found.items():
        said = written.get(name)
        if not isinstance(said, dict) or said.keys() != own.keys():
            problems.append(f"{HASHES} says nothing of {name}")
            continue
        problems += [
            f"{name} has the {what} {own[what]} where {HASHES} says {said[what]}"
            for what in own
            if own[what] != said[what]
        ]
    return problems


def list_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of every file of an entry by name."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def round_draws(posterior: Posterior) -> Posterior:
    """Return the posterior of the draws rounded to float16, computed in float32 as before.

    ``write`` stores draws in half the bytes where they lose nothing by it, which these do not.
    Evaluate and certify what this returns: then what is stored is what was evaluated.

    Args:
      posterior: S draws of float32 leaves; other leaves stay as they are.

    Raises:
      ZooError: A number exceeds what float16 holds.
    """

    def narrow(leaf: Any) -> Any:
        if leaves.is_key(leaf) or leaf.dtype != np.float32:
            return leaf
        with np.errstate(over="ignore"):
            rounded = np.asarray(leaf).astype(np.float16).astype(np.float32)
        if not np.isfinite(rounded).all():
            raise ZooError("Draws above 65504 do not fit float16: store them as they are.")
        return jax.numpy.asarray(rounded)

    return dataclasses.replace(posterior, samples=jax.tree.map(narrow, posterior.samples))


def write_draws(path: str | os.PathLike[str], posterior: Posterior) -> None:
    """Write draws; float32 leaves as float16 where that loses nothing.

    Raises:
      ZooError: A number is not finite.
    """
    names = flatten_names(one_draw(posterior))
    stored = {}
    for (name, like), leaf in zip(names.items(), as_arrays(posterior.samples), strict=True):
        stored[name] = leaf if leaves.is_key(like) else _narrow(name, np.asarray(leaf))
        if leaves.is_key(like):
            stored[name] = leaves.from_plain(leaf, like)
    files.write_arrays(path, stored)


def _narrow(name: str, leaf: np.ndarray) -> np.ndarray:
    if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
        raise ZooError(f"The draws of {name} hold numbers that are not finite.")
    if leaf.dtype != np.float32:
        return leaf
    with np.errstate(over="ignore"):
        half = leaf.astype(np.float16)
    # As bits, not as numbers: the draws' hash tells -0 from 0.
    same = np.array_equal(half.astype(np.float32).view(np.uint32), leaf.view(np.uint32))
    return half if same else leaf


def read_draws(
    path: str | os.PathLike[str], record: EntryRecord, input_shape: tuple[int, ...]
) -> Posterior:
    """Read what ``write_draws`` wrote, for the network of a record.

    Raises:
      ValueError: The file is damaged, or does not fit the network; the message names what differs.
    """
    network = find_network(record.network).build(make_settings(record), record.num_classes)
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), network, input_shape))
    wanted = flatten_names(expected)
    # Before anything is read: a header that does not fit is not worth its numbers.
    headers = files.inspect_arrays(path)
    check_draws(os.fspath(path), headers, wanted, {n: _widened(h) for n, h in headers.items()})
    arrays = files.read_arrays(path)
    draws = [
        jax.numpy.asarray(_widen(arrays[name]) if not leaves.is_key(like) else arrays[name])
        for name, like in wanted.items()
    ]
    samples = jax.tree.unflatten(jax.tree.structure(expected), draws)
    return Posterior(get_apply_fn(network), samples, decision_rule=record.decision_rule)


def _widened(header: files.ArrayHeader) -> str:
    return "float32" if header.dtype == np.float16 else header.lost or header.dtype.name


def _widen(leaf: np.ndarray) -> np.ndarray:
    return leaf.astype(np.float32) if leaf.dtype == np.float16 else leaf
