"""What an evaluation found, field by field, and as the record that is saved."""

from __future__ import annotations

import dataclasses
import html
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bnn_adv.compute import files
from bnn_adv.evaluation.curve import Curve
from bnn_adv.evaluation.fresh_suite import FreshSuite
from bnn_adv.evaluation.masking import Check
from bnn_adv.evaluation.uncertainty import UncertaintyReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1


class ProblemRecord(NamedTuple):
    """What was evaluated.

    norm: Of the threat model: ``"linf"``, ``"l2"`` or ``"l1"``.
    epsilon: The radius; where inputs have their own, the largest.
    epsilon_range: Smallest and largest radius where inputs have their own; None else.
    box: Lower and upper end of inputs.
    num_test: Inputs, N.
    num_samples: Draws that predict, S.
    num_classes: Classes, C.
    precision: Of matrix products.
    decision_rule: How the draws make one prediction.
    """

    norm: str
    epsilon: float
    epsilon_range: tuple[float, float] | None
    box: tuple[float, float]
    num_test: int
    num_samples: int
    num_classes: int
    precision: str
    decision_rule: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        record = {**self._asdict(), "box": list(self.box)}
        if self.epsilon_range is None:
            del record["epsilon_range"]
        else:
            record["epsilon_range"] = list(self.epsilon_range)
        return record


class AttackRecord(NamedTuple):
    """What one attack of the suite did.

    name: Of its entry.
    attack: Of the attack.
    objective: What it climbed.
    surrogate: What was attacked in place of the posterior, ``"posterior"`` for itself.
    num_steps: Steps, or queries.
    uses_gradient: Whether it follows gradients.
    is_defined: Whether it knows the norm.
    tried: Images that it was run on, over all restarts.
    broke: Images that it broke.
    set_aside: Images that stood and that it was not run on, as others had come nowhere near.
    accuracy_after: Share that stands after it in the first round, in [0, 1].
    alone: Probe images that it breaks by itself; None where it was not run on all.
    only: Probe images that it alone breaks; None likewise.
    num_probed: Probe images whose clean prediction is right.
    seconds: Time that it took.
    """

    name: str
    attack: str
    objective: str
    surrogate: str
    num_steps: int
    uses_gradient: bool
    is_defined: bool
    tried: int
    broke: int
    set_aside: int
    accuracy_after: float
    alone: int | None
    only: int | None
    num_probed: int
    seconds: float


class Confirmed(NamedTuple):
    """What the referee says.

    num_confirmed: Images that fool by its own prediction.
    ok: Whether every claim was confirmed.
    """

    num_confirmed: int
    ok: bool


class Provenance(NamedTuple):
    """What an evaluation follows from.

    rng_key: Data of the key.
    draws_hash: Hash of the draws.
    inputs_hash: CRC-32 of the inputs.
    probe_indices: Images on which signs of masking were looked for.
    curve_indices: Images whose smallest radius was looked for.
    """

    rng_key: list[int]
    draws_hash: str
    inputs_hash: str
    probe_indices: list[int]
    curve_indices: list[int]


