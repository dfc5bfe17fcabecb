"""What is measured on a few probe images, and what a check says about it.

Every check is a pure function of the record ``Evidence``; only measuring it needs a posterior.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bnn_adv.attacks.objectives import OBJECTIVES, Objective
from bnn_adv.attacks.threat import Threat
from bnn_adv.posteriors.posterior import Posterior


class Check(NamedTuple):
    """What one check found.

    name: Key in ``CHECKS``.
    raised: Whether it shows a sign of masking, or of numbers that mean something else.
    value: What was measured; None where it could not be.
    threshold: It is raised beyond this value.
    evidence: What the value was taken from, as JSON values.
    sentence: What was measured against what, and what follows from it.
    """

    name: str
    raised: bool
    value: float | None
    threshold: float
    evidence: dict[str, Any]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return self._asdict()


class Case(NamedTuple):
    """What is probed, and how it is computed.

    posterior: S draws; the attacker knows them.
    x: Clean probe images, [N, ...].
    y: Labels, int32 [N].
    threat: The threat model, with a radius for every image, [N].
    batch_size: Images at once, at most N.
    sample_chunk: Draws at once; None chooses from the size of the network.
    objectives: Those that are looked at, by name.
    """

    posterior: Posterior
    x: np.ndarray
    y: np.ndarray
    threat: Threat
    batch_size: int
    sample_chunk: int | None
    objectives: Mapping[str, Objective] = OBJECTIVES


class Probe(NamedTuple):
    """What is known of the N probe images before anything is attacked.

    correct: Whether the clean image is classified correctly, [N].
    standing: Whether the caller's suite left it standing, [N]; never where ``correct`` is False.
    num_classes: C.
    num_draws: S.
    """

    correct: np.ndarray
    standing: np.ndarray
    num_classes: int
    num_draws: int

    @property
    def num_images(self) -> int:
        """Number of probe images, N."""
        return len(self.correct)


class Precision(NamedTuple):
    """Float32 beside float64.

    changed: Images whose predicted class differs, [N].
    misled: By objective, images whose float32 gradient is zero, or points elsewhere, where the
      float64 one is not zero, each [N].
    num_draws: Draws that both were computed with.
    """

    changed: np.ndarray
    misled: dict[str, np.ndarray]
    num_draws: int


class Gradients(NamedTuple):
    """Where attack gradients are exactly zero.

    used: Names of the objectives that the caller's suite used.
    zero_clean: Share of images with an exactly zero gradient at the clean input, by objective.
    zero_random: The same at a random start.
    non_finite: Largest share of images, over the objectives in use and both places, at which a
      gradient holds a NaN or an infinity.
    """

    used: tuple[str, ...]
    zero_clean: dict[str, float]
    zero_random: dict[str, float]
    non_finite: float = 0.0


class Arithmetic(NamedTuple):
    """How predictions and gradients fare in floating point.

    saturated: Share of pairs of draw and image whose float32 softmax is exactly one-hot.
    precision: None where the network does not compute in float64.
    prediction_change: Largest difference of two predictions of the same inputs, relative to the
      largest log-probability.
    gradient_change: Largest difference of two gradients at the same inputs, relative to the
      largest component; the largest over the objectives in use. The same NaN twice is no change.
    not_finite: Share of images whose prediction is NaN or infinite.
    """

    saturated: float
    precision: Precision | None
    prediction_change: float
    gradient_change: float
    not_finite: float = 0.0


class Strength(NamedTuple):
    """What attacks of different strength leave.

    fgsm: Images that FGSM leaves, by objective.
    pgd: Images that PGD leaves, by objective.
    num_steps: Steps of PGD.
    black_box: Name of the black box; None where none knows the norm.
    num_queries: Its queries an image.
    black_box_broke: Standing images that it breaks.
    transfer_broke: Standing images that attacks on each stand-in break, by its name; None where
      the posterior has one draw only.
    transfer_any: Standing images that any of them breaks.
    """

    fgsm: dict[str, int]
    pgd: dict[str, int]
    num_steps: int
    black_box: str | None
    num_queries: int
    black_box_broke: int
    transfer_broke: dict[str, int] | None
    transfer_any: int


class Budget(NamedTuple):
    """What the radius does.

    radii: Ascending multiples of the threat model's radius.
    left: Images that PGD on ``objective`` leaves at each of them.
    objective: Name of that objective.
    whole_box_left: Images that stand when the radius spans the whole box.
    whole_box_classes: Number of classes that were predicted there, over all images and attacks.
    """

    radii: tuple[float, ...]
    left: tuple[int, ...]
    objective: str
    whole_box_left: int
    whole_box_classes: int


class Walk(NamedTuple):
    """How one iterated attack of T steps walked on the probe images.

    attack: Name of the attack.
    objective: Name of the objective.
    values: The objective along the walk, [T + 1, N]; NaN where it aimed at a class.
    success: Whether the iterate fools, [T + 1, N].
    fooled: Whether the returned input fools, [N].
    """

    attack: str
    objective: str
    values: np.ndarray
    success: np.ndarray
    fooled: np.ndarray


class Draws(NamedTuple):
    """How much the draws are worth.

    distinct: Draws that differ from one another.
    min_ess: Smallest effective sample size of the predictions; None where it is not known.
    """

    distinct: int
    min_ess: float | None


class Spared(NamedTuple):
    """What became of the probe images on which the suite did not run every attack.

    num_images: Those that it left standing.
    num_broken: Those of them that the attacks which were left out break.
    """

    num_images: int = 0
    num_broken: int = 0


NONE_SPARED = Spared()


class Evidence(NamedTuple):
    """All that the checks judge, one record a subject."""

    probe: Probe
    gradients: Gradients
    arithmetic: Arithmetic
    strength: Strength
    budget: Budget
    walks: tuple[Walk, ...]
    draws: Draws
    spared: Spared = NONE_SPARED


def allowance(count: int, images: int, share: float) -> float:
    """Return how many of ``count`` images are put down to chance: some, or a share of them."""
    return max(float(images), share * count)


def finite(value: float) -> float | None:
    """Return a number that JSON can hold: None where it is not finite."""
    return value if np.isfinite(value) else None


def percent(share: float) -> str:
    """Return a share as text."""
    return f"{100 * share:.1f} %"
