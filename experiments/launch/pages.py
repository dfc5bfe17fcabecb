"""The page of one experiment, and the parts that a page of several shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bnn_adv.report import elements
from bnn_adv.report.diagnostics import describe_settings
from bnn_adv.report.elements import Cell
from bnn_adv.report.html import render_page
from experiments.launch.tables import Table, format_value, list_tables

_LONG = 28


def render_study(record: dict[str, Any], figures: Mapping[str, bytes]) -> str:
    """Render one experiment as an HTML file that needs nothing else.

    Args:
      record: Content of its ``results.json``.
      figures: PNG by file name, as the record names them.
    """
    return render_page(
        record["title"],
        (
            elements.paragraph(record["summary"], style="summary"),
            *(render_table(table) for table in list_tables(record)),
            elements.section("Figures", *render_figures(record, figures)),
            elements.section("Settings", elements.pairs(describe_settings(record["config"]))),
            elements.section(
                "Environment", elements.pairs(describe_settings(record["environment"]))
            ),
            elements.section("Command", render_command(record)),
        ),
    )


def render_studies(
    title: str,
    summary: str,
    overview: Sequence[Table],
    records: Sequence[tuple[dict[str, Any], Mapping[str, bytes]]],
) -> str:
    """Render several experiments as one HTML file.

    Args:
      title: Heading.
      summary: A few sentences.
      overview: Tables that stand first.
      records: Results and figures of every experiment, in order.
    """
    parts = [elements.paragraph(summary, style="summary"), *map(render_table, overview)]
    for record, figures in records:
        # What was claimed and tested stands in the overview of all experiments.
        own = list_tables(record | {"claims": [], "verdicts": []})
        parts.append(
            elements.section(
                record["title"],
                elements.paragraph(record["summary"]),
                *render_figures(record, figures),
                *(render_table(table, level=3) for table in own),
                render_command(record),
            )
        )
    return render_page(title, parts)


def render_table(table: Table, *, level: int = 2) -> str:
    """Return a table with its heading and caption as HTML."""
    is_text = [any(isinstance(row[i], str) for row in table.rows) for i in range(len(table.header))]

    def cell(index: int, value: Any) -> Cell:
        text = format_value(value)
        if index == 0:
            return Cell(text, "prose" if len(text) > _LONG else "name", is_heading=True)
        if not is_text[index]:
            return Cell(text)
        return Cell(text, "prose" if len(text) > _LONG else "name")

    lines = [[cell(i, value) for i, value in enumerate(row)] for row in table.rows]
    body = elements.table(table.header, lines) + elements.paragraph(table.caption, style="quiet")
    if level == 2:
        return elements.section(table.title, body)
    return f"<h{level}>{escape(table.title)}</h{level}>\n{body}"


def render_figures(record: dict[str, Any], figures: Mapping[str, bytes]) -> list[str]:
    """Return the figures of a record as HTML, each with its caption."""
    return [elements.figure(figures[f["file"]], f["caption"]) for f in record["figures"]]


def render_command(record: dict[str, Any]) -> str:
    """Return command, time and seed as HTML."""
    environment = record["environment"]
    where = f"{environment['cpu_count']} x {environment['cpu']}, {environment['device']}"
    note = (
        f"{record['seconds']:,.0f} s on {where}; jax {environment['jax']}, "
        f"commit {environment['commit'][:12]}; seed {record['seed']}."
    )
    return f"<pre>{escape(record['command'])}</pre>" + elements.paragraph(note, style="quiet")
