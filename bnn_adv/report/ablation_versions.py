"""The table of versions of the published code beside the paper, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnn_adv.published_versions import PAPER
from bnn_adv.report.study import Table, Verdict
from bnn_adv.report.wording import Measured, format_percent

Data = Mapping[str, Any]
"""See ``ablation_study.build_study``."""

_NAMES = {"2020": "September 2020: fixed", "today": "today: redrawn"}


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
        "with 95 % intervals, over images and, with redrawn draws, predictions. off by: the larger of "
        "the distances of FGSM and PGD from the paper's.",
    )


def find_closest(data: Data) -> Data:
    """Return the line that comes closest to Table 2."""
    closest: Data = min(data["versions"], key=lambda row: row["miss"])
    return closest


def find_line(data: Data, version: str, *, least: bool = False) -> Data:
    """Return a version's line with given constants and most draws, or with the fewest."""
    rows = [
        row
        for row in data["versions"]
        if row["version"] == version and row["constants"]["name"] == "given"
    ]
    most = max(row["attacker_draws"] for row in rows)
    rows = [row for row in rows if row["attacker_draws"] == most]
    chosen: Data = min(rows, key=lambda row: row["defender_draws"] * (1 if least else -1))
    return chosen


def summarise(data: Data) -> str:
    """Return which version comes closest to the paper, and what the other leaves."""
    closest = find_closest(data)
    today = find_line(data, "today", least=True)
    others = [row["miss"] for row in data["versions"] if row["version"] != closest["version"]]
    return (
        f"Of {len(data['versions'])} ways to run the published attack on the published training, "
        f"{_describe(closest)} comes closest to the paper's {_paper('fgsm')} % under FGSM and "
        f"{_paper('pgd')} % under PGD: {_percent(closest, 'fgsm')} and "
        f"{_percent(closest, 'pgd')} %. The code of "
        f"{'today' if closest['version'] == '2020' else 'September 2020'} is off by "
        f"{100 * min(others):.1f} to {100 * max(others):.1f} points: today's, with "
        f"{today['attacker_draws']} new draws for the attack and {today['defender_draws']} for the "
        f"prediction, leaves {_percent(today, 'fgsm')} % under FGSM and {_percent(today, 'pgd')} % "
        "under PGD."
    )


def verdicts(data: Data) -> tuple[Verdict, ...]:
    """Return whether today's published code still shows Table 2's robustness under PGD."""
    today = [row for row in data["versions"] if row["version"] == "today"]
    low = min(today, key=lambda row: row["pgd"])
    high = max(today, key=lambda row: row["pgd"])
    # Table 2's number must lie within a line's interval to be reproduced by it.
    reproduces = [
        row
        for row in today
        if row["intervals"]["pgd"][0] <= PAPER["pgd"] <= row["intervals"]["pgd"][1]
    ]
    return (
        Verdict(
            f"Today's published code reproduces Table 2's {_paper('pgd')} % under PGD",
            f"{len(reproduces)} of {len(today)} settings have it within their interval; they leave "
            f"{_percent(low, 'pgd')} % ({_describe(low)}) to {_percent(high, 'pgd')} % "
            f"({_describe(high)})",
            bool(reproduces) if data["dataset"] == "mnist" else None,
        ),
    )


def _describe(row: Data) -> str:
    version = "the code of September 2020" if row["version"] == "2020" else "today's code"
    return (
        f"{version} with {row['attacker_draws']} / {row['defender_draws']} draws of attacker / "
        f"defender and PGD of {_describe_constants(row)}"
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
