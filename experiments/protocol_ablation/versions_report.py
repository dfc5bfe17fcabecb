"""The table of versions of the published code beside the paper, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_adv.report.table import Table
from bnn_adv.report.wording import Measured, format_percent
from experiments.launch.tables import Verdict
from experiments.protocol_ablation.published_versions import CONSTANTS, PAPER

Data = Mapping[str, Any]
"""See ``report.build_study``."""

_NAMES = {"2020": "September 2020: fixed", "today": "today: redrawn"}
_DATES = {"2020": "September 2020", "today": "today"}
_CONSTANTS = tuple(constants.name for constants in CONSTANTS)


def versions_table(data: Data) -> Table:
    """Return every line, and the paper's as the last."""
    rows = [
        (
            _NAMES[row["version"]],
            str(row["attacker_draws"]),
            str(row["defender_draws"]),
            _describe_constants(row),
            *(_percent(row, name) for name in ("accuracy", "fgsm", "pgd")),
            f"{100 * row['miss']:.1f}",
        )
        for row in data["versions"]
    ]
    paper = tuple(f"{100 * PAPER[name]:.1f}" for name in ("accuracy", "fgsm", "pgd"))
    rows.append(("the paper, Table 2", "-", "-", "-", *paper, "-"))
    return Table(
        "The published attack by version of its code",
        (
            "version: draws",
            "attacker's draws",
            "defender's draws",
            "PGD",
            "clean %",
            "FGSM %",
            "PGD %",
            "off by, points",
        ),
        tuple(rows),
        f"{data['dataset']}, the first {data['num_version_images']} test images, network "
        f"{data['network']}, training as published; FGSM with the radius {data['epsilon']:g}. "
        "September 2020 (commit 72c23b2): attacker and defender use the first draws of one list. "
        "Today (commit 5f96ec9): every step of an attack and every prediction draws anew; "
        f"{max(row['defender_draws'] for row in data['versions'])} new draws are cut into "
        "predictions of as many as the defender has, and the number is their mean. All images see "
        "the same new draws, where the published code draws for each by itself. PGD: radius, step "
        "and steps of the two sets of constants that the code has; the first sets the step to 2 / "
        "max(image), and every step of twice the radius or more is the same attack. Accuracies "
        "with 95 % intervals, over images and, with redrawn draws, predictions. off by: the larger "
        "of the distances of FGSM and PGD from the paper's.",
    )


def find_closest(data: Data) -> Data:
    """Return the line that comes closest to Table 2."""
    closest: Data = min(data["versions"], key=lambda row: row["miss"])
    return closest


def find_line(data: Data, version: str, constants: str = "given") -> Data:
    """Return a version's line with its most draws of an attacker, and the fewest of a defender."""
    rows = [
        row
        for row in data["versions"]
        if row["version"] == version and row["constants"]["name"] == constants
    ]
    most = max(row["attacker_draws"] for row in rows)
    rows = [row for row in rows if row["attacker_draws"] == most]
    chosen: Data = min(rows, key=lambda row: row["defender_draws"])
    return chosen


def find_agreeing(data: Data) -> list[Data]:
    """Return the lines whose intervals hold both of the paper's numbers under attack."""
    return [row for row in data["versions"] if _holds(row, "fgsm") and _holds(row, "pgd")]


def summarise(data: Data) -> str:
    """Return which ways agree with the paper, and what today's code leaves by given constants."""
    closest, today = find_closest(data), find_line(data, "today")
    agreeing = find_agreeing(data)
    return (
        f"Of {len(data['versions'])} ways to run the published attack on the published training, "
        f"{len(agreeing)} have both numbers of the paper, {_paper('fgsm')} % under FGSM and "
        f"{_paper('pgd')} % under PGD, within their 95 % intervals: {_group(agreeing)}. Closest is "
        f"{_describe(closest)}: {_percent(closest, 'fgsm')} and {_percent(closest, 'pgd')} %. "
        f"T{_describe(today)[1:]} leaves {_percent(today, 'fgsm')} % under FGSM and "
        f"{_percent(today, 'pgd')} % under PGD."
    )


def verdicts(data: Data) -> tuple[Verdict, ...]:
    """Return for each version and set of constants whether it repeats Table 2."""
    return tuple(_verdict(data, version, name) for version in _NAMES for name in _CONSTANTS)


def _verdict(data: Data, version: str, constants: str) -> Verdict:
    rows = [
        row
        for row in data["versions"]
        if row["version"] == version and row["constants"]["name"] == constants
    ]
    agreeing = find_agreeing({"versions": rows})
    low, high = (choose(rows, key=lambda row: row["pgd"]) for choose in (min, max))
    return Verdict(
        f"The code of {_DATES[version]} with PGD of {_describe_constants(rows[0])} gives both "
        f"numbers of Table 2 ({_paper('fgsm')} and {_paper('pgd')} %)",
        f"within the intervals of {len(agreeing)} of {len(rows)} numbers of draws"
        f"{': ' + _draws(agreeing) if agreeing else ''}; under PGD {_percent(low, 'pgd')} % "
        f"({_draws([low])}) to {_percent(high, 'pgd')} % ({_draws([high])})",
        bool(agreeing) if data["dataset"] == "mnist" else None,
    )


def _holds(row: Data, name: str) -> bool:
    low, high = row["intervals"][name]
    return bool(low <= PAPER[name] <= high)


def _group(rows: Sequence[Data]) -> str:
    """Return lines in words, those of one version and one set of constants together."""
    groups: dict[tuple[str, str], list[Data]] = {}
    for row in rows:
        groups.setdefault((row["version"], row["constants"]["name"]), []).append(row)
    return (
        "; ".join(
            f"the code of {_DATES[own[0]['version']]} with PGD of {_describe_constants(own[0])} "
            f"and {_draws(own)} draws of attacker / defender"
            for own in groups.values()
        )
        or "none"
    )


def _draws(rows: Sequence[Data]) -> str:
    return ", ".join(f"{row['attacker_draws']} / {row['defender_draws']}" for row in rows)


def _describe(row: Data) -> str:
    return (
        f"the code of {_DATES[row['version']]} with PGD of {_describe_constants(row)} and "
        f"{_draws([row])} draws of attacker / defender"
    )


def _describe_constants(row: Data) -> str:
    constants = row["constants"]
    size = constants["step_size"]
    step = "2" if size == 2 else f"2/{2 / size:.0f}"
    return f"radius {constants['epsilon']:g}, {constants['num_steps']} steps of {step}"


def _percent(row: Data, name: str) -> str:
    return str(Measured(row[name], tuple(row["intervals"][name])))


def _paper(name: str) -> str:
    return format_percent(PAPER[name])
