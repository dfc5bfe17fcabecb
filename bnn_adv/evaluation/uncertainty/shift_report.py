"""What uncertainty tells about inputs of another kind, in numbers, and the file that says so."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bnn_adv.compute import files
from bnn_adv.evaluation.uncertainty.measures import SCORES
from bnn_adv.evaluation.uncertainty.score_objectives import SCORE_OBJECTIVES
from bnn_adv.evaluation.uncertainty.scores import Auroc, auroc
from bnn_adv.evaluation.uncertainty.selective import Selective, describe_selective

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1

_PROBLEM = {
    **{"schema_version": "i", "norm": "U", "epsilon": "f", "lower": "f", "upper": "f"},
    **{"num_samples": "i", "decision_rule": "U", "draws_hash": "U", "seconds": "f"},
}
"""By name: kind of dtype."""


class Shift(NamedTuple):
    """How a score tells inputs of another kind from those in distribution, and refuses errors.

    clean: AUROC of inputs of another kind, where the score is larger, against the others.
    out_attacked: Those of another kind attacked to look certain.
    in_attacked: Those in distribution attacked to look uncertain.
    both_attacked: Both.
    selective: Accuracy in distribution of what is not refused.
    selective_attacked: The same with every input attacked in its label or its score.
    selective_mixed: Of both kinds together, where no answer to the other kind is right.
    selective_mixed_attacked: The same attacked, the other kind to look certain.
    """

    clean: Auroc
    out_attacked: Auroc
    in_attacked: Auroc
    both_attacked: Auroc
    selective: Selective
    selective_attacked: Selective
    selective_mixed: Selective
    selective_mixed_attacked: Selective


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ShiftReport:
    """What ``evaluate_shift`` found; print it for tables.

    Args:
      norm: Of the threat model.
      epsilon: Its radius.
      box: Lower and upper end of inputs.
      num_in: Inputs in distribution, N.
      num_out: Inputs of another kind, M.
      num_samples: Draws, S.
      decision_rule: How the draws make one prediction.
      draws_hash: Hash of the draws.
      accuracy: Of clean inputs in distribution.
      scores: By name of ``SCORES``; a single draw has no mutual information.
      zero_gradients: By objective: shares of clean inputs, in distribution and of another kind,
        whose gradient is exactly zero.
      stuck: Shares of those that no objective moves.
      seconds: Time it took.
      arrays: What all of it follows from, and what ``save`` writes: by ``clean/in/SCORE`` and
        ``clean/out/SCORE`` scores, by ``attacked/...`` the same attacked (``answer`` for selective
        accuracy), by ``images/...`` the attacked inputs.
    """

    norm: str
    epsilon: float
    box: tuple[float, float]
    num_in: int
    num_out: int
    num_samples: int
    decision_rule: str
    draws_hash: str
    accuracy: float
    scores: dict[str, Shift]
    zero_gradients: dict[str, tuple[float, float]]
    stuck: tuple[float, float]
    seconds: float
    arrays: dict[str, np.ndarray]

    def to_dict(self) -> dict[str, Any]:
        """Return every number, ready for JSON."""
        numbers = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("arrays", "scores", "box", "zero_gradients", "stuck")
        }
        return {
            "schema_version": SCHEMA_VERSION,
            **numbers,
            "box": list(self.box),
            "scores": {
                name: {key: part._asdict() for key, part in shift._asdict().items()}
                for name, shift in self.scores.items()
            },
            "zero_gradients": {k: _by_kind(v) for k, v in self.zero_gradients.items()},
            "stuck": _by_kind(self.stuck),
        }

    def __repr__(self) -> str:
        """Return the numbers that count, in one line."""
        found = ", ".join(
            f"{name} {shift.clean.value:.3f} -> {shift.both_attacked.value:.3f}"
            for name, shift in self.scores.items()
        )
        return (
            f"ShiftReport({self.norm} {self.epsilon:g}, {self.num_in} against {self.num_out} "
            f"inputs, {self.num_samples} draws: AUROC by {found})"
        )

    def __str__(self) -> str:
        """Return tables."""
        # On demand, as the report brings matplotlib.
        from bnn_adv.report.shift import format_shift

        return format_shift(self.to_dict())

    def plot(self) -> Figure:
        """Return AUROC clean and attacked, and selective accuracy, as a figure."""
        from bnn_adv.report.shift import shift_figure

        return shift_figure(self.to_dict())

    def to_json(self) -> str:
        """Return every number as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """Return one self-contained HTML page."""
        from bnn_adv.report.shift import render_shift

        return render_shift(self.to_dict())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to an ``.npz`` file, atomically; ``load_shift`` reads it."""
        files.write_arrays(path, self.arrays)


def load_shift(path: str | os.PathLike[str]) -> ShiftReport:
    """Return a report that ``ShiftReport.save`` wrote: its numbers are computed anew.

    Raises:
      ValueError: The file holds something else, or not all of it.
      OSError: It cannot be read.
    """
    return summarise(files.read_arrays(path))


def summarise(arrays: Mapping[str, np.ndarray]) -> ShiftReport:
    """Return the report that follows from arrays, see ``ShiftReport.arrays``.

    Raises:
      ValueError: An array is missing or has another shape or type than it should; the message
        names it.
    """
    arrays = dict(arrays)
    _check(arrays)
    stated = {name: arrays[name].item() for name in _PROBLEM}
    names = [name for name in SCORES if f"clean/in/{name}" in arrays]
    objectives = [name for name in SCORE_OBJECTIVES if f"zero/in/{name}" in arrays]
    zeros = {
        kind: np.stack([arrays[f"zero/{kind}/{name}"] for name in objectives])
        for kind in ("in", "out")
    }
    lower, upper = stated.pop("lower"), stated.pop("upper")
    del stated["schema_version"]
    return ShiftReport(
        **stated,
        box=(lower, upper),
        num_in=len(arrays["x"]),
        num_out=len(arrays["x_out"]),
        accuracy=float(arrays["correct"].mean()),
        scores={name: _summarise(arrays, name) for name in names},
        zero_gradients={
            name: (float(zeros["in"][row].mean()), float(zeros["out"][row].mean()))
            for row, name in enumerate(objectives)
        },
        stuck=tuple(float(zeros[kind].all(axis=0).mean()) for kind in ("in", "out")),  # type: ignore[arg-type]
        arrays=arrays,
    )


def _summarise(arrays: Mapping[str, np.ndarray], name: str) -> Shift:
    clean = arrays[f"clean/in/{name}"], arrays[f"clean/out/{name}"]
    attacked = arrays[f"attacked/in/{name}"], arrays[f"attacked/out/{name}"]
    answer, correct = arrays[f"attacked/answer/{name}"], arrays[f"correct/{name}"]
    never = np.zeros(len(arrays["x_out"]), bool)

    def mix(scores: np.ndarray, right: np.ndarray, out: np.ndarray) -> Selective:
        return describe_selective(np.append(scores, out), np.append(right, never))

    return Shift(
        auroc(*clean),
        auroc(clean[0], attacked[1]),
        auroc(attacked[0], clean[1]),
        auroc(*attacked),
        describe_selective(clean[0], arrays["correct"]),
        describe_selective(answer, correct),
        mix(clean[0], arrays["correct"], clean[1]),
        mix(answer, correct, attacked[1]),
    )


def _check(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise unless all that a report follows from is there, of the right shapes."""
    sizes = {name: arrays[name].shape for name in ("x", "x_out") if name in arrays}
    one: dict[str, tuple[str, tuple[int, ...]]] = {name: (k, ()) for name, k in _PROBLEM.items()}
    if len(sizes) == 2 and all(len(shape) > 1 and shape[0] for shape in sizes.values()):
        rows = {"in": sizes["x"], "answer": sizes["x"], "out": sizes["x_out"]}
        one |= {"y": ("iu", sizes["x"][:1]), "correct": ("b", sizes["x"][:1])}
        for score in SCORES:
            if score != "entropy" and f"clean/in/{score}" not in arrays:
                continue
            one[f"correct/{score}"] = ("b", sizes["x"][:1])
            for kind, shape in rows.items():
                one[f"attacked/{kind}/{score}"] = ("f", shape[:1])
                one[f"images/{kind}/{score}"] = ("f", shape)
                if kind != "answer":
                    one[f"clean/{kind}/{score}"] = ("f", shape[:1])
        for name in SCORE_OBJECTIVES:
            if name == "entropy" or f"zero/in/{name}" in arrays:
                one |= {f"zero/{kind}/{name}": ("b", rows[kind][:1]) for kind in ("in", "out")}
    else:
        one |= {"x": ("f", (1, 1)), "x_out": ("f", (1, 1))}
    wrong = [
        name
        for name, (kinds, shape) in one.items()
        if name not in arrays
        or arrays[name].dtype.kind not in kinds
        or arrays[name].shape != shape
        or (arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all())
    ]
    if wrong or arrays["schema_version"].item() != SCHEMA_VERSION:
        raise ValueError(
            "These arrays are no report of semantic shift, or one of another version: missing or "
            f"malformed are {', '.join(wrong[:5]) or 'none'}"
            f"{f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''}. ShiftReport.save writes "
            "one."
        )


def _by_kind(shares: tuple[float, float]) -> dict[str, float]:
    return {"in": shares[0], "out": shares[1]}
