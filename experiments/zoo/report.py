"""What the zoo says: a record of every posterior, tables, brackets, and what averaging adds."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bnn_adv import zoo
from bnn_adv.evaluation.metrics import wilson_interval
from bnn_adv.report.table import Table
from bnn_adv.report.wording import Measured
from experiments.launch.tables import Plot, Study
from experiments.zoo.claims import Found, gain_verdicts, goal_verdicts, means_of, name_of
from experiments.zoo.figures import bracket_caption, bracket_figure
from experiments.zoo.methods import METHODS
from experiments.zoo.record import AurocRecord, PosteriorRecord, RadiusRecord

TITLE = "Posteriors between what is certified and what attacks leave"
DETECTORS = ("entropy", "mutual_information")
_SHARES = ("clean", "published", "standing", "certified", "certified_real")


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
        (_table(found), _uncertainty_table(found, records), *_commands(records)),
        () if figure is None else (Plot("brackets", figure, bracket_caption()),),
        (),
        (*goal_verdicts(found), *gain_verdicts(found)),
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
        radii=tuple(map(_radius, one["radii"], means_of(one))),
        aurocs=tuple(_aurocs(one)),
        masking=masking,
        mixed=one["mixed"],
        training_seconds=one["diagnostics"].get("training_seconds"),
        evaluation_seconds=sum(r["attack_seconds"] + r["certify_seconds"] for r in one["radii"]),
        shipped=_list_shipped().get(_find_hash(one), ""),
        remarks=tuple(_remarks(one)),
    )


def _find_hash(one: Found) -> Any:
    # Runs of before it was noted have it where the shift was looked at.
    return one.get("draws_hash", (one["shift"] or {}).get("draws_hash"))


@functools.cache
def _list_shipped() -> dict[Any, str]:
    """Return the package's entries by the hash of their draws."""
    entries = [zoo.load(name, verify=False) for name in zoo.names()]
    return {entry.certificate.draws_hash: entry.name for entry in entries}


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
    for radius, mean in zip(one["radii"], means_of(one), strict=True):
        if mean is not None and mean["flags"]:
            yield (
                f"Within {radius['epsilon']:g}, the network of its mean weights raised signs of "
                f"masking: {', '.join(mean['flags'])}."
            )
    for radius in one["radii"]:
        real, rounded = (np.mean(radius[key]) for key in ("certified_real", "certified"))
        if real != rounded:
            yield (
                f"Within {radius['epsilon']:g}, {100 * real:.1f} % are certified in real "
                f"arithmetic, {100 * rounded:.1f} % as float32 evaluates the network."
            )


def _radius(radius: Found, mean: Found | None) -> RadiusRecord:
    fresh = radius["fresh"]
    return RadiusRecord(
        "linf",
        radius["epsilon"],
        len(radius["clean"]),
        _share(radius["published"]),
        _share(radius["standing"]),
        _share(radius["certified"]),
        Measured(None) if fresh is None else _share(fresh),
        Measured(None) if mean is None else _share(mean["standing"]),
    )


def _share(right: Sequence[bool]) -> Measured:
    share = float(np.mean(right))
    return Measured(share, wilson_interval(share, len(right)))


def _aurocs(one: Found) -> Iterator[AurocRecord]:
    detection = one["radii"][0]["detection"] or {}
    for score in DETECTORS:
        if (own := detection.get(score)) is not None:
            yield AurocRecord(
                "detection", score, "", _area(own["auroc"]), _area(own["auroc_aware"])
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
                f"{dataset}, {radius['epsilon']:g}: {name_of(best)} has most certified, "
                f"{_percent(best['radii'][number]['certified'])} %, {name_of(left)} keeps most "
                f"under attack, {_percent(left['radii'][number]['standing'])} %."
            )
    return f"{len(found)} posteriors. " + " ".join(sentences)


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
            "-" if mean is None else str(_share(mean["standing"])),
            "-" if radius["flags"] is None else ", ".join(radius["flags"]) or "none",
            {True: "yes", False: "no", None: "-"}[one["mixed"]],
            round(one["diagnostics"].get("training_seconds") or 0),
            round(radius["attack_seconds"] + radius["certify_seconds"]),
        )
        for one in found
        for radius, mean in zip(one["radii"], means_of(one), strict=True)
    ]
    taken = sorted({_plain_name(one) for one in found if "sampled_by" in one["diagnostics"]})
    header = (
        *("data set", "method", "training", "draws", "radius", "clean", "published attack"),
        *("strong attack", "certified", "in real arithmetic", "new draws"),
        *("mean of weights", "signs of masking", "mixed"),
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
        "draws: on what the strong attack found against those that it knew. Mean of weights: what "
        "every attack leaves of one network, whose weights are the mean of these draws'; not of "
        "ensembles and chains. Signs of masking, and times, are those of the draws."
        + (
            f" Chains that another run has sampled, in that time: {', '.join(taken)}."
            if taken
            else ""
        ),
    )


def _uncertainty_table(found: Sequence[Found], records: Sequence[PosteriorRecord]) -> Table:
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
        "All at the smaller radius. Detection: of attacked inputs, and of those of an attack that "
        f"knows the detector; {_count_inputs(found)}. Shift: of inputs of another kind, and with "
        "both kinds attacked.",
    )


def _count_inputs(found: Sequence[Found]) -> str:
    counts = {
        radius["detection"]["num_inputs"]
        for one in found
        for radius in one["radii"][:1]
        if radius["detection"] is not None
    }
    return "not looked at" if not counts else f"{', '.join(map(str, sorted(counts)))} inputs"


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
