"""Write an entry: all of it or nothing, and only what reads back as what was evaluated."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np

from bnn_adv.certification import Certificate
from bnn_adv.compute import files
from bnn_adv.data import Dataset
from bnn_adv.posteriors.posterior import Posterior, hash_draws, predict_log_probs
from bnn_adv.zoo.folder import (
    CERTIFICATE,
    DRAWS,
    HASHES,
    RECORD,
    hash_files,
    list_sizes,
    write_draws,
)
from bnn_adv.zoo.reading import read_files
from bnn_adv.zoo.record import EntryRecord, ZooError

MOST_BYTES = 5_000_000
"""Of all entries together: they are part of every installation."""

_APART = 1e-4
"""Largest difference of a probability between two evaluations of one network in float32."""


def write(
    folder: str | os.PathLike[str],
    posterior: Posterior,
    certificate: Certificate,
    record: EntryRecord,
    *,
    dataset: Dataset,
) -> Path:
    """Write an entry, under a temporary name until it has been read back and confirmed.

    Draws are stored as float16 where they lose nothing by it: give ``round_draws(posterior)`` to
    ``evaluate`` and ``certify`` and here, and the posterior that was evaluated is the one that is
    stored, bit for bit.

    Args:
      folder: New folder, whose name is the entry's: lower case letters, digits and underscores.
      posterior: The draws.
      certificate: Of these draws, at the test inputs ``record.indices``; with ``num_halvings=0``,
        as the referee may leave largest radii open.
      record: What it is and what was measured.
      dataset: The data set, whose test inputs were certified.

    Returns:
      The folder.

    Raises:
      FileExistsError: The folder exists.
      ZooError: Something does not belong together, the referee does not confirm the certificate,
        or the entry and those beside it exceed ``MOST_BYTES``.
    """
    folder = Path(folder).expanduser().absolute()
    _check(folder, posterior, certificate, record, dataset)
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}."
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix, suffix=files.TEMPORARY))
    try:
        write_draws(temporary / DRAWS, posterior)
        certificate.save(temporary / CERTIFICATE)
        files.write_json(temporary / RECORD, {"name": folder.name, **record.to_json()})
        files.write_json(temporary / HASHES, hash_files(temporary))
        _check_size(temporary, folder.parent)
        _check_same(read_files(temporary, folder.name, verify=True).posterior, posterior, dataset)
        umask = os.umask(0)
        os.umask(umask)
        # mkdtemp makes folders that only the owner reads; entries are meant to be shared.
        temporary.chmod(0o777 & ~umask)
        # Fails where another process has made the folder meanwhile: it holds files.
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _check(
    folder: Path,
    posterior: Posterior,
    certificate: Certificate,
    record: EntryRecord,
    dataset: Dataset,
) -> None:
    """Raise unless all that is to be written belongs together."""
    name = folder.name
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ZooError(
            f"{name!r} is no name of a zoo entry: lower case letters, digits and underscores, a "
            "letter first."
        )
    if folder.exists():
        raise FileExistsError(f"{folder} exists: delete it first, or choose another name.")
    if max(record.indices) >= len(dataset.x_test):
        raise ZooError(f"{dataset.name} has {len(dataset.x_test)} test inputs, numbered from 0.")
    rows = np.asarray(record.indices)
    pairs = {
        "data set": record.dataset == dataset.name,
        "number of classes": record.num_classes == dataset.num_classes,
        "decision rule": record.decision_rule == posterior.decision_rule,
        "certificate's draws": certificate.draws_hash == hash_draws(posterior),
        "certificate's inputs": np.array_equal(certificate.x, dataset.x_test[rows]),
        "certificate's labels": np.array_equal(certificate.y, dataset.y_test[rows]),
    }
    differing = [what for what, same in pairs.items() if not same]
    if differing:
        raise ZooError(
            f"What is to be written as {name} does not belong together; what differs: "
            f"{', '.join(differing)}. Certify the posterior's own draws at dataset.x_test[indices]."
        )


def _check_size(entry: Path, parent: Path) -> None:
    own = list_sizes(entry)
    beside = sum(
        sum(list_sizes(path).values())
        for path in parent.iterdir()
        if path.is_dir() and not path.name.startswith(".") and (path / HASHES).exists()
    )
    if sum(own.values()) + beside > MOST_BYTES:
        sizes = ", ".join(f"{name} {size:,}" for name, size in own.items())
        raise ZooError(
            f"The entry ({sizes} bytes) and those beside it ({beside:,} bytes) exceed the "
            f"{MOST_BYTES:,} bytes that a zoo may have. Give round_draws(posterior), fewer draws "
            'or inputs, or a certificate by "crown", which stores no places of lines.'
        )


def _check_same(found: Posterior, given: Posterior, dataset: Dataset) -> None:
    """Raise unless the network of the record predicts what the posterior's own function does."""
    rows = dataset.x_test[:16]
    ours, theirs = (np.exp(np.asarray(predict_log_probs(p, rows))) for p in (found, given))
    apart = float(np.abs(ours - theirs).max())
    if not apart <= _APART:
        raise ZooError(
            "The network and settings of the record predict otherwise than the posterior, by "
            f"{apart:.3g} in probability: give those that it was trained with."
        )
