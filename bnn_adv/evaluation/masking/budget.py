"""What the radius does: more of it helps, and all of it breaks everything."""

from __future__ import annotations

import numpy as np

from bnn_adv.attacks import pgd
from bnn_adv.attacks.threat import box_radius
from bnn_adv.attacks.trace import Trace
from bnn_adv.compute.types import RngKey
from bnn_adv.evaluation.masking.base import Budget, Case, Check, Evidence, Probe, allowance
from bnn_adv.evaluation.masking.strength import choose_black_box, predict, search, walk
from bnn_adv.posteriors.decision import NO_CLASS, predicted_class

_MULTIPLES = (0.5, 1.0, 2.0)


def measure_budget(
    rng_key: RngKey,
    case: Case,
    probe: Probe,
    iterated: dict[str, Trace],
    *,
    main_objective: str,
    num_steps: int,
    num_queries: int,
) -> Budget:
    """Return what PGD leaves at several radii, and what anything leaves in the whole box.

    Args:
      rng_key: Typed key; all radii have the same random starts, in units of the radius.
      case: What is probed.
      probe: What is known of the images.
      iterated: Walks of PGD at the threat model's radius under the same key, by objective of the
        suite; the first one's is compared with other radii.
      main_objective: What is tried first in the whole box.
      num_steps: Steps of PGD.
      num_queries: Queries of the black box, an image.
    """
    attack, first = pgd.build(num_steps=num_steps), next(iter(iterated))
    radius = np.asarray(case.threat.epsilon)

    def count_left(multiple: float) -> int:
        found = iterated[first]
        if multiple != 1:
            found = walk(rng_key, attack, first, case, radius=radius * np.float32(multiple))
        return int((probe.correct & ~found.fooled).sum())

    left = tuple(count_left(multiple) for multiple in _MULTIPLES)
    whole = np.full_like(radius, box_radius(case.threat, case.x.shape[1:]))
    standing, classes = probe.correct, _classes(predict(case, case.x))
    for objective in dict.fromkeys((main_objective, first)):
        if standing.any():
            found = walk(rng_key, attack, objective, case, radius=whole)
            classes |= _classes(predict(case, found.x_adv))
            standing = standing & ~found.fooled
    rows = np.flatnonzero(standing)
    black_box = choose_black_box(case.threat, num_queries)
    found_last = search(rng_key, black_box, main_objective, case, rows, radius=whole)
    still = int((predicted_class(found_last) == case.y[rows]).sum())
    return Budget(_MULTIPLES, left, first, still, len(classes | _classes(found_last)))


def _classes(log_probs: np.ndarray) -> set[int]:
    return set(predicted_class(log_probs).tolist()) - {NO_CLASS}


def check_whole_box(evidence: Evidence) -> Check:
    """Judge whether an unlimited attack breaks all (arXiv 1802.00420, section 3.1).

    Every classifier that predicts more than one class can be fooled everywhere with that budget.
    """
    budget, count = evidence.budget, evidence.probe.num_images
    threshold = allowance(count, 1, 0.02)
    raised = budget.whole_box_left > threshold
    sentence = (
        f"With a radius that spans the whole box, {budget.whole_box_left} of {count} images still "
        f"stand ({threshold:.0f} may be chance)"
    )
    if raised and budget.whole_box_classes == 1:
        sentence += (
            ": only one class was ever predicted, so either the attack is blind or the classifier "
            "is constant, and then its robustness says nothing"
        )
    elif raised:
        sentence += (
            f": {budget.whole_box_classes} classes are predicted within the box, so inputs that "
            "fool exist for every image, and the attack does not find them"
        )
    found = {"left": budget.whole_box_left, "classes": budget.whole_box_classes, "images": count}
    return Check(
        "whole_box", raised, float(budget.whole_box_left), threshold, found, sentence + "."
    )


def check_rises_with_epsilon(evidence: Evidence) -> Check:
    """Judge whether a larger radius leaves more (arXiv 1902.06705, section 3, its checklist)."""
    budget, count = evidence.budget, evidence.probe.num_images
    threshold = allowance(count, 2, 0.03)
    # Against any smaller radius: a slow rise is one too.
    best = np.minimum.accumulate(budget.left)
    rise = float(np.max(np.asarray(budget.left) - best))
    raised = rise > threshold
    table = ", ".join(
        f"{left} at {multiple:g}" for left, multiple in zip(budget.left, budget.radii, strict=True)
    )
    sentence = (
        f"PGD on {budget.objective} leaves, of {count} images and in units of the radius, {table}: "
        f"the largest rise is {rise:.0f} images (limit {threshold:.0f})"
    )
    if raised:
        sentence += ", where a larger radius holds all inputs of a smaller one: the attack is stuck"
    found = {"radii": list(budget.radii), "left": list(budget.left), "objective": budget.objective}
    return Check("rises_with_epsilon", raised, rise, threshold, found, sentence + ".")
