"""What the zoo says: a record of every posterior, tables, brackets, and what averaging adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bnn_adv.evaluation.metrics import paired_difference, wilson_interval
from bnn_adv.report.table import Table
from bnn_adv.report.wording import Measured
from experiments.launch.significance import LEVEL, holm, sign_test
from experiments.launch.tables import Plot, Study, Verdict
from experiments.zoo.figures import bracket_caption, bracket_figure
from experiments.zoo.methods import METHODS
from experiments.zoo.record import AurocRecord, PosteriorRecord, RadiusRecord

Found = Mapping[str, Any]

TITLE = "Posteriors between what is certified and what attacks leave"
_GOALS = (
    ("mnist", 0.1, "certified", 0.93),
    ("mnist", 0.1, "certified_real", 0.93),
    ("mnist", 0.1, "standing", 0.95),
    ("mnist", 0.3, "certified", 0.80),
    ("mnist", 0.3, "certified_real", 0.80),
    ("mnist", 0.3, "standing", 0.88),
    ("fashion_mnist", 0.1, "certified", 0.70),
    ("fashion_mnist", 0.1, "certified_real", 0.70),
)
"""Data set, radius, certified or left by attacks, and the share that some posterior should keep."""

_SHARES = ("clean", "published", "standing", "certified", "certified_real")
_WORDS = {
    "certified": "certified",
    "certified_real": "certified in real arithmetic",
    "standing": "left by every attack",
}


def build_study(found: Sequence[Found], records: Sequence[PosteriorRecord]) -> Study:
    """Return what was found as a study.

    Args:
      found: As of ``measure_all``.
      records: Those of ``make_records``.
    """
    figure = bracket_figure(records)
    return Study(
        TITLE,
        _summarise(found),
        (_table(found), _uncertainty_table(records), *_commands(records)),
        () if figure is None else (Plot("brackets", figure, bracket_caption()),),
        (),
        (*_goal_verdicts(found), *_gain_verdicts(found)),
        {"posteriors": [dict(one) for one in found], "records": [r.to_json() for r in records]},
    )


def make_records(
    found: Sequence[Found], *, command: str, seed: int, hardware: str
) -> list[PosteriorRecord]:
    """Return the records that the page shows.

    Args:
      found: As of ``measure_all``.
      command: What trained and evaluated all of them.
      seed: Of that command.
      hardware: Where it ran.
    """
    return [_record(one, command, seed, hardware) for one in found]


def _record(one: Found, command: str, seed: int, hardware: str) -> PosteriorRecord:
    flags = [radius["flags"] for radius in one["radii"]]
    masking = None
    if all(flag is not None for flag in flags):
        masking = tuple(dict.fromkeys(name for flag in flags for name in flag))
    method = METHODS[one["method"]]
    return PosteriorRecord(
        name="_".join((one["dataset"], one["method"], one["training"])),
        dataset=one["dataset"],
        method=method.words,
        training=one["training"],
        network=one["network"],
        num_samples=one["num_draws"],
        num_parameters=one["num_parameters"],
        command=command,
        seed=seed,
        hardware=hardware,
        accuracy=_share(one["radii"][0]["clean"]),
        radii=tuple(map(_radius, one["radii"])),
        aurocs=tuple(_aurocs(one)),
        masking=masking,
        mixed=one["mixed"],
        training_seconds=one["diagnostics"].get("training_seconds"),
        evaluation_seconds=sum(r["attack_seconds"] + r["certify_seconds"] for r in one["radii"]),
        remarks=tuple(_remarks(one)),
    )


def _remarks(one: Found) -> Iterator[str]:
    yield f"{one['num_train']:,} training images."
    if one["training"] == "interval" and METHODS[one["method"]].has_chains:
        yield (
            "Its density counts a bound of the worst case around every example: a generalised "
            "posterior, not Bayes' rule."
        )
    if (command := one["diagnostics"].get("sampled_by")) is not None:
        yield f"Its chains, and the time of their training, are those of: {command}"
    yield from one["diagnostics"].get("warnings", ())
    for radius in one["radii"]:
        real, rounded = (np.mean(radius[key]) for key in ("certified_real", "certified"))
        if real != rounded:
            yield (
                f"Within {radius['epsilon']:g}, {100 * real:.1f} % are certified in real "
                f"arithmetic, {100 * rounded:.1f} % as float32 evaluates the network."
            )


def _radius(radius: Found) -> RadiusRecord:
    fresh = radius["fresh"]
    return RadiusRecord(
        "linf",
        radius["epsilon"],
        len(radius["clean"]),
        _share(radius["published"]),
        _share(radius["standing"]),
        _share(radius["certified"]),
        Measured(None) if fresh is None else _share(fresh),
    )


def _share(right: Sequence[bool]) -> Measured:
    share = float(np.mean(right))
    return Measured(share, wilson_interval(share, len(right)))


def _aurocs(one: Found) -> Iterator[AurocRecord]:
    detection = one["radii"][0]["detection"]
    if detection is not None:
        own = detection["entropy"]
        yield AurocRecord(
            "detection", "entropy", "", _area(own["auroc"]), _area(own["auroc_aware"])
        )
    if one["shift"] is not None:
        for score, own in one["shift"]["scores"].items():
            yield AurocRecord(
                "shift", score, one["outside"], _area(own["clean"]), _area(own["both_attacked"])
            )


def _area(found: Found) -> Measured:
    value, low, high = (found[key] for key in ("value", "lower", "upper"))
    if value is None or not np.isfinite(value):
        return Measured(None)
    ends = None if low is None else (max(0.0, min(low, value)), min(1.0, max(high, value)))
    return Measured(value, ends)


def _summarise(found: Sequence[Found]) -> str:
    sentences = []
    for dataset in dict.fromkeys(one["dataset"] for one in found):
        own = [one for one in found if one["dataset"] == dataset]
        for number, radius in enumerate(own[0]["radii"]):
            best = max(own, key=lambda one: np.mean(one["radii"][number]["certified"]))
            left = max(own, key=lambda one: np.mean(one["radii"][number]["standing"]))
            sentences.append(
                f"{dataset}, {radius['epsilon']:g}: {_name(best)} has most certified, "
                f"{_percent(best['radii'][number]['certified'])} %, {_name(left)} keeps most "
                f"under attack, {_percent(left['radii'][number]['standing'])} %."
            )
    return f"{len(found)} posteriors. " + " ".join(sentences)


def _name(one: Found) -> str:
    doubt = " (chains not shown to have mixed)" if _is_unmixed(one) else ""
    return f"{METHODS[one['method']].words}, {one['training']}{doubt},"


def _plain_name(one: Found) -> str:
    return f"{METHODS[one['method']].words}, {one['training']}, {one['dataset']}"


def _percent(right: Sequence[bool]) -> str:
    return f"{100 * np.mean(right):.1f}"


def _table(found: Sequence[Found]) -> Table:
    rows = [
        (
            one["dataset"],
            METHODS[one["method"]].words,
            one["training"],
            one["num_draws"],
            f"{radius['epsilon']:g}",
            *(str(_share(radius[key])) for key in _SHARES),
            "-" if radius["fresh"] is None else str(_share(radius["fresh"])),
            "-" if radius["flags"] is None else ", ".join(radius["flags"]) or "none",
            {True: "yes", False: "no", None: "-"}[one["mixed"]],
            round(one["diagnostics"].get("training_seconds") or 0),
            round(radius["attack_seconds"] + radius["certify_seconds"]),
        )
        for one in found
        for radius in one["radii"]
    ]
    taken = sorted({_plain_name(one) for one in found if "sampled_by" in one["diagnostics"]})
    header = (
        *("data set", "method", "training", "draws", "radius", "clean", "published attack"),
        *("strong attack", "certified", "in real arithmetic", "new draws"),
        *("signs of masking", "mixed"),
        *("training, s", "evaluation, s"),
    )
    return Table(
        "Posteriors",
        header,
        tuple(rows),
        "Accuracy, %, with 95 % Wilson intervals over the same test images; l_inf. Robust "
        "likelihoods count the data set's largest radius. Strong attack: what every attack, the "
        "published one among them, leaves. Certified: the prediction as float32 evaluates the "
        "network, whatever the order of its sums; in real arithmetic: what other tools state. New "
        "draws: on what the strong attack found against "
        "those that it knew."
        + (
            f" Chains that another run has sampled, in that time: {', '.join(taken)}."
            if taken
            else ""
        ),
    )


def _uncertainty_table(records: Sequence[PosteriorRecord]) -> Table:
    rows = [
        (
            record.dataset,
            record.method,
            record.training,
            auroc.task,
            auroc.score,
            auroc.other or "-",
            _auroc(auroc.clean),
            _auroc(auroc.attacked),
        )
        for record in records
        for auroc in record.aurocs
    ]
    return Table(
        "Uncertainty",
        ("data set", "method", "training", "task", "score", "other inputs", "AUROC", "attacked"),
        tuple(rows),
        "Detection: of attacked inputs, and of those of an attack that knows the detector. Shift: "
        "of inputs of another kind, and with both kinds attacked, at the smaller radius.",
    )


def _commands(records: Sequence[PosteriorRecord]) -> Iterator[Table]:
    """Yield a table of the commands where there are several."""
    commands = dict.fromkeys(record.command for record in records)
    if len(commands) < 2:
        return
    rows = [
        (command, ", ".join(record.name for record in records if record.command == command))
        for command in commands
    ]
    yield Table("Commands", ("command", "posteriors"), tuple(rows))


def _auroc(measured: Measured) -> str:
    if measured.value is None:
        return "-"
    low, high = measured.interval or (measured.value, measured.value)
    return f"{measured.value:.3f} [{low:.3f}, {high:.3f}]"


def _goal_verdicts(found: Sequence[Found]) -> Iterator[Verdict]:
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
        yield Verdict(
            f"{dataset}: some posterior has at least {100 * goal:g} % {_WORDS[key]} within "
            f"{epsilon:g}",
            f"{_name(one)} {100 * best:.1f} %",
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


def _gain_verdicts(found: Sequence[Found]) -> Iterator[Verdict]:
    """Yield whether methods keep more than their rivals, without robust training and with it.

    These are two questions: each is adjusted for how often it is asked.
    """
    for is_robust in (False, True):
        own = [one for one in found if (one["training"] != "standard") is is_robust]
        yield from _adjust(list(_gains(own)))


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
        for own, other in zip(one["radii"], base["radii"], strict=True):
            theirs, ours = (np.asarray(side["standing"]) for side in (other, own))
            yield _Gain(
                f"{one['dataset']}, {one['training']}, {own['epsilon']:g}: "
                f"{METHODS[one['method']].words} keeps more under attack than "
                f"{METHODS[base['method']].words}",
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


def _is_unmixed(one: Found) -> bool:
    return METHODS[one["method"]].has_chains and one["mixed"] is not True
