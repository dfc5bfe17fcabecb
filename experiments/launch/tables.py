"""What an experiment says: tables, figures, numbers beside the paper's, and verdicts on claims."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from bnn_adv.report.table import Table, to_text

_CLAIM_HEADER = ("item", "quantity", "paper", "published", "corrected", "strong", "note")
_CLAIM_NUMBERS = ("paper", "published", "corrected", "strong")
_VERDICT_HEADER = ("what is claimed", "what was measured", "holds")
_HOLDS = {True: "yes", False: "no", None: "undecided"}


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure.

    Args:
      name: Name of its files, without ending.
      figure: The drawing.
      caption: What it shows and how to read it.
    """

    name: str
    figure: Figure
    caption: str


@dataclasses.dataclass(frozen=True)
class Claim:
    """A number of the paper beside ours.

    Args:
      item: Where the paper shows it.
      quantity: What is measured.
      paper: The paper's number; None where it prints none.
      published: Ours with the published settings and departures from the mathematics.
      corrected: Ours with the paper's own definitions.
      strong: Ours under a strong attack.
      unit: Unit of all four.
      note: What differs from the paper's setting.
    """

    item: str
    quantity: str
    paper: float | None
    published: float | None
    corrected: float | None
    strong: float | None
    unit: str = "%"
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A claim and what was found.

    Args:
      claim: What the paper or lemma says.
      measured: What was measured, with its interval.
      holds: Whether the measurement agrees; None where it cannot tell.
    """

    claim: str
    measured: str
    holds: bool | None


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything that an experiment reports.

    Args:
      title: Heading.
      summary: What was found, in a few sentences.
      tables: Tables, in order.
      plots: Figures, in order.
      claims: Numbers beside the paper's.
      verdicts: Claims that were tested.
      data: Every number behind tables and figures, as JSON values.
    """

    title: str
    summary: str
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    claims: tuple[Claim, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    data: dict[str, Any] = dataclasses.field(default_factory=dict)


def to_record(study: Study) -> dict[str, Any]:
    """Return a study as JSON values; a figure becomes the name of its file and its caption.

    Raises:
      ValueError: A row has more or fewer cells than its header, or names of figures repeat.
    """
    for table in study.tables:
        for row in table.rows:
            if len(row) != len(table.header):
                raise ValueError(
                    f"Table {table.title!r} has {len(table.header)} columns, and a row of "
                    f"{len(row)} cells: {row}."
                )
    names = [plot.name for plot in study.plots]
    if len(set(names)) < len(names):
        raise ValueError(f"Every figure needs a name of its own, got {names}.")
    return {
        "title": study.title,
        "summary": study.summary,
        "tables": [_plain(dataclasses.asdict(table)) for table in study.tables],
        "figures": [
            {"file": f"figures/{plot.name}.png", "caption": plot.caption} for plot in study.plots
        ],
        "claims": [_plain(dataclasses.asdict(claim)) for claim in study.claims],
        "verdicts": [_plain(dataclasses.asdict(verdict)) for verdict in study.verdicts],
        "data": _plain(study.data),
    }


def claims_table(claims: Sequence[dict[str, Any]]) -> Table | None:
    """Return the table "paper / published / corrected / strong", or None without claims.

    Args:
      claims: ``Claim`` records, as JSON values.
    """
    rows = []
    for claim in claims:
        unit = f" ({claim['unit']})" if claim["unit"] else ""
        numbers = [claim[name] for name in _CLAIM_NUMBERS]
        rows.append((claim["item"], claim["quantity"] + unit, *numbers, claim["note"]))
    caption = (
        "paper: what the paper prints. published: this library with the published settings and "
        "departures from the mathematics. corrected: with the paper's own definitions. strong: "
        "under attacks that do not saturate, the worst case of every input."
    )
    return Table("Beside the paper", _CLAIM_HEADER, tuple(rows), caption) if rows else None


def verdicts_table(verdicts: Sequence[dict[str, Any]]) -> Table | None:
    """Return one line a claim that was tested, or None without any.

    Args:
      verdicts: ``Verdict`` records, as JSON values.
    """
    rows = tuple((v["claim"], v["measured"], _HOLDS[v["holds"]]) for v in verdicts)
    return Table("Claims, tested", _VERDICT_HEADER, rows) if rows else None


def list_tables(record: dict[str, Any]) -> list[Table]:
    """Return all tables of a record: claims and verdicts first."""
    first = (claims_table(record["claims"]), verdicts_table(record["verdicts"]))
    own = [
        Table(t["title"], tuple(t["header"]), tuple(map(tuple, t["rows"])), t["caption"])
        for t in record["tables"]
    ]
    return [table for table in first if table is not None] + own


def format_study(record: dict[str, Any]) -> str:
    """Return title, summary and tables as text for a terminal."""
    parts = [record["title"], "", record["summary"], ""]
    for table in list_tables(record):
        parts += [table.title, "", to_text(table), ""]
    return "\n".join(parts)


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it; what is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
