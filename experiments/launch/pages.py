"""The page of one experiment, and the page of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from bnn_adv.report import page
from bnn_adv.report.diagnostics import describe_settings
from bnn_adv.report.table import Table, to_html
from experiments.launch.tables import list_tables


def render_study(record: dict[str, Any], figures: Mapping[str, bytes]) -> str:
    """Render one experiment as an HTML file that needs nothing else.

    Args:
      record: Content of its ``results.json``.
      figures: PNG by file name, as the record names them.
    """
    return page.render(
        "study.html",
        package=__package__,
        title=record["title"],
        study=record,
        tables=_with_titles(list_tables(record)),
        pictures=_pictures(record, figures),
        settings=describe_settings(record["config"]),
        environment=describe_settings(record["environment"]),
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
    # What was claimed and tested stands in the overview of all experiments.
    own = [list_tables(record | {"claims": [], "verdicts": []}) for record, _ in records]
    return page.render(
        "studies.html",
        package=__package__,
        title=title,
        summary=summary,
        overview=_with_titles(overview),
        studies=[
            (record, _pictures(record, figures), _with_titles(tables))
            for (record, figures), tables in zip(records, own, strict=True)
        ],
    )


def _with_titles(tables: Sequence[Table]) -> list[tuple[str, Markup]]:
    return [(table.title, to_html(table)) for table in tables]


def _pictures(record: dict[str, Any], figures: Mapping[str, bytes]) -> list[page.Picture]:
    return [page.picture(figures[f["file"]], f["caption"]) for f in record["figures"]]
