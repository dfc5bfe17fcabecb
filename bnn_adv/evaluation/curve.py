"""Accuracy against the radius of the ball, and for every image the smallest radius found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bnn_adv.attacks.threat import Threat, box_radius, with_radius
from bnn_adv.compute import programs
from bnn_adv.compute.types import Images, Numbers
from bnn_adv.evaluation import metrics
from bnn_adv.evaluation.cascade import RunContext, Subject, knows, predict, run_cascade
from bnn_adv.evaluation.suites import Entry
from bnn_adv.posteriors.decision import predicted_class

STEPS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Radii of the curve, in units of the threat model's."""


class Curve(NamedTuple):
    """Robustness against the radius on N images.

    epsilons: Radii, ascending, [G].
    accuracy: Share of images that no attack breaks within each, [G], in [0, 1]; an image that was
      broken within a radius is broken within every larger one.
    intervals: 95 % Wilson intervals, [G] pairs.
    smallest: Norm of the smallest perturbation found for every image, [N]: 0 where the clean image
      is wrong, infinite where none was found within the whole box. Upper bounds of the truth.
    median: Median of ``smallest`` over all images; infinite where half of them have none.
    """

    epsilons: np.ndarray
    accuracy: np.ndarray
    intervals: list[list[float]]
    smallest: np.ndarray
    median: float

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers ready for JSON, infinities as None."""
        return {
            "epsilons": [float(epsilon) for epsilon in self.epsilons],
            "accuracy": [float(share) for share in self.accuracy],
            "intervals": self.intervals,
            "num_images": len(self.smallest),
            "median_smallest_epsilon": _finite(self.median),
            "smallest_epsilon": [_finite(value) for value in self.smallest],
        }


def trace_curve(
    entries: Sequence[Entry],
    minimal: Sequence[Entry],
    subject: Subject,
    clean: np.ndarray,
    context: RunContext,
    *,
    found: np.ndarray | None = None,
    epsilons: Sequence[float] | None = None,
    num_bisections: int = 6,
) -> Curve:
    """Attack at ascending radii, then narrow down every image's smallest radius.

    Bisection runs the attacks with a radius of its own for every image, between the largest one
    that it withstood and the smallest perturbation found; minimum-norm attacks (FAB) look from the
    other side. What counts is the norm of a perturbation that fools, never the radius allowed.

    Args:
      entries: Attacks within a ball, in order.
      minimal: Attacks that minimise the norm.
      subject: What is attacked.
      clean: Log of the posterior predictive at the clean images, [N, C].
      context: Key, sizes, progress, checkpoints.
      found: Inputs that other attacks have found, [N, ...]; those that fool count.
      epsilons: Radii of the curve; None takes ``STEPS`` times the threat model's.
      num_bisections: Rounds of bisection, at least 0.
    """
    x, y, threat = subject.x, subject.y, subject.threat
    # Of radii that differ by image, the median is the unit of the grid.
    radius, whole = float(np.median(threat.epsilon)), box_radius(threat, x.shape[1:])
    grid = [step * radius for step in STEPS] if epsilons is None else list(epsilons)
    grid = sorted({min(float(epsilon), whole) for epsilon in grid})
    correct = predicted_class(clean) == y
    smallest = np.where(correct, np.inf, 0.0)
    withstood = np.zeros(len(x))

    def take(images: np.ndarray, log_probs: np.ndarray) -> None:
        fooled = predicted_class(log_probs) != y
        distance = np.asarray(_distance(threat, images, x), float)
        smallest[fooled] = np.minimum(smallest, distance)[fooled]

    def attack(radii: np.ndarray, rows: np.ndarray, stage: str) -> None:
        """Attack the images ``rows``, [N] booleans, each within its own radius."""
        there = subject._replace(threat=with_radius(threat, radii.astype(x.dtype)))
        own = context._replace(prefix=f"{context.prefix}curve/{stage}/")
        result = run_cascade(entries, 1, there, clean, own, standing=rows)
        take(result.worst, result.log_probs)
        failed = rows & result.standing
        withstood[failed] = np.maximum(withstood, radii)[failed]

    if found is not None:
        take(found, predict(subject.posterior, found, context.settings))
    for number, epsilon in enumerate([*grid, whole]):
        # What is already broken within this radius needs no attack.
        rows = correct & (smallest > epsilon)
        if rows.any() and (number < len(grid) or epsilon > grid[-1]):
            attack(np.full(len(x), epsilon), rows, f"grid{number}")
    for number in range(num_bisections):
        rows = correct & np.isfinite(smallest)
        if rows.any():
            middle = (np.minimum(withstood, smallest) + np.where(rows, smallest, 0)) / 2
            attack(np.where(rows, middle, 0), rows, f"bisection{number}")
    for entry in minimal:
        if knows(entry, threat):
            there = subject._replace(threat=with_radius(threat, whole))
            own = context._replace(prefix=f"{context.prefix}curve/")
            result = run_cascade([entry], 1, there, clean, own)
            take(result.worst, result.log_probs)
    accuracy = np.array([(smallest > epsilon + _slack(epsilon)).mean() for epsilon in grid])
    intervals = [list(metrics.wilson_interval(float(share), len(x))) for share in accuracy]
    return Curve(np.array(grid), accuracy, intervals, smallest, _median(smallest))


@programs.jit
def _distance(threat: Threat, x: Images, x_clean: Images) -> Numbers:
    return threat.distance(x, x_clean)


def _slack(epsilon: float) -> float:
    """Return float32's rounding of a distance near ``epsilon``: such an image lies in the ball."""
    return 1e-6 * max(epsilon, 1.0)


def _median(values: np.ndarray) -> float:
    # Not numpy's: the mean of two infinities is one, that of a number and infinity too.
    ordered = np.sort(values)
    low, high = ordered[(len(values) - 1) // 2], ordered[len(values) // 2]
    return float(low if low == high else (low + high) / 2)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
