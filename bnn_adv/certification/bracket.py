"""Both sides of the truth: what is certified, and what no attack of a suite has broken."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_adv.certification.certificate import Certificate
from bnn_adv.evaluation.metrics import wilson_interval
from bnn_adv.evaluation.records import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1


class ContradictionError(RuntimeError):
    """An input is certified and broken: one of the two is wrong, which is a bug."""


def describe_certificate(certificate: Certificate) -> dict[str, Any]:
    """Return every number of a certificate as JSON values.

    Args:
      certificate: Of N inputs.
    """
    count, radii = len(certificate.y), np.asarray(certificate.epsilon)
    ends = [float(radii.min()), float(radii.max())]
    shares = {
        "accuracy": float(np.mean(certificate.clean_correct)),
        "certified_accuracy": certificate.certified_accuracy,
    }
    intervals = {f"{k}_interval": list(wilson_interval(v, count)) for k, v in shares.items()}
    found = {
        "schema_version": SCHEMA_VERSION,
        "experiment": "certify",
        "norm": certificate.norm,
        "epsilon": ends[1],
        **({"epsilon_range": ends} if ends[0] < ends[1] else {}),
        "box": list(certificate.box),
        "num_test": count,
        "num_samples": certificate.num_samples,
        "decision_rule": certificate.decision_rule,
        **certificate.settings,
        **shares,
        **intervals,
        "certified_accuracy_real": certificate.certified_accuracy_real,
        "median_cancellation": _median(certificate.cancellation[certificate.clean_correct]),
        "draws_hash": certificate.draws_hash,
        "certify_seconds": round(certificate.seconds, 1),
        "seconds": round(certificate.seconds, 1),
    }
    if certificate.settings["num_halvings"]:
        radius = np.asarray(certificate.radius, float)
        found |= {"median_certified_radius": _median(radius), "certified_radius": radius.tolist()}
    return found


def _median(values: np.ndarray) -> float | None:
    """Return the lower median: a value that at least half reach."""
    return float(np.sort(values)[(len(values) - 1) // 2]) if len(values) else None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Bracket:
    """The share of inputs on which a posterior is robust, from below and from above.

    Args:
      evaluation: What attacks left.
      certificate: What is certified, of the same draws, inputs and threat.
    """

    evaluation: Evaluation
    certificate: Certificate

    @property
    def certified_accuracy(self) -> float:
        """Share of inputs that are certified: no attack breaks them."""
        return self.certificate.certified_accuracy

    @property
    def adversarial_accuracy(self) -> float:
        """Share of inputs that withstood the attacks."""
        return self.evaluation.adversarial_accuracy

    @property
    def record(self) -> dict[str, Any]:
        """Every number as JSON values: the certificate's, and the attacks' beside them."""
        attacked = self.evaluation
        found = describe_certificate(self.certificate)
        # The attacks' prediction at clean inputs counts; the certificate's own is the same.
        found |= {
            "suite": attacked.suite,
            "adversarial_accuracy": attacked.adversarial_accuracy,
            "adversarial_accuracy_interval": list(attacked.adversarial_accuracy_interval),
            "counts": self.counts,
            "evaluation": attacked.record,
            "seconds": round(self.certificate.seconds + attacked.seconds, 1),
        }
        if attacked.curve is not None:
            rows = attacked.provenance.curve_indices
            smallest = [None if np.isinf(v) else float(v) for v in attacked.curve.smallest]
            median = attacked.curve.median
            found |= {
                "curve_indices": rows,
                "smallest_epsilon": smallest,
                "median_smallest_epsilon": None if np.isinf(median) else float(median),
            }
            if "certified_radius" in found:
                # Of the same inputs as the attacks'.
                found["median_certified_radius"] = _median(self.certificate.radius[rows])
        return found

    @property
    def counts(self) -> dict[str, int]:
        """How many inputs are certified, broken, neither, and wrong from the start."""
        total, certified = self._count, int(self.certificate.certified.sum())
        shares = self.evaluation.accuracy, self.evaluation.adversarial_accuracy
        right, standing = (round(share * total) for share in shares)
        return {
            "certified": certified,
            "neither": standing - certified,
            "broken": right - standing,
            "wrong": total - right,
        }

    @property
    def _count(self) -> int:
        return len(self.certificate.y)

    def __repr__(self) -> str:
        """Return the bracket in one line."""
        low = wilson_interval(self.certified_accuracy, self._count)
        high = self.evaluation.adversarial_accuracy_interval
        return (
            f"certified {self.certified_accuracy:.3f} [{low[0]:.3f}, {low[1]:.3f}] <= true <= "
            f"attacked {self.adversarial_accuracy:.3f} [{high[0]:.3f}, {high[1]:.3f}]"
        )

    def __str__(self) -> str:
        """Return the table."""
        from bnn_adv.report.certification import format_certificate

        return format_certificate(self.record)

    def plot(self) -> Figure | None:
        """Return certified and attacked accuracy against the radius; None without radii."""
        from bnn_adv.report.certified_curve import certified_figure

        return certified_figure(self.record)

    def to_json(self) -> str:
        """Return every number as JSON text."""
        return json.dumps(self.record, indent=2, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """Return one self-contained HTML page."""
        from bnn_adv.report.certification import render_certificate

        return render_certificate(self.record)


def bracket(evaluation: Evaluation, certificate: Certificate) -> Bracket:
    """Put what attacks found and what is certified together.

    Args:
      evaluation: From ``evaluate``; of a ``Sampler`` its frozen draws count.
      certificate: From ``certify``, of the same posterior, inputs, labels and threat.

    Raises:
      TypeError: They are something else.
      ValueError: They are of different draws, inputs or threats; the message names what differs.
      ContradictionError: An input is certified and broken, or certified within a radius at which
        an attack broke it.
    """
    for what, kind in ((evaluation, Evaluation), (certificate, Certificate)):
        if not isinstance(what, kind):
            raise TypeError(
                f"bracket needs an Evaluation and a Certificate, got {type(what).__name__}. The "
                "order is bracket(evaluation, certificate)."
            )
    _check_same(evaluation, certificate)
    _check_consistent(evaluation, certificate)
    return Bracket(evaluation, certificate)


def _check_same(evaluation: Evaluation, certificate: Certificate) -> None:
    arrays, problem = evaluation.arrays, evaluation.problem
    radii = np.broadcast_to(np.asarray(arrays["epsilon"], np.float32), (len(arrays["y"]),))
    pairs: dict[str, tuple[Any, Any]] = {
        "draws": (evaluation.provenance.draws_hash, certificate.draws_hash),
        "decision rule": (problem.decision_rule, certificate.decision_rule),
        "norm": (problem.norm, certificate.norm),
        "box": (tuple(map(float, problem.box)), tuple(map(float, certificate.box))),
        "inputs": (arrays["x"], certificate.x),
        "labels": (arrays["y"], certificate.y),
        "radii": (radii, np.asarray(certificate.epsilon, np.float32)),
    }
    other = [name for name, (a, b) in pairs.items() if not np.array_equal(a, b)]
    if other:
        raise ValueError(
            f"Evaluation and certificate differ in {', '.join(other)}: certify what was attacked."
        )


def _check_consistent(evaluation: Evaluation, certificate: Certificate) -> None:
    arrays = evaluation.arrays
    lost = certificate.certified & (arrays["broken"] | ~arrays["clean_correct"])
    if evaluation.curve is not None:
        rows = np.asarray(evaluation.provenance.curve_indices)
        radius, smallest = certificate.radius[rows], evaluation.curve.smallest
        # A distance in float32 is rounded.
        lost[rows] |= (radius > 0) & (smallest < radius - 1e-6 * np.maximum(radius, 1.0))
    if lost.any():
        is_real = certificate.settings["arithmetic"] == "real"
        why = (
            'The certificate is of real arithmetic; certify with arithmetic="float32", and if the '
            "contradiction stays, it is a bug of bnn_adv"
            if is_real
            else "This is a bug of bnn_adv"
        )
        raise ContradictionError(
            f"{int(lost.sum())} of {len(lost)} inputs are certified and broken, the first of them "
            f"number {int(np.flatnonzero(lost)[0])}. {why}: neither number can be believed; please "
            "report it with both files."
        )
