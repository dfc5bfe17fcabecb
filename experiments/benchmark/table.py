"""The rows as an aligned table of plain text, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.benchmark.rows import Target

_HEADINGS = ("case", "work", "figure", "value", "unit", "min-max (n)", "target", "met")
_IS_NUMBER = (False, False, False, True, False, True, True, False)


def format_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one line a row, columns aligned, with a verdict where there is a target.

    Args:
      rows: From ``Row.to_dict`` or a ``results.json``.
    """
    cells: list[tuple[str, ...]] = [_HEADINGS]
    case, work = "", ""
    for row in rows:
        # What repeats the line above is left out, so that the eye finds where a case begins.
        same_case = row["case"] == case
        same_work = same_case and row["work"] == work
        case, work = row["case"], row["work"]
        cells.append(("" if same_case else case, "" if same_work else work, *_describe(row)))
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS))]
    lines = [_align(line, widths) for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def format_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the ceiling, the pieces and the rows with a target as a Markdown table, for a README.

    Args:
      rows: From ``Row.to_dict`` or a ``results.json``.
    """
    lines = ["| work | figure | value | target | met |", "| --- | --- | ---: | ---: | --- |"]
    for row in rows:
        if row["target"] is None and row["case"] not in ("ceiling", "pieces"):
            continue
        figure, value, unit, _, target, verdict = _describe(row)
        # "1 is linear" explains the figure and is no unit.
        value = value if unit.startswith("1 ") else f"{value} {unit}"
        cells = (row["work"], figure, value, target, verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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


def _describe(row: Mapping[str, Any]) -> tuple[str, ...]:
    spread = ""
    if row["low"] is not None:
        spread = f"{format_number(row['low'])}-{format_number(row['high'])} ({row['repeats']})"
    target, verdict = "", ""
    if row["target"] is not None:
        target = str(Target(**row["target"]))
        verdict = "yes" if row["met"] else "NO"
    return (row["figure"], format_number(row["value"]), row["unit"], spread, target, verdict)


def _align(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if is_number else cell.ljust(width)
        for cell, width, is_number in zip(line, widths, _IS_NUMBER, strict=True)
    ]
    return "  ".join(cells).rstrip()
