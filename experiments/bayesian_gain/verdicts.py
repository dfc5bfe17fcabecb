"""What the measurements say of averaging, the prior, the temperature and fresh draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from experiments.bayesian_gain.intervals import Difference, difference, share
from experiments.bayesian_gain.rows import (
    Setting,
    Shown,
    at_radius,
    label,
    list_doubts,
    right,
)
from experiments.bayesian_gain.trainings import SAMPLERS, TRAININGS
from experiments.launch.tables import Verdict

COMPARABLE = 0.05
"""Accuracies that differ by less are called the same."""
_NOTHING = 0.01
_WORDS = {True: "more", False: "no more", None: "undecided"}
_OTHERS = ("vi", "laplace", "swag", "csgmcmc")
"""Cheaper methods, compared with the sampler and with one mode."""
_SINGLE = {"sgd": "one network", "map": "MAP"}


class Answer(NamedTuple):
    """What one radius says of a claim.

    epsilon: The radius.
    text: Numbers.
    holds: Whether the claim holds; None where that is not told.
    """

    epsilon: float
    text: str
    holds: bool | None


def list_verdicts(settings: Sequence[Setting], config: Any) -> list[Verdict]:
    """Return every claim with its answer, data set and network after data set and network."""
    return [verdict for setting in settings for verdict in _ask(setting, config)]


def is_more(found: Difference) -> bool | None:
    """Return whether a second accuracy is larger; no: by less than 5 points, or smaller."""
    if found.low > 0:
        return True
    return False if found.high < COMPARABLE else None


def is_same(found: Difference) -> bool | None:
    """Return whether two accuracies differ by less than 5 points; no: by more."""
    if found.low > -COMPARABLE and found.high < COMPARABLE:
        return True
    return False if found.low > COMPARABLE or found.high < -COMPARABLE else None


def confidence(num_radii: int) -> float:
    """Return the coverage of each interval by which all radii of a claim are covered to 95 %."""
    return 1 - 0.05 / num_radii


def compare(
    setting: Setting, first: Shown, second: Shown, epsilons: Sequence[float]
) -> list[tuple[float, Difference, str]]:
    """Return radius, difference and numbers in words of two methods, second less first."""
    found = []
    for epsilon in epsilons:
        sides = [right(setting.find(m.training, m.draws), epsilon) for m in (first, second)]
        change = difference(*sides, confidence=confidence(len(epsilons)))
        found.append((epsilon, change, _say(share(sides[1]).value, share(sides[0]).value, change)))
    return found


def judge(
    setting: Setting, first: Shown, second: Shown, epsilon: float, epsilons: Sequence[float]
) -> str:
    """Return the change within one radius of a claim of more about many, and what it says of it.

    Args:
      setting: Data set and network.
      first: A method.
      second: The one that may keep more.
      epsilon: The radius.
      epsilons: All radii that the claim's intervals cover together.
    """
    ((_, change, _),) = (c for c in compare(setting, first, second, epsilons) if c[0] == epsilon)
    word = "not judged" if list_doubts(setting, (first, second)) else _WORDS[is_more(change)]
    return f"{change} points, {word}"


def find_end(
    changes: Sequence[tuple[float, Difference]], left: Sequence[float], words: str
) -> tuple[float | None, str]:
    """Return the smallest radius beyond which nothing is gained, and why in words.

    That an interval holds zero does not end a gain: it must lie below 5 points, from there on.

    Args:
      changes: Radius and gain, ascending by radius.
      left: Accuracy that is left at each radius.
      words: What leaves it.

    Returns:
      None where the gain is not told from zero at any radius, or is not shown to end.
    """
    gains = [number for number, (_, change) in enumerate(changes) if change.low > 0]
    if not gains:
        return None, "no gain is told from zero at any radius"
    for number, (epsilon, change) in enumerate(changes):
        if left[number] < _NOTHING:
            return epsilon, f"{words} itself leaves {100 * left[number]:.1f} %, below 1 %"
        is_little = all(later.high < COMPARABLE for _, later in changes[number:])
        if number > gains[-1] and is_little:
            return epsilon, f"the gain is below {100 * COMPARABLE:g} points, {change}"
    epsilon, change = changes[-1]
    if gains[-1] < len(changes) - 1:
        why = f"is neither told from zero nor from {100 * COMPARABLE:g} points, {change}"
        return None, f"at {epsilon:g} the gain {why}"
    return None, f"at {epsilon:g}, the largest radius, the gain is still {change} points"


def _ask(setting: Setting, config: Any) -> Iterator[Verdict]:
    epsilons, close = config.epsilons, config.close_epsilons
    most, few = config.num_draws, config.members
    own = Shown(TRAININGS[config.sampler].words, config.sampler, most)
    one, *ensembles = (
        Shown(label("sgd", size, _SINGLE), "sgd", size) for size in dict.fromkeys((1, few, most))
    )
    for other in (one, *ensembles):
        yield from _more(setting, other, own, epsilons)
    yield _end(setting, one, own, epsilons)
    yield from _ask_of_averaging(setting, config)
    if "map" in config.methods:
        for size in (1, few):
            without, with_prior = (
                Shown(label(name, size, _SINGLE), name, size) for name in ("sgd", "map")
            )
            yield from _more(setting, without, with_prior, close)
        yield from _more(setting, with_prior, own, close)
    yield from _ask_of_others(setting, config, own)
    for name in SAMPLERS:
        if name in config.methods and name != config.sampler:
            yield from _same(setting, Shown(TRAININGS[name].words, name, most), own, close)
    if "hmc_cold" in config.methods:
        cold = Shown(f"HMC at T = {config.cold:g}", "hmc_cold", most)
        if "hmc" in config.methods:
            yield from _more(setting, cold, Shown("HMC at T = 1", "hmc", most), close)
        yield from _more(setting, ensembles[-1], cold, close)
    yield from _ask_of_fresh(setting, close)


def _ask_of_others(setting: Setting, config: Any, sampled: Shown) -> Iterator[Verdict]:
    """Yield each approximation beside the sampler, and beside one mode of the posterior."""
    close = config.close_epsilons
    for training in (name for name in _OTHERS if name in config.methods):
        own = Shown(TRAININGS[training].words, training, sampled.draws)
        yield from _more(setting, own, sampled, close)
        if "map" in config.methods:
            yield from _more(setting, Shown(label("map", 1, _SINGLE), "map", 1), own, close)


def _ask_of_averaging(setting: Setting, config: Any) -> Iterator[Verdict]:
    close = config.close_epsilons
    for training in (config.sampler, "sgd"):
        sizes = setting.list_draws(training)
        largest = sizes[-1]
        half = [size for size in sizes if 2 * size <= largest][-1:]
        for size in dict.fromkeys([1, *half] if 1 in sizes else half):
            first, second = (_of(training, count) for count in (size, largest))
            yield from _more(setting, first, second, close)
    for size in dict.fromkeys((1, config.members, config.num_draws)):
        if size in setting.list_draws(config.sampler):
            first, second = _of("sgd", size), _of(config.sampler, size)
            yield from _same(setting, first, second, close)


def _ask_of_fresh(setting: Setting, epsilons: Sequence[float]) -> Iterator[Verdict]:
    trainings = dict.fromkeys(row["training"] for row in setting.rows if row["kind"] == "fresh")
    for training in trainings:
        (draws,) = setting.list_draws(training, kind="fresh")
        shown, answers = _of(training, draws), []
        for epsilon in epsilons:
            fresh = right(at_radius(setting.find(training, draws, kind="fresh"), epsilon), epsilon)
            frozen = right(setting.find(training, draws), epsilon)
            change = difference(frozen, fresh, confidence=confidence(len(epsilons)))
            text = _say(float(fresh.mean()), float(frozen.mean()), change)
            answers.append(Answer(epsilon, text, is_more(change)))
        claim = f"{shown.label}: draws that the attacker does not know leave more than known ones"
        yield from _group(setting, claim, (shown,), answers)


def _more(
    setting: Setting, first: Shown, second: Shown, epsilons: Sequence[float]
) -> Iterator[Verdict]:
    claim = f"{second.label} leaves more than {first.label}"
    return _claim(setting, first, second, epsilons, claim, is_more)


def _same(
    setting: Setting, first: Shown, second: Shown, epsilons: Sequence[float]
) -> Iterator[Verdict]:
    claim = f"{second.label} leaves the same as {first.label} (within 5 points)"
    return _claim(setting, first, second, epsilons, claim, is_same)


def _claim(
    setting: Setting,
    first: Shown,
    second: Shown,
    epsilons: Sequence[float],
    claim: str,
    holds: Callable[[Difference], bool | None],
) -> Iterator[Verdict]:
    found = compare(setting, first, second, epsilons)
    answers = [Answer(epsilon, text, holds(change)) for epsilon, change, text in found]
    return _group(setting, claim, (first, second), answers)


def _end(setting: Setting, one: Shown, own: Shown, epsilons: Sequence[float]) -> Verdict:
    changes = [(e, change) for e, change, _ in compare(setting, one, own, epsilons)]
    rows = setting.find(own.training, own.draws)
    left = [share(right(rows, epsilon)).value for epsilon in epsilons]
    end, why = find_end(changes, left, own.label)
    text = why if end is None else f"it ends at {end:g}: {why}"
    holds = True if end is not None else False if "largest radius" in why else None
    if doubts := list_doubts(setting, (one, own)):
        text, holds = f"not judged ({'; '.join(doubts)}): {text}", None
    claim = f"What {own.label} gains over one network ends within {epsilons[-1]:g}"
    return Verdict(f"{setting.words}: {claim}", text, holds)


def _group(
    setting: Setting, claim: str, shown: Sequence[Shown], answers: Sequence[Answer]
) -> Iterator[Verdict]:
    """Yield one line for all radii of the same answer."""
    doubts = list_doubts(setting, shown)
    if doubts:
        answers = [answer._replace(holds=None) for answer in answers]
    for holds in dict.fromkeys(answer.holds for answer in answers):
        own = [answer for answer in answers if answer.holds == holds]
        radii = ", ".join(f"{answer.epsilon:g}" for answer in own)
        text = "; ".join(f"{answer.epsilon:g}: {answer.text}" for answer in own)
        if doubts:
            text = f"not judged ({'; '.join(doubts)}). {text}"
        where = f"radius {radii}" if len(own) == 1 else f"radii {radii}"
        yield Verdict(f"{setting.words}: {claim}, {where}", text, holds)


def _of(training: str, draws: int) -> Shown:
    if training in _SINGLE:
        return Shown(label(training, draws, _SINGLE), training, draws)
    words = "1 draw" if draws == 1 else f"{draws} draws"
    return Shown(f"{TRAININGS[training].words}, {words}", training, draws)


def _say(second: float, first: float, change: Difference) -> str:
    return f"{100 * second:.1f} against {100 * first:.1f} %: {change} points"