@dataclasses.dataclass(frozen=True, repr=False)
class Evaluation:
    """What an evaluation found; print it for a table, show it in a notebook for a page.

    Args:
      suite: Name of the suite.
      suite_description: What it is.
      problem: What was evaluated.
      accuracy: Share of clean inputs that are classified correctly, in [0, 1].
      accuracy_interval: Its 95 % Wilson interval.
      adversarial_accuracy: Share of inputs that withstand every attack (per-image worst case), in
        [0, 1]. An input at which an attack reached a prediction that is not finite does not
        withstand it. An upper bound of the truth, like every number that attacks give. Threat
        model: frozen, the attacker knows the very draws that predict.
      adversarial_accuracy_interval: Its 95 % Wilson interval.
      num_not_finite: Inputs at which an attack reached a prediction that is not finite.
      softmax_robustness: One less the mean largest change of a probability, in [0, 1].
      per_attack: Every attack in order: what it was run on, what it broke, what only it broke.
      fresh: What is left of a ``Sampler`` whose next draws no attacker knows; None for a posterior.
      num_probe: Images on which signs of masking were looked for.
      checks: Every sign of masking that was looked for, raised or not.
      curve: Accuracy against the radius; None where it was left out.
      uncertainty: Uncertainty under attack; None where the curve was left out.
      confirmed: What the referee says.
      provenance: What the evaluation follows from.
      seconds: Time it took.
      arrays: What ``save_adversarial`` writes, by name.
    """

    suite: str
    suite_description: str
    problem: ProblemRecord
    accuracy: float
    accuracy_interval: tuple[float, float]
    adversarial_accuracy: float
    adversarial_accuracy_interval: tuple[float, float]
    num_not_finite: int
    softmax_robustness: float
    per_attack: tuple[AttackRecord, ...]
    fresh: FreshSuite | None
    num_probe: int
    checks: tuple[Check, ...]
    curve: Curve | None
    uncertainty: UncertaintyReport | None
    confirmed: Confirmed
    provenance: Provenance
    seconds: float
    arrays: dict[str, np.ndarray]

    @property
    def flags(self) -> list[str]:
        """Names of the signs of masking that were raised."""
        return [check.name for check in self.checks if check.raised]

    @property
    def record(self) -> dict[str, Any]:
        """Every number, as the JSON values that are saved."""
        lost = {"num_not_finite": self.num_not_finite} if self.num_not_finite else {}
        return {
            "schema_version": SCHEMA_VERSION,
            "experiment": "attack",
            "suite": self.suite,
            "suite_description": self.suite_description,
            **self.problem.to_dict(),
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "adversarial_accuracy": self.adversarial_accuracy,
            "adversarial_accuracy_interval": list(self.adversarial_accuracy_interval),
            **lost,
            "softmax_robustness": self.softmax_robustness,
            "per_attack": [attack._asdict() for attack in self.per_attack],
            "fresh": None if self.fresh is None else self.fresh.to_dict(),
            "num_probe": self.num_probe,
            "checks": [check.to_dict() for check in self.checks],
            "curve": None if self.curve is None else self.curve.to_dict(),
            "uncertainty": None if self.uncertainty is None else self.uncertainty.to_dict(),
            "confirmed": self.confirmed._asdict(),
            "provenance": self.provenance._asdict(),
            "seconds": self.seconds,
        }

    def __repr__(self) -> str:
        """Return the numbers that count, in one line."""
        problem, fresh, flags = self.problem, "", ", ".join(self.flags)
        if self.fresh is not None:
            fresh = f", fresh accuracy={self.fresh.accuracy:.3f}"
        raised = f", signs of masking: {flags}" if flags else ""
        return (
            f"Evaluation({self.suite}, {problem.norm} {problem.epsilon:g}, {problem.num_test} "
            f"inputs, {problem.num_samples} draws: accuracy={self.accuracy:.3f}, "
            f"adversarial_accuracy={self.adversarial_accuracy:.3f}{fresh}{raised})"
        )

    def __str__(self) -> str:
        """Return the table."""
        # Reports bring matplotlib, which nobody needs who only imports the package.
        from bnn_adv.report.evaluation import format_evaluation

        return format_evaluation(self.record)

    def _repr_html_(self) -> str:
        """Return two tables for a notebook; ``to_html`` is the whole page."""
        from bnn_adv.report import evaluation as report
        from bnn_adv.report.table import Table, to_html

        record = self.record
        # As text: to what is marked up, text is added escaped.
        numbers = str(to_html(Table("", ("", "%"), tuple(report.list_numbers(record)))))
        attacks = str(to_html(report.attack_table(record)))
        signs = "".join(f"<li>{html.escape(text)}</li>" for text in report.raised(record))
        return (
            f"<p>{html.escape(report.describe_problem(record))}</p>\n{numbers}\n"
            f"<p>{html.escape(report.judge(record))}</p>\n"
            + (f"<ul>{signs}</ul>\n" if signs else "")
            + attacks
        )

    def plot(self) -> Figure | None:
        """Return the robustness curve as a figure; None where it was left out."""
        from bnn_adv.report.robustness_curve import curve_figure

        return curve_figure(self.record)

    def to_json(self) -> str:
        """Return every number as JSON text."""
        return json.dumps(self.record, indent=2, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """Return one self-contained HTML page."""
        from bnn_adv.report.evaluation_page import render_evaluation

        return render_evaluation(self.record)

    def save_adversarial(self, path: str | os.PathLike[str]) -> None:
        """Write the worst input of every image to an ``.npz`` file, atomically.

        ``bnn_adv.verify_adversarial(path, posterior)`` confirms it without any of the attacks.
        """
        files.write_arrays(path, self.arrays)
