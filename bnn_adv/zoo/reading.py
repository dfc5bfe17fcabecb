"""Entries by name, and from any folder; checked before anyone believes them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bnn_adv.certification import Certificate, load_certificate, verify_certificate
from bnn_adv.compute import files
from bnn_adv.evaluation.verification_arrays import VerificationError
from bnn_adv.posteriors.posterior import Posterior, hash_draws
from bnn_adv.zoo.entry import Entry
from bnn_adv.zoo.folder import CERTIFICATE, DRAWS, RECORD, check_files, read_draws
from bnn_adv.zoo.record import EntryRecord, ZooError

ENTRIES = Path(__file__).parent / "entries"
"""The entries that ship with the package."""


def names() -> tuple[str, ...]:
    """Return the names of the posteriors that ship with the package, sorted."""
    folders = (path for path in ENTRIES.iterdir() if path.is_dir())
    return tuple(sorted(path.name for path in folders if not path.name.startswith((".", "_"))))


def load(name: str, *, verify: bool = True) -> Entry:
    """Return a posterior that ships with the package.

    Args:
      name: One of ``names()``.
      verify: As for ``read``.

    Raises:
      ZooError: There is no such entry, or it is not as it was written, see ``read``.
    """
    if name not in names():
        raise ZooError(f"There is no zoo entry {name!r}. Known: {', '.join(names())}.")
    return read(ENTRIES / name, verify=verify)


def read(folder: str | os.PathLike[str], *, verify: bool = True) -> Entry:
    """Return the entry in a folder that ``write`` has written.

    Sizes and hashes of all files are checked, that the draws fit the network that the record names,
    and that the certificate is of these draws and of this decision rule. The referee, which shares
    no code with what certifies, then confirms every claim of the certificate. Nothing is unpickled,
    and no module that the record names is imported. What the record says was measured on other
    inputs is its writer's word: its commands measure it again.

    Args:
      folder: Of one entry.
      verify: Whether the referee has to confirm the certificate, which takes a few seconds at
        most. False leaves only that out: the certificate then is the file's word.

    Raises:
      ZooError: The folder is damaged, has other files, or is not what it says; the message names
        what differs and what to do.
    """
    folder = Path(folder).expanduser()
    return read_files(folder, folder.name, verify=verify)


def read_files(folder: Path, name: str, *, verify: bool) -> Entry:
    """Return the entry ``name`` in a folder of any name, see ``read``."""
    check_files(folder)
    stored = files.read_json(folder / RECORD)
    claimed = stored.pop("name", None) if isinstance(stored, dict) else None
    if claimed != name:
        raise ZooError(
            f"The zoo entry {folder} says that it is {claimed!r}, not {name!r}: give its folder "
            "that name, or put back its own files."
        )
    try:
        record = EntryRecord.from_json(stored)
        certificate = load_certificate(folder / CERTIFICATE)
        posterior = read_draws(folder / DRAWS, record, certificate.x.shape[1:])
    except (ValueError, OverflowError, TypeError) as error:
        # JAX says so in more than one way that a network is larger than anything can be.
        raise ZooError(f"The zoo entry {folder} is refused: {error}") from error
    _check_certificate(folder, record, certificate, posterior)
    entry = Entry(name, posterior, certificate.x, certificate.y, certificate, record)
    if verify:
        _verify(folder, entry)
    return entry


def _check_certificate(
    folder: Path, record: EntryRecord, certificate: Certificate, posterior: Posterior
) -> None:
    """Raise unless a certificate is of an entry's draws, rule and inputs."""
    pairs = {
        "draws of the hash": (certificate.draws_hash, hash_draws(posterior)),
        "the decision rule": (certificate.decision_rule, record.decision_rule),
        "a number of draws of": (certificate.num_samples, posterior.num_samples),
        "a number of inputs of": (len(certificate.y), len(record.indices)),
    }
    differing = [f"{what} {a}, not {b}" for what, (a, b) in pairs.items() if a != b]
    if differing:
        raise ZooError(
            f"The certificate of the zoo entry {folder} is of {'; of '.join(differing)}: it says "
            "nothing of this posterior. Put back the files that were written together, or certify "
            "again and write the entry again."
        )
    labels = np.asarray(certificate.y)
    if labels.min() < 0 or labels.max() >= record.num_classes:
        raise ZooError(
            f"The zoo entry {folder} has labels beyond its {record.num_classes} classes."
        )


def _verify(folder: Path, entry: Entry) -> None:
    try:
        found = verify_certificate(folder / CERTIFICATE, entry.posterior, x=entry.x, y=entry.y)
        found.check()
    except VerificationError as error:
        raise ZooError(
            f"The referee does not confirm the certificate of the zoo entry {folder}: {error} "
            "Do not use its claims; put back the files that were written, or write it again."
        ) from error
