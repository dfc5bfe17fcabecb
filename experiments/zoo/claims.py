"""What the zoo claims: goals that are reached, and what one predictor keeps beyond another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bnn_adv.evaluation.metrics import paired_difference, wilson_interval
from experiments.launch.significance import LEVEL, holm, sign_test
from experiments.launch.tables import Verdict
from experiments.zoo.config import TRAININGS
from experiments.zoo.methods import METHODS

Found = Mapping[str, Any]

_GOALS = (
    ("mnist", 0.1, "certified", 0.93),
    ("mnist", 0.1, "certified_real", 0.93),
    ("mnist", 0.1, "standing", 0.95),
    ("mnist", 0.3, "certified", 0.80),
    ("mnist", 0.3, "certified_real", 0.80),
    ("mnist", 0.3, "certified", 0.90),
    ("mnist", 0.3, "standing", 0.88),
    ("fashion_mnist", 0.1, "certified", 0.70),
    ("fashion_mnist", 0.1, "certified_real", 0.70),
)
"""Data set, radius, certified or left by attacks, and the share that some posterior should keep."""

_WORDS = {
    "certified": "certified",
    "certified_real": "certified in real arithmetic",
    "standing": "left by every attack",
}


def name_of(one: Found) -> str:
    """Return method and training in words, with a doubt where chains may not have mixed."""
    doubt = " (chains not shown to have mixed)" if _is_unmixed(one) else ""
    return f"{METHODS[one['method']].words}, {one['training']}{doubt},"


def means_of(one: Found) -> Sequence[Found | None]:
    """Return what was found of the network of the draws' mean weights, by radius."""
    # Runs of before they were attacked have none.
    return one.get("means") or [None] * len(one["radii"])


def goal_verdicts(found: Sequence[Found]) -> Iterator[Verdict]:
    """Yield whether some posterior reaches each of the project's goals.

    Args:
      found: As of ``measure_all``.
    """
    for dataset, epsilon, key, goal in _GOALS:
        shares = [
            (float(np.mean(radius[key])), one)
            for one in found
            if one["dataset"] == dataset
            for radius in one["radii"]
            if radius["epsilon"] == epsilon
        ]
        if not shares:
            continue
        best, one = max(shares, key=lambda pair: pair[0])
        low, high = wilson_interval(best, len(one["radii"][0][key]))
        yield Verdict(
            f"{dataset}: some posterior has at least {100 * goal:g} % {_WORDS[key]} within "
            f"{epsilon:g}",
            f"{name_of(one)} {100 * best:.1f} [{100 * low:.1f}, {100 * high:.1f}] %",
            best >= goal,
        )


class _Gain(NamedTuple):
    """What a method adds to its rival, of the same likelihood, network and images.

    claim: What is asked.
    change: Share of images more that stand under attack, with its interval over images.
    p_value: Of the sign test over the images on which the two differ.
    doubts: What forbids a verdict.
    """

    claim: str
    change: tuple[float, float, float]
    p_value: float
    doubts: list[str]


def gain_verdicts(found: Sequence[Found]) -> Iterator[Verdict]:
    """Yield whether methods keep more than their rivals, and draws than the mean of their weights.

    Of every training these are two questions: each is adjusted for how often it is asked.

    Args:
      found: As of ``measure_all``.
    """
    for list_gains in (_gains, _gains_of_averaging):
        for training in TRAININGS:
            own = [one for one in found if one["training"] == training]
            yield from _adjust(list(list_gains(own)))


def _adjust(gains: Sequence[_Gain]) -> Iterator[Verdict]:
    judged = [gain for gain in gains if not gain.doubts]
    adjusted = iter(holm([gain.p_value for gain in judged]))
    for gain in gains:
        value, low, high = (100 * number for number in gain.change)
        words = f"{value:+.1f} [{low:+.1f}, {high:+.1f}] points"
        if gain.doubts:
            yield Verdict(gain.claim, f"{words}; not judged: {'; '.join(gain.doubts)}", None)
            continue
        p_value = next(adjusted)
        tests = f"{len(judged)} test{'s' if len(judged) > 1 else ''}"
        words += f", p = {p_value:.2g} adjusted for {tests}"
        yield Verdict(gain.claim, words, value > 0 if p_value <= LEVEL else None)


def _gains(found: Sequence[Found]) -> Iterator[_Gain]:
    """Yield each method against its rival; where that was not trained, against SGD."""
    known = {(one["dataset"], one["training"], one["method"]): one for one in found}
    for one in found:
        own_set = one["dataset"], one["training"]
        rival = METHODS[one["method"]].rival
        if rival is None:
            continue
        base = known.get((*own_set, rival), known.get((*own_set, "sgd")))
        if base is None:
            continue
        differing = _list_differing(one, base)
        for own, other in zip(one["radii"], base["radii"], strict=True):
            gain = _gain(one, own, other, METHODS[base["method"]].words)
            yield gain._replace(doubts=[*gain.doubts, *differing])


def _gains_of_averaging(found: Sequence[Found]) -> Iterator[_Gain]:
    """Yield the draws' mean prediction against the one network of their mean weights."""
    for one in found:
        for own, mean in zip(one["radii"], means_of(one), strict=True):
            if mean is not None:
                yield _gain(one, own, mean, "the mean of its weights")


def _gain(one: Found, own: Found, other: Found, rival: str) -> _Gain:
    """Return what a posterior keeps within a radius beyond another predictor.

    Args:
      one: The posterior.
      own: What was found of it within the radius.
      other: The same of the other one.
      rival: What that is called.
    """
    theirs, ours = (np.asarray(side["standing"]) for side in (other, own))
    return _Gain(
        f"{one['dataset']}, {one['training']}, {own['epsilon']:g}: "
        f"{METHODS[one['method']].words} keeps more under attack than {rival}",
        paired_difference(theirs, ours),
        sign_test(ours, theirs),
        _doubts(one, own, other),
    )


def _doubts(one: Found, *radii: Found) -> list[str]:
    """Return what forbids a verdict on a posterior: chains that may not have mixed, masking."""
    doubts = ["its chains are not shown to have mixed"] if _is_unmixed(one) else []
    if any(radius["flags"] for radius in radii):
        doubts.append("signs of masking")
    if any(radius["flags"] is None for radius in radii):
        doubts.append("no signs of masking were looked for")
    return doubts


def _list_differing(one: Found, base: Found) -> list[str]:
    """Return the settings by which two posteriors of several runs were trained otherwise."""
    ours, theirs = one.get("settings", {}), base.get("settings", {})
    return [
        f"trained with {name} {ours[name]} and {theirs[name]}"
        for name in ours
        if name in theirs and ours[name] != theirs[name]
    ]


def _is_unmixed(one: Found) -> bool:
    return METHODS[one["method"]].has_chains and one["mixed"] is not True
