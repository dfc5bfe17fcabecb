"""The rows as an aligned table of plain text, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_adv.report.table import Cell, Table, to_markdown, to_text
from experiments.benchmark.rows import Target

_HEADINGS = ("case", "work", "figure", "value", "unit", "min-max (n)", "target", "met")
_SHOWN = ("ceiling", "pieces", "memory", "peers")


def format_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one line a row, columns aligned, with a verdict where there is a target.

    Args:
      rows: From ``Row.to_dict`` or a ``results.json``.
    """
    lines = []
    case, work = "", ""
    for row in rows:
        # What repeats the line above is left out, so that the eye finds where a case begins.
        same_case = row["case"] == case
        same_work = same_case and row["work"] == work
        case, work = row["case"], row["work"]
        figure, value, unit, *rest, verdict = _describe(row)
        lines.append(
            (
                *(_name("" if same_case else case), _name("" if same_work else work)),
                *(_name(figure), Cell(value), _name(unit), *map(Cell, rest), _name(verdict)),
            )
        )
    return to_text(Table("Benchmark", _HEADINGS, tuple(lines)))


def format_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows with a target, and of some cases all rows, as a Markdown table for a README.

    Args:
      rows: From ``Row.to_dict`` or a ``results.json``.
    """
    lines = []
    for row in rows:
        if row["target"] is None and row["case"] not in _SHOWN:
            continue
        figure, value, unit, _, target, verdict = _describe(row)
        # "1 is linear" explains the figure and is no unit.
        value = value if unit.startswith("1 ") else f"{value} {unit}"
        lines.append(
            (*map(_name, (row["work"], figure)), Cell(value), Cell(target), _name(verdict))
        )
    header = ("work", "figure", "value", "target", "met")
    return to_markdown(Table("Benchmark", header, tuple(lines)))


def format_number(value: float) -> str:
    """Return a number with three significant digits, in plain notation where that is short."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
        text = f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.0f}"
        return text if value == 0 or abs(value) >= 0.1 else f"{value:.3g}"
    return f"{value:.2e}"


def summarise_targets(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how many targets were met, and name those that were not."""
    promised = [row for row in rows if row["target"] is not None]
    if not promised:
        return "None of these rows has a target."
    missed = [f"{row['work']}: {row['figure']}" for row in promised if not row["met"]]
    text = f"{len(promised) - len(missed)} of {len(promised)} targets met"
    return f"{text}." if not missed else f"{text}; missed: {'; '.join(missed)}."


def describe_peers(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the public attack tools computed with, in sentences; empty without them.

    Args:
      rows: From ``Row.to_dict`` or a ``results.json``.
    """
    all_details = [row["details"] for row in rows if row["case"] == "peers"]
    tools = [details for details in all_details if "torch" in details]
    if not tools:
        return ""
    names = {f"{details['name']} {details['version']}": None for details in tools}
    builds = {
        f"PyTorch {details['torch']} ({details['blas']}; kernels for {details['capability']})": None
        for details in tools
    }
    threads = sorted({details["threads"] for details in tools})
    theirs = max(details["product_gflops_per_second"] for details in tools)
    ours = [details["product_gflops_per_second"] for details in all_details if details not in tools]
    of_ours = f", one by JAX {format_number(max(ours))}" if ours else ""
    return (
        f"Attack tools: {', '.join(names)}, in {', '.join(builds)} on the CPU, each with the "
        "number of threads, the way of multiplying and the images at once that are fastest for it "
        f"(threads: {', '.join(map(str, threads))}). A product of 1024 x 1024 matrices by PyTorch "
        f"reaches {format_number(theirs)} GFLOP/s{of_ours}."
    )


def _describe(row: Mapping[str, Any]) -> tuple[str, ...]:
    spread = ""
    if row["low"] is not None:
        spread = f"{format_number(row['low'])}-{format_number(row['high'])} ({row['repeats']})"
    target, verdict = "", ""
    if row["target"] is not None:
        target = str(Target(**row["target"]))
        verdict = "yes" if row["met"] else "NO"
    return (row["figure"], format_number(row["value"]), row["unit"], spread, target, verdict)


def _name(text: str) -> Cell:
    return Cell(text, "name")
