"""One table, written as text for a terminal, as Markdown for a README, and as HTML for a page."""

from __future__ import annotations

import dataclasses
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from markupsafe import Markup
from tabulate import DataRow, TableFormat, tabulate

from bnn_adv.report import page
from bnn_adv.report.wording import NOT_AVAILABLE, one_line

Kind = Literal["name", "number", "accuracy", "prose"]

_WIDEST = 44
"""Characters of a column on a terminal: one of sentences would push the others out of sight."""
_LONG = 28
"""Text of more characters is broken into lines on a page."""
_LINE = DataRow("| ", " | ", " |")
_MARKDOWN = TableFormat(None, None, None, None, _LINE, _LINE, padding=0, with_header_hide=None)
# What could begin a tag or end a cell.
_SPECIAL = re.compile(r"\\|\||<(?=[a-zA-Z/!?])")
_ESCAPED = {"\\": r"\\", "|": r"\|", "<": "&lt;"}


class Cell(NamedTuple):
    """A cell of a table.

    text: What stands in it.
    kind: How it is set; an accuracy is ``value`` or ``value [low, high]``, prose is broken into
      lines.
    note: Small print below, on a page only.
    rows: Number of lines that it spans; those below leave it out.
    is_heading: Whether it names its line.
    """

    text: str
    kind: Kind = "number"
    note: str = ""
    rows: int = 1
    is_heading: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Args:
      title: Heading.
      header: Names of the columns.
      rows: Cells: text, whole numbers, floats, None for what was not measured, or ``Cell``. A line
        may leave out its first cells where those above span it.
      caption: How to read it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ""


def format_value(value: Any) -> str:
    """Return a value as text: floats with four significant digits, "n/a" for None."""
    if value is None:
        return NOT_AVAILABLE
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return one_line(value)


def named_lines(
    lines: Iterable[Sequence[str]], kind: Kind = "number"
) -> tuple[tuple[Cell, ...], ...]:
    """Return lines of which each begins with its name; the rest are numbers as text.

    Args:
      lines: Texts.
      kind: Of all cells but the names.
    """
    return tuple(
        (Cell(name, "name", is_heading=True), *(Cell(text, kind) for text in rest))
        for name, *rest in lines
    )


def to_text(table: Table, *, least_width: int = 0) -> str:
    """Return header, rule and lines for a terminal; long sentences go on in the next line.

    Args:
      table: Title and caption are left to the caller.
      least_width: Of the rule.
    """
    rows = _full_rows(table)
    kinds = _kinds(table, rows)
    heads = map(Cell, table.header, kinds)
    header = [textwrap.fill(_to_terminal(cell), _WIDEST) for cell in heads]
    lines = [list(map(_to_terminal, row)) for row in rows]
    text = tabulate(
        # As a row of its own a header is not set wider than it is.
        [header, *lines],
        tablefmt="plain",
        colalign=["right" if kind == "number" else "left" for kind in kinds],
        disable_numparse=True,
        preserve_whitespace=True,
    ).split("\n")
    depth = max(name.count("\n") for name in header) + 1
    text.insert(depth, "-" * max(least_width, *map(len, text)))
    return "\n".join(text)


def to_markdown(table: Table) -> str:
    """Return header, rule and lines as Markdown, each ended; nothing in a cell can end the cell."""
    rows = _full_rows(table)
    kinds = _kinds(table, rows)
    rule = ["---" if kind in ("name", "prose") else "---:" for kind in kinds]
    lines = [[_escape(cell.text) for cell in row] for row in rows]
    # Without padding: a longer word in one cell changes one line of a file.
    text: str = tabulate(
        [rule, *lines],
        list(map(_escape, table.header)),
        tablefmt=_MARKDOWN,
        stralign=None,
        disable_numparse=True,
    )
    return text + "\n"


def to_html(table: Table | None) -> Markup:
    """Return the table with its caption, or nothing where it has no line or is None.

    It scrolls by itself where the page is narrow; a line that begins with a heading has a rule
    above.
    """
    if table is None or not table.rows:
        return Markup()
    rows = _cells(table)
    columns = zip(table.header, rows[0], strict=True)
    return Markup(page.render("table.html", columns=columns, rows=rows, table=table))


def _cells(table: Table) -> list[tuple[Cell, ...]]:
    is_text = [
        any(isinstance(row[i], str) for row in table.rows if len(row) == len(table.header))
        for i in range(len(table.header))
    ]
    return [
        tuple(
            value if isinstance(value, Cell) else _to_cell(value, is_text[i], is_heading=i == 0)
            for i, value in enumerate(row)
        )
        for row in table.rows
    ]


def _to_cell(value: Any, is_text: bool, *, is_heading: bool) -> Cell:
    text = format_value(value)
    kind: Kind = "number"
    if is_text:
        kind = "prose" if len(text) > _LONG else "name"
    return Cell(text, kind, is_heading=is_heading)


def _full_rows(table: Table) -> list[tuple[Cell, ...]]:
    """Return the cells with an empty one for each that a cell above spans."""
    blank = Cell("")
    return [(blank,) * (len(table.header) - len(row)) + row for row in _cells(table)]


def _kinds(table: Table, rows: list[tuple[Cell, ...]]) -> list[Kind]:
    return [cell.kind for cell in rows[0]] if rows else ["name"] * len(table.header)


def _to_terminal(cell: Cell) -> str:
    if cell.kind == "prose":
        return textwrap.fill(cell.text, _WIDEST)
    if cell.kind != "accuracy":
        return cell.text
    # The values of a column line up, whether or not an interval follows, heads above them.
    value, bracket, interval = cell.text.partition(" [")
    return f"{value:>5}{bracket}{interval}"


def _escape(text: str) -> str:
    return _SPECIAL.sub(lambda found: _ESCAPED[found[0]], text)
