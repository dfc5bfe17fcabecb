"""Posteriors that ship with the package, small enough to attack and certify within a minute."""

from bnn_adv.zoo.entry import Entry
from bnn_adv.zoo.folder import round_draws
from bnn_adv.zoo.reading import load, names, read
from bnn_adv.zoo.record import EntryRecord, RecordedBracket, ZooError
from bnn_adv.zoo.writing import MOST_BYTES, write

__all__ = [
    "MOST_BYTES",
    "Entry",
    "EntryRecord",
    "RecordedBracket",
    "ZooError",
    "load",
    "names",
    "read",
    "round_draws",
    "write",
]
