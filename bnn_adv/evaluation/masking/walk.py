"""How iterated attacks walk: what they lose on the way, and whether they had come to rest.

Pintor et al. 2021, arXiv 2106.09947, section 3, and Carlini et al. 2019, arXiv 1902.06705, section
3, whose checklist asks whether attacks have converged. Whether a walk could have gone further
matters for images that still stand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from bnn_adv.attacks import Attack
from bnn_adv.attacks.trace import Trace
from bnn_adv.compute.types import RngKey
from bnn_adv.evaluation.masking import strength
from bnn_adv.evaluation.masking.base import Case, Check, Evidence, Walk, allowance, percent

_LARGEST_SHARE = 0.05
_MOST_LOST = 1.0
# A fall by less is rounding.
_RELATIVE_FALL = 1e-5


def is_walk(attack: Attack) -> bool:
    """Return whether an attack climbs one objective along gradients, in several steps."""
    climbs = attack.uses_gradient and not attack.minimises_norm and not attack.aims
    return climbs and attack.num_steps > 1


def measure_walks(
    rng_key: RngKey,
    case: Case,
    attacks: tuple[tuple[Attack, str], ...],
    iterated: dict[str, Trace],
    iterated_attack: Attack,
    progress: Callable[[int, int], None],
) -> tuple[Walk, ...]:
    """Return the walks of the suite's own attacks, or else those of the PGD that has been run.

    Args:
      rng_key: Typed key.
      case: What is probed.
      attacks: The suite's attacks and the names of their objectives; what does not climb one
        objective along gradients in steps is left out, and so are norms that an attack does not
        know. Of attacks that differ in their number of steps alone the longest is taken.
      iterated: Walks that are known already, of ``iterated_attack``, by objective.
      iterated_attack: The attack that made them.
      progress: Called with walks done and walks in all.
    """
    longest: dict[tuple[Attack, str], tuple[Attack, str]] = {}
    for attack, name in attacks:
        if is_walk(attack) and (attack.norms is None or case.threat.norm in attack.norms):
            alike = _without_length(attack), name
            if alike not in longest or longest[alike][0].num_steps < attack.num_steps:
                longest[alike] = attack, name
    wanted = list(longest.values())
    if not wanted:
        wanted = [(iterated_attack, name) for name in iterated]
    walks = []
    for number, (attack, name) in enumerate(wanted):
        progress(number, len(wanted))
        known = attack == iterated_attack and name in iterated
        found = iterated[name] if known else strength.walk(rng_key, attack, name, case)
        walks.append(Walk(attack.name, name, found.values, found.success, found.fooled))
    return tuple(walks)


def _without_length(attack: Attack) -> Attack:
    """Return the attack with nothing said of its number of steps, nor of when a batch ends."""
    config = attack.config
    if dataclasses.is_dataclass(config) and hasattr(config, "num_steps"):
        config = dataclasses.replace(config, num_steps=0)  # type: ignore[type-var]
    return dataclasses.replace(attack, config=config, num_steps=0, stop_on_success=False)


def check_lost_iterate(evidence: Evidence) -> Check:
    """Judge whether attacks pass inputs that fool and return others.

    "Silent success", Pintor et al. 2021, arXiv 2106.09947, section 3.
    An attack whose steps are not recorded where they fool cannot raise it.
    """
    correct = evidence.probe.correct
    lost = [
        int((correct & walk.success.any(axis=0) & ~walk.fooled).sum()) for walk in evidence.walks
    ]
    sentence, raised, value, found = _judge(
        evidence,
        lost,
        lambda value: (
            f"passes an input that fools and returns one that does not for {value:.0f} "
            f"of {evidence.probe.num_images} images ({_MOST_LOST:.0f} may be rounding)"
        ),
        _MOST_LOST,
    )
    if raised:
        sentence += ": keep the best iterate, not the last"
    return Check("lost_iterate", raised, value, _MOST_LOST, found, sentence + ".")


def check_still_rising(evidence: Evidence) -> Check:
    """Judge whether attacks had come to rest ("incomplete optimization", arXiv 2106.09947)."""
    standing = _worth_judging(evidence)
    sentence, raised, value, found = _judge(
        evidence,
        [_late_share(walk.values[:, standing]) for walk in evidence.walks],
        lambda value: (
            f"gains {percent(value)} of its whole rise in the last tenth of its steps, "
            f"over the images that stand (limit {percent(_LARGEST_SHARE)})"
        ),
        _LARGEST_SHARE,
    )
    if raised:
        sentence += ": it was stopped on its way; take more or longer steps"
    return Check("still_rising", raised, value, _LARGEST_SHARE, found, sentence + ".")


def check_falls(evidence: Evidence) -> Check:
    """Judge whether attacks end below their start (an unstable optimization, arXiv 2106.09947).

    A step too long for the loss surface, or a gradient of the wrong sign.
    """
    standing = _worth_judging(evidence)
    sentence, raised, value, found = _judge(
        evidence,
        [_share_falling(walk.values[:, standing]) for walk in evidence.walks],
        lambda value: (
            f"ends below its start for {percent(value)} of the images that stand "
            f"(limit {percent(_LARGEST_SHARE)})"
        ),
        _LARGEST_SHARE,
    )
    if raised:
        sentence += ": its step is too long for the loss surface, or its gradient is wrong"
    return Check("falls", raised, value, _LARGEST_SHARE, found, sentence + ".")


def _worth_judging(evidence: Evidence) -> np.ndarray:
    """Return which images stand, [N]; none where they are too few to say something of an attack."""
    standing = evidence.probe.standing
    enough = standing.sum() > allowance(len(standing), 1, 0.02)
    return standing if enough else np.zeros_like(standing)


def _judge(
    evidence: Evidence,
    values: list[Any],
    describe: Callable[[float], str],
    threshold: float,
) -> tuple[str, bool, float | None, dict[str, Any]]:
    """Return sentence, verdict, largest value, and the values by attack and objective."""
    table = [
        {"attack": walk.attack, "objective": walk.objective, "value": value}
        for walk, value in zip(evidence.walks, values, strict=True)
    ]
    measured = [row for row in table if row["value"] is not None]
    found = {"walks": table, "standing": int(evidence.probe.standing.sum())}
    if not measured:
        return (
            "Not measured: too few images stand, or no attack climbs in steps",
            False,
            None,
            found,
        )
    worst = max(measured, key=lambda row: row["value"])
    value = float(worst["value"])
    sentence = f"Of the walks, {worst['attack']} on {worst['objective']} {describe(value)}"
    return sentence, value > threshold, value, found


def _late_share(values: np.ndarray) -> float | None:
    """Return the share of the rise of the mean best objective in the last tenth of the steps.

    Args:
      values: [T + 1, K].
    """
    values = values[:, np.isfinite(values).all(axis=0)].astype(np.float64)
    if values.shape[1] == 0:
        return None
    best = np.maximum.accumulate(values, axis=0).mean(axis=1)
    late = max(1, round((len(best) - 1) / 10))
    rise = best[-1] - best[0]
    return float((best[-1] - best[-1 - late]) / rise) if rise > 0 else 0.0


def _share_falling(values: np.ndarray) -> float | None:
    """Return the share of images whose last objective is below the first, of [T + 1, K]."""
    values = values[:, np.isfinite(values).all(axis=0)].astype(np.float64)
    if values.shape[1] == 0:
        return None
    rounding = _RELATIVE_FALL * np.abs(values).max(axis=0)
    return float((values[-1] < values[0] - rounding).mean())
