"""Measure a few probe images once, and let every check judge what was measured."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bnn_adv.attacks import Attack, Settings, inputs, pgd
from bnn_adv.attacks.objectives import OBJECTIVES, Objective, get_objective
from bnn_adv.attacks.threat import Threat, with_radius
from bnn_adv.attacks.validation import check_classes, check_ess
from bnn_adv.compute import arguments
from bnn_adv.evaluation.masking import (
    arithmetic,
    budget,
    draws,
    gradients,
    spared,
    strength,
    walk,
)
from bnn_adv.evaluation.masking.base import NONE_SPARED, Case, Check, Evidence, Probe, Spared
from bnn_adv.posteriors.decision import predicted_class
from bnn_adv.posteriors.posterior import Posterior

MaskingProgress = Callable[[str, int, int], None]
"""Called with (what is measured, parts of all measurements done, parts in all)."""

CHECKS: dict[str, Callable[[Evidence], Check]] = {
    "zero_gradients": gradients.check_zero_gradients,
    "saturated_probabilities": arithmetic.check_saturated_probabilities,
    "float_precision": arithmetic.check_float_precision,
    "weak_iteration": strength.check_weak_iteration,
    "black_box_stronger": strength.check_black_box_stronger,
    "transfer_stronger": strength.check_transfer_stronger,
    "whole_box": budget.check_whole_box,
    "rises_with_epsilon": budget.check_rises_with_epsilon,
    "lost_iterate": walk.check_lost_iterate,
    "still_rising": walk.check_still_rising,
    "falls": walk.check_falls,
    "non_deterministic": arithmetic.check_non_deterministic,
    "duplicate_draws": draws.check_duplicate_draws,
    "low_ess": draws.check_low_ess,
    "low_accuracy": draws.check_low_accuracy,
    "set_aside": spared.check_set_aside,
}
"""Checks by name; each is a pure function of the evidence."""

_PARTS = ("gradients", "arithmetic", "fgsm and pgd", "strength", "budget", "walks", "draws")


@dataclasses.dataclass(frozen=True)
class MaskingSettings(Settings):
    """How signs of masking are looked for, beside batch and chunk sizes.

    Args:
      batch_size: Images at once.
      sample_chunk: Draws at once, 1..S; None chooses from the size of the network.
      mesh: Not used: probe images are few.
      checkpoints: Not used.
      attacks: The suite's attacks with their objectives, for the checks of how they walk; none:
        those look at PGD of ``num_steps`` steps on every objective.
      main_objective: What black boxes and attacks on stand-ins climb.
      num_steps: Steps of PGD, at least 1.
      num_queries: Queries of the black box, an image.
      min_ess: Smallest effective sample size of the predictions; None where it is not known.
      spared: Probe images on which the suite did not run every attack.
      progress: Progress callback.
    """

    attacks: tuple[tuple[Attack, str | Objective], ...] = ()
    main_objective: str | Objective = "mean_logit_margin"
    num_steps: int = 20
    num_queries: int = 300
    min_ess: float | None = None
    spared: Spared = NONE_SPARED
    progress: MaskingProgress | None = None


def inspect(*args: Any, **options: Any) -> tuple[Check, ...]:
    """Return what every check says, in the order of ``CHECKS``; arguments as for ``gather``."""
    return judge(gather(*args, **options))


def judge(evidence: Evidence) -> tuple[Check, ...]:
    """Return what every check says of the evidence, in the order of ``CHECKS``."""
    return tuple(check(evidence) for check in CHECKS.values())


def gather(
    rng_key: jax.Array,
    posterior: Posterior,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    objectives: Sequence[str | Objective],
    standing: Any,
    settings: Settings = MaskingSettings(),
) -> Evidence:
    """Measure on probe images all that the checks judge.

    Choose the images at random among all, also the misclassified ones; about a hundred are enough
    to see a sign in 5 % of them.

    Args:
      rng_key: Typed key.
      posterior: S draws; the attacker knows them.
      x: Clean probe images in the threat model's box, [N, ...].
      y: Labels, [N].
      threat: Norm, radius (one, or one an image, [N]) and box.
      objectives: The objectives that the suite used, or their names, one at least.
      standing: Images that the suite left standing, bool [N].
      settings: ``MaskingSettings``, or batch and chunk sizes alone.

    Raises:
      ValueError: No images, lengths that differ, no or an unknown objective, inputs outside the
        box, or a bad size.
    """
    arguments.check_key(rng_key)
    how = MaskingSettings.extend(settings)
    arguments.check_count("batch_size", how.batch_size, 1)
    check_ess(how.min_ess)
    x, y, threat = inputs.convert(x, y, threat)
    check_classes(posterior, x, y)
    standing = np.asarray(standing, bool)
    of_suite = _check(x, standing, objectives)
    # One's own objectives are looked at beside all that are known.
    known = {**OBJECTIVES, **of_suite}
    main_objective = get_objective(how.main_objective).name
    known.setdefault(main_objective, get_objective(how.main_objective))
    radius = np.broadcast_to(np.asarray(threat.epsilon, x.dtype), (len(x),)).copy()
    size = min(how.batch_size, len(x))
    case = Case(posterior, x, y, with_radius(threat, radius), size, how.sample_chunk, known)
    used, num_steps, progress = tuple(of_suite), how.num_steps, how.progress
    attacks = tuple((attack, get_objective(objective).name) for attack, objective in how.attacks)

    def begin(part: str, share: float = 0.0) -> None:
        if progress is not None:
            progress(part, round(100 * (_PARTS.index(part) + share)), 100 * len(_PARTS))

    def key(part: str) -> jax.Array:
        return jax.random.fold_in(rng_key, zlib.crc32(part.encode()))

    log_probs = strength.predict(case, x)
    correct = predicted_class(log_probs) == y
    probe = Probe(correct, correct & standing, log_probs.shape[-1], posterior.num_samples)
    begin("gradients")
    clean = gradients.look_at_case(case, x).of
    of_gradients = gradients.measure_gradients(key("gradients"), case, used, clean)
    begin("arithmetic")
    of_arithmetic = arithmetic.measure_arithmetic(case, used)
    begin("fgsm and pgd")
    single = {name: strength.is_fooled_at(case, clean[name].one_step) for name in used}
    iterated = strength.run_iterated(key("pgd"), case, used, num_steps)
    effort: dict[str, Any] = {
        "main_objective": main_objective,
        "num_steps": num_steps,
        "num_queries": how.num_queries,
    }
    begin("strength")
    of_strength = strength.measure_strength(
        key("strength"), case, probe, single, iterated, **effort
    )
    begin("budget")
    # The same key as at the radius itself: the random starts of all radii correspond.
    of_budget = budget.measure_budget(key("pgd"), case, probe, iterated, **effort)
    begin("walks")
    walks = walk.measure_walks(
        key("walks"),
        case,
        attacks,
        iterated,
        pgd.build(num_steps=num_steps),
        lambda done, total: begin("walks", done / total),
    )
    begin("draws")
    of_draws = draws.measure_draws(posterior, how.min_ess)
    if progress is not None:
        progress("done", 100 * len(_PARTS), 100 * len(_PARTS))
    return Evidence(
        probe,
        of_gradients,
        of_arithmetic,
        of_strength,
        of_budget,
        walks,
        of_draws,
        how.spared,
    )


def _check(
    x: np.ndarray, standing: np.ndarray, objectives: Sequence[str | Objective]
) -> dict[str, Objective]:
    """Return the objectives by name, if lengths agree and there is one."""
    if standing.shape != (len(x),):
        raise ValueError(
            f"Need one entry of standing for each of {len(x)} images, got the shape "
            f"{standing.shape}."
        )
    if not objectives:
        raise ValueError("Need the name of one objective at least, got none.")
    found = [get_objective(objective) for objective in objectives]
    return {objective.name: objective for objective in found}
