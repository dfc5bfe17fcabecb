"""What is known of one posterior of the zoo, as a plain record; what was not measured is None."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from bnn_adv.report.wording import Measured

SCHEMA_VERSION = 2
TASKS = ("detection", "shift")
NOTHING = Measured(None)
"""What was not measured."""


class RadiusRecord(NamedTuple):
    """What was found within one radius, all on the same inputs.

    norm: ``"linf"``, ``"l2"`` or ``"l1"``.
    epsilon: Radius.
    num_test: Inputs.
    published: Accuracy that the published attack leaves, a share in [0, 1] with its 95 % interval.
    attacked: Accuracy that the strong attacks leave.
    certified: Share that is certified.
    fresh: Accuracy of new draws on what the strong attacks found.
    mean_weights: Accuracy that the strong attacks leave of one network, whose weights are the
      draws' mean.
    """

    norm: str
    epsilon: float
    num_test: int
    published: Measured = NOTHING
    attacked: Measured = NOTHING
    certified: Measured = NOTHING
    fresh: Measured = NOTHING
    mean_weights: Measured = NOTHING


class AurocRecord(NamedTuple):
    """How well an uncertainty tells two kinds of inputs apart.

    task: ``"detection"``: attacked inputs from clean ones; ``"shift"``: another data set's inputs
      from the posterior's own.
    score: The uncertainty, as ``"entropy"``.
    other: Of ``"shift"``: the other data set.
    clean: AUROC where nobody attacks the uncertainty, in [0, 1], with its 95 % interval.
    attacked: AUROC where the attack aims at the uncertainty.
    """

    task: str
    score: str
    other: str = ""
    clean: Measured = NOTHING
    attacked: Measured = NOTHING


@dataclasses.dataclass(frozen=True)
class PosteriorRecord:
    """One posterior, how it was trained, and all that was measured of it.

    Args:
      name: Lower case letters, digits and underscores; its address within the page.
      dataset: Name of its data set.
      method: How it was found, as ``"vi"``.
      training: ``"standard"``, ``"adversarial"`` or ``"interval"``.
      network: In words.
      num_samples: Draws, S.
      num_parameters: Parameters a draw.
      command: What trained and evaluated it.
      seed: Of that command.
      hardware: Where it ran.
      accuracy: On clean test inputs, a share in [0, 1] with its 95 % interval.
      radii: What was found, one record a radius.
      aurocs: Detection of attacks and of a semantic shift.
      masking: Signs of gradient masking that were raised; None: not looked for.
      mixed: Whether chains have mixed; None: not judged, or there are none.
      training_seconds: Time of training.
      evaluation_seconds: Time of the strong attacks and the certificates.
      shipped: Name in ``bnn_adv.zoo`` of the same draws; empty: they do not ship.
      remarks: Sentences that a reader has to know.

    Raises:
      ValueError: A field is not what it must be; the message names the posterior and the field.
    """

    name: str
    dataset: str
    method: str
    training: str
    network: str
    num_samples: int
    num_parameters: int
    command: str
    seed: int
    hardware: str
    accuracy: Measured = NOTHING
    radii: tuple[RadiusRecord, ...] = ()
    aurocs: tuple[AurocRecord, ...] = ()
    masking: tuple[str, ...] | None = None
    mixed: bool | None = None
    training_seconds: float | None = None
    evaluation_seconds: float | None = None
    shipped: str = ""
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what a page could not show, or would show wrongly."""
        if not re.fullmatch("[a-z0-9_]+", self.name):
            raise ValueError(
                f"{self.name!r} is no name of a posterior: lower case letters, digits, underscores."
            )
        self._check_share("accuracy", self.accuracy)
        for name in ("training_seconds", "evaluation_seconds"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{self.name}: {name} must be at least 0 or None, got {value}.")
        seen = [(radius.norm, radius.epsilon) for radius in self.radii]
        if len(set(seen)) < len(seen):
            raise ValueError(f"{self.name}: a radius stands twice in its record: {seen}.")
        for radius in self.radii:
            self._check_radius(radius)
        for auroc in self.aurocs:
            if auroc.task not in TASKS:
                raise ValueError(
                    f"{self.name}: unknown task {auroc.task!r}. Known: {', '.join(TASKS)}."
                )
            for field in ("clean", "attacked"):
                self._check_share(f"{auroc.task}.{field}", getattr(auroc, field))

    def _check_radius(self, radius: RadiusRecord) -> None:
        if not (math.isfinite(radius.epsilon) and radius.epsilon >= 0 and radius.num_test >= 1):
            raise ValueError(
                f"{self.name}: a radius needs epsilon of at least 0 and at least 1 input, got "
                f"{radius.epsilon} and {radius.num_test}."
            )
        for field in ("published", "attacked", "certified", "fresh", "mean_weights"):
            self._check_share(field, getattr(radius, field))
        low, high = radius.certified.value, radius.attacked.value
        if low is not None and high is not None and low > high:
            raise ValueError(
                f"{self.name}: {low} is certified and {high} left by attacks within "
                f"{radius.epsilon:g}: on the same inputs this contradicts itself."
            )

    def _check_share(self, what: str, measured: Measured) -> None:
        value, interval = measured
        ends = (0.0, 1.0) if interval is None else interval
        right = interval is None if value is None else 0 <= ends[0] <= value <= ends[1] <= 1
        if not right:
            raise ValueError(
                f"{self.name}: {what} must be a share in [0, 1] within its interval, or not "
                f"measured, got {value} in {interval}."
            )

    def to_json(self) -> dict[str, Any]:
        """Return every field as JSON values; None is what was not measured."""
        return {"schema_version": SCHEMA_VERSION} | {
            name: _to_json(value) for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PosteriorRecord:
        """Return the record that ``to_json`` wrote, of this version or the one before.

        Raises:
          ValueError: It is of another version, or a field is missing, unknown or wrong.
        """
        values = dict(record)
        version = values.pop("schema_version", None)
        if version == 1:
            # Before the means of draws' weights were attacked.
            radii = values.pop("radii", None)
            if radii is not None:
                if any("mean_weights" in part for part in radii):
                    raise ValueError(
                        "A record of schema version 1 has unknown fields: mean_weights."
                    )
                values["radii"] = [{**part, "mean_weights": None} for part in radii]
        elif version != SCHEMA_VERSION:
            raise ValueError(
                f"A record of schema version {version!r}; this version reads 1 and "
                f"{SCHEMA_VERSION}. Run the study again."
            )
        known = {field.name for field in dataclasses.fields(cls)}
        if values.keys() != known:
            raise ValueError(
                "A record lacks, or has unknown, fields: "
                f"{', '.join(sorted(values.keys() ^ known))}. Run the study again."
            )
        masking = values["masking"]
        return cls(
            **{
                **values,
                "accuracy": _measured(values["accuracy"]),
                "radii": tuple(_read(RadiusRecord, part) for part in values["radii"]),
                "aurocs": tuple(_read(AurocRecord, part) for part in values["aurocs"]),
                "masking": None if masking is None else tuple(masking),
                "remarks": tuple(values["remarks"]),
            }
        )


def _to_json(value: Any) -> Any:
    if isinstance(value, Measured):
        if value.value is None:
            return None
        interval = value.interval
        return {"value": value.value, "interval": None if interval is None else list(interval)}
    if isinstance(value, RadiusRecord | AurocRecord):
        return {name: _to_json(part) for name, part in value._asdict().items()}
    return [_to_json(part) for part in value] if isinstance(value, tuple) else value


def _measured(value: Any) -> Measured:
    if value is None:
        return NOTHING
    interval = value["interval"]
    return Measured(value["value"], None if interval is None else (interval[0], interval[1]))


def _read(kind: Any, part: Mapping[str, Any]) -> Any:
    if set(part) != set(kind._fields):
        differing = ", ".join(sorted(set(part) ^ set(kind._fields)))
        raise ValueError(f"A record lacks, or has unknown, fields: {differing}.")
    shares = {name for name, default in kind._field_defaults.items() if default is NOTHING}
    return kind(**{k: _measured(v) if k in shares else v for k, v in part.items()})
