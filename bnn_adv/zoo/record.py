"""What an entry says of itself: its network, its data, its training, and what was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from bnn_adv.attacks.threat import THREATS
from bnn_adv.evaluation.metrics import wilson_interval
from bnn_adv.networks import NETWORKS
from bnn_adv.posteriors.decision import DecisionRule, check_rule

SCHEMA_VERSION = 1


class ZooError(ValueError):
    """An entry is damaged, is not what it says, or does not exist."""


class RecordedBracket(NamedTuple):
    """What was measured within one radius, on the same inputs.

    norm: ``"linf"``, ``"l2"`` or ``"l1"``.
    epsilon: Radius.
    num_test: Inputs, the first ones of the test set.
    accuracy: Share of clean inputs that are right, in [0, 1].
    certified_accuracy: Share that is certified; None: not measured.
    adversarial_accuracy: Share that withstood the attacks; None: not measured.
    suite: The attacks; empty: none.
    command: What made these numbers.
    seed: Of that command.
    hardware: Where it ran.
    """

    norm: str
    epsilon: float
    num_test: int
    accuracy: float
    certified_accuracy: float | None
    adversarial_accuracy: float | None
    suite: str
    command: str
    seed: int
    hardware: str

    def __str__(self) -> str:
        """Return both sides in one line, with 95 % Wilson intervals over inputs."""
        low, high = map(self._percent, (self.certified_accuracy, self.adversarial_accuracy))
        by = f" by {self.suite}" if self.suite else ""
        return (
            f"{self.norm} {self.epsilon:g}: certified {low} <= true <= attacked {high} % of "
            f"{self.num_test:,} test inputs{by}"
        )

    def _percent(self, share: float | None) -> str:
        if share is None:
            return "(not measured)"
        ends = wilson_interval(share, self.num_test)
        return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in (share, *ends)))


@dataclasses.dataclass(frozen=True)
class EntryRecord:
    """What an entry says of itself.

    Args:
      network: Name in ``networks.NETWORKS``. Modules of one's own are refused: reading an entry
        imports nothing that the entry names.
      settings: Those of the network, by name; what is left out has its default.
      dataset: Name of the data set.
      num_classes: Its classes.
      indices: Which of its test inputs the entry holds.
      method: How the posterior was found, in a few words: ``"deep ensemble"``.
      training: How it was trained, as JSON values: at least ``likelihood`` (``"categorical"``, or
        the robust one), ``command``, ``seed`` and ``hardware``.
      brackets: What was measured, one record a radius.
      decision_rule: How the draws make one prediction.

    Raises:
      ZooError: A field is not what it must be; the message names it.
    """

    network: str
    settings: Mapping[str, Any]
    dataset: str
    num_classes: int
    indices: tuple[int, ...]
    method: str
    training: Mapping[str, Any]
    brackets: tuple[RecordedBracket, ...]
    decision_rule: DecisionRule = "mean_probabilities"

    def __post_init__(self) -> None:
        """Check every field."""
        for what, holds in self._conditions().items():
            if not holds:
                raise ZooError(f"The record of a zoo entry: {what}.")
        try:
            check_rule(self.decision_rule)
        except ValueError as error:
            raise ZooError(f"The record of a zoo entry: {error}") from None
        for bracket in self.brackets:
            _check_bracket(bracket)

    def _conditions(self) -> dict[str, bool]:
        needed = ("likelihood", "command", "seed", "hardware")
        texts = (self.network, self.dataset, self.method)
        return {
            "network, dataset and method are text": all(isinstance(v, str) and v for v in texts),
            f"network {self.network!r} is one of {', '.join(NETWORKS)}": self.network
            in [*NETWORKS],
            "settings and training are objects": isinstance(self.settings, Mapping)
            and isinstance(self.training, Mapping),
            "num_classes is an integer of at least 2": _is_count(self.num_classes, 2),
            "indices are distinct integers of at least 0": bool(self.indices)
            and all(_is_count(index, 0) for index in self.indices)
            and len(set(self.indices)) == len(self.indices),
            f"training says {', '.join(needed)}": all(name in self.training for name in needed),
        }

    def to_json(self) -> dict[str, Any]:
        """Return every field as JSON values."""
        record = {"schema_version": SCHEMA_VERSION, **vars(self)}
        return {
            **record,
            "settings": dict(self.settings),
            "training": dict(self.training),
            "indices": list(self.indices),
            "brackets": [bracket._asdict() for bracket in self.brackets],
        }

    @classmethod
    def from_json(cls, record: Any) -> EntryRecord:
        """Return the record that ``to_json`` wrote.

        Raises:
          ZooError: It is of another version, or lacks a field, or has one too many.
        """
        if not isinstance(record, Mapping):
            raise ZooError("The record of a zoo entry is a JSON object.")
        version = record.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ZooError(
                f"The record has schema version {version!r}; this library reads {SCHEMA_VERSION}. "
                "Use the library that wrote it, or write the entry again."
            )
        values = {name: value for name, value in record.items() if name != "schema_version"}
        _check_names(values, [field.name for field in dataclasses.fields(cls)], "the record")
        brackets = values["brackets"]
        if not isinstance(brackets, list) or not isinstance(values["indices"], list):
            raise ZooError("brackets and indices of a zoo entry's record are lists.")
        for part in brackets:
            _check_names(part, RecordedBracket._fields, "a bracket")
        made = tuple(RecordedBracket(**part) for part in brackets)
        return cls(**{**values, "indices": tuple(values["indices"]), "brackets": made})


def _check_names(values: Any, names: Any, what: str) -> None:
    found = set(values) if isinstance(values, Mapping) else set()
    if found != set(names):
        differing = ", ".join(sorted(found ^ set(names)))
        raise ZooError(f"A zoo entry: missing in {what}, or unknown there: {differing}.")


def _check_bracket(bracket: RecordedBracket) -> None:
    """Raise where a bracket contradicts itself."""
    shares = [bracket.certified_accuracy, bracket.adversarial_accuracy, bracket.accuracy]
    known = [share for share in shares if share is not None]
    numbers = [*known, bracket.epsilon]
    right = (
        all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers)
        and known == sorted(known)
        and all(0 <= share <= 1 for share in known)
        and 0 <= bracket.epsilon < float("inf")
        and bracket.accuracy is not None
        and bracket.norm in [*THREATS]
        and _is_count(bracket.num_test, 1)
        and _is_count(bracket.seed, 0)
        and all(isinstance(v, str) for v in (bracket.suite, bracket.command, bracket.hardware))
    )
    if not right:
        raise ZooError(
            "A bracket of a zoo entry needs a norm, a radius, numbers of inputs and of the seed, "
            "texts, and shares with 0 <= certified <= attacked <= clean <= 1; got "
            f"{bracket!r}."
        )


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
