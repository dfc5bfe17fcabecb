"""Does a posterior know that it is attacked, and does the attacker know that it knows?"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from bnn_adv.attacks import AttackSettings, Settings, inputs, pgd, run_attack
from bnn_adv.attacks.objectives import OBJECTIVES, Objective
from bnn_adv.attacks.threat import Threat
from bnn_adv.attacks.validation import check_classes
from bnn_adv.compute import arguments, parallel
from bnn_adv.evaluation import metrics
from bnn_adv.evaluation.uncertainty.evasion import DEFAULT_WEIGHT, evasive_objective
from bnn_adv.evaluation.uncertainty.measures import MEASURES, Uncertainty, measure
from bnn_adv.evaluation.uncertainty.report import Condition, Detector, UncertaintyReport
from bnn_adv.evaluation.uncertainty.scores import auroc, expected_calibration_error
from bnn_adv.posteriors.decision import predicted_class
from bnn_adv.posteriors.posterior import Posterior


@dataclasses.dataclass(frozen=True)
class UncertaintySettings(Settings):
    """How uncertainty under attack is measured, beside batch and chunk sizes.

    Args:
      batch_size: Inputs at once.
      sample_chunk: Draws at once, 1..S; None chooses from the size of the network.
      mesh: Devices to split the inputs over.
      checkpoints: Not used.
      quantile: Share of clean inputs that a detector accepts, in (0, 1).
      num_steps: Of the attack that knows the detector, at least 1.
      weight: See ``evasive_objective``.
    """

    quantile: float = 0.95
    num_steps: int = 100
    weight: float = DEFAULT_WEIGHT


def evaluate_uncertainty(
    rng_key: jax.Array,
    posterior: Posterior,
    x: Any,
    y: Any,
    x_adv: Any,
    *,
    threat: Threat,
    settings: Settings = UncertaintySettings(),
) -> UncertaintyReport:
    """Measure uncertainty under attack, and under PGD that knows the detector.

    The detector accepts inputs whose uncertainty is at most the clean ``quantile``. Its attacker
    runs PGD on ``evasive_objective`` and on ``mean_logit_margin``, which is stronger on saturated
    draws, and takes of these and the given inputs, for every image, one that fools, then the one
    of least uncertainty. All N inputs count, whether or not the clean one is classified correctly.

    Args:
      rng_key: Typed key; each measure derives its own.
      posterior: S draws, known to the attacker.
      x: Clean inputs in the threat model's box, [N, ...].
      y: Labels, [N].
      x_adv: Adversarial inputs from any attack, [N, ...].
      threat: Norm, radius (one, or one an input, [N]) and box.
      settings: ``UncertaintySettings``, or batch and chunk sizes alone.

    Raises:
      ValueError: Shapes that differ, a setting out of range, or inputs outside the box.
    """
    arguments.check_key(rng_key)
    how = UncertaintySettings.extend(settings)
    quantile = how.quantile
    arguments.check_count("batch_size", how.batch_size, 1)
    if np.shape(x) != np.shape(x_adv) or np.shape(y) != np.shape(x)[:1] or not len(y):
        raise ValueError(
            "Need as many adversarial inputs and labels as clean inputs, and one at least, got "
            f"x {np.shape(x)}, x_adv {np.shape(x_adv)}, y {np.shape(y)}."
        )
    x, y, threat = inputs.convert(x, y, threat)
    x_adv = inputs.as_images(x_adv, threat)
    check_classes(posterior, x, y)
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie in (0, 1), got {quantile}.")

    def look(images: np.ndarray) -> Uncertainty:
        found = measure(
            posterior,
            parallel.replicate(images, how.mesh),
            sample_chunk=how.sample_chunk,
            batch_size=how.batch_size,
        )
        log_probs, *scores = map(parallel.to_host, found)
        # An input without a prediction is as uncertain as one can be.
        most = np.float32(np.log(log_probs.shape[-1]))
        return Uncertainty(log_probs, *(np.where(np.isnan(s), most, s) for s in scores))

    def attack(number: int, objective: Objective) -> Uncertainty:
        images = run_attack(
            jax.random.fold_in(rng_key, number),
            pgd.build(num_steps=how.num_steps),
            objective,
            posterior,
            x,
            y,
            threat=threat,
            settings=AttackSettings(how.batch_size, how.sample_chunk, how.mesh),
        )
        return look(images)

    clean, given = look(x), look(x_adv)
    plain = attack(0, OBJECTIVES["mean_logit_margin"])
    detectors: dict[str, Detector] = {}
    for number, name in enumerate(MEASURES if posterior.num_samples > 1 else MEASURES[:1]):
        threshold = float(np.quantile(getattr(clean, name), quantile, method="inverted_cdf"))
        aware = attack(
            number + 1, evasive_objective(name, threshold, how.weight, posterior.decision_rule)
        )
        for other in (plain, given):
            aware = _take_better(aware, other, name, y)
        scores, scores_given, scores_aware = (
            getattr(found, name) for found in (clean, given, aware)
        )
        detectors[name] = Detector(
            threshold,
            auroc(scores, scores_given),
            float(np.mean(_fooled(given, y) & (scores_given <= threshold))),
            _summarise(aware, y, posterior),
            auroc(scores, scores_aware),
            float(np.mean(_fooled(aware, y) & (scores_aware <= threshold))),
        )
    return UncertaintyReport(
        len(y),
        posterior.num_samples,
        quantile,
        _summarise(clean, y, posterior),
        _summarise(given, y, posterior),
        detectors,
    )


def _fooled(found: Uncertainty, y: np.ndarray) -> np.ndarray:
    result: np.ndarray = predicted_class(found.log_probs) != y
    return result


def _take_better(a: Uncertainty, b: Uncertainty, name: str, y: np.ndarray) -> Uncertainty:
    """Return, for every input, the one that fools, then the one of less uncertainty."""
    fools, less = _fooled(a, y), getattr(a, name) <= getattr(b, name)
    take = np.where(fools == _fooled(b, y), less, fools)
    return Uncertainty(
        np.where(take[:, None], a.log_probs, b.log_probs),
        np.where(take, a.entropy, b.entropy),
        np.where(take, a.mutual_information, b.mutual_information),
    )


def _summarise(found: Uncertainty, y: np.ndarray, posterior: Posterior) -> Condition:
    return Condition(
        metrics.accuracy(found.log_probs, y),
        expected_calibration_error(found.log_probs, y),
        float(found.entropy.mean()),
        float(found.mutual_information.mean()) if posterior.num_samples > 1 else None,
    )
