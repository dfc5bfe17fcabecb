"""The zoo as one HTML file: a table that sorts and filters, a plot, and all of every posterior.

One file with an address for every posterior (``zoo.html#posterior-NAME``) rather than a file each:
it can be mailed, searched and printed as a whole, and no link of it can break. Without a script it
is the same page with a table that stays in its order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from bnn_adv.report import page, style
from bnn_adv.report.table import Cell, Table, to_html
from bnn_adv.report.wording import Measured, to_number
from experiments.zoo.figures import bracket_caption, bracket_figure
from experiments.zoo.record import NOTHING, TASKS, AurocRecord, PosteriorRecord, RadiusRecord

NOT_MEASURED = "not measured"
_NO_RADIUS = RadiusRecord("", 0.0, 1)
_MIXED = {True: "mixed", False: "not mixed", None: "not judged"}


class TableCell(NamedTuple):
    """A cell of the table that sorts.

    text: What stands in it.
    key: What it is sorted by, as text: a number, or words; empty: it was not measured, and stands
      last in either order.
    small: What stands below it in small print.
    address: Of the posterior, where the cell names it.
    """

    text: str
    key: str
    small: str = ""
    address: str = ""


class Column(NamedTuple):
    """A column of the table that sorts.

    name: Its heading.
    kind: ``"text"`` sorts from a to z first, ``"number"`` from the largest first.
    make: What stands in it, of a posterior within a radius.
    """

    name: str
    kind: Literal["text", "number"]
    make: Callable[[PosteriorRecord, RadiusRecord], TableCell]


def render_zoo(
    records: Sequence[PosteriorRecord], *, title: str, summary: str = "", command: str = ""
) -> str:
    """Render posteriors as one HTML file that needs nothing else.

    Args:
      records: One a posterior; their names differ.
      title: Heading.
      summary: A few sentences that stand first.
      command: What makes the page.

    Raises:
      ValueError: Two posteriors have one name.
    """
    names = [record.name for record in records]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"Two posteriors of a page have one name: {', '.join(twice)}.")
    drawn = bracket_figure(records)
    return page.render(
        "zoo.html",
        package=__package__,
        title=title,
        summary=summary,
        columns=COLUMNS,
        rows=[
            (record, radius, [column.make(record, radius) for column in COLUMNS], _words(record))
            for record in records
            for radius in record.radii or (_NO_RADIUS,)
        ],
        choices={
            "dataset": ("Data set", _distinct([record.dataset for record in records])),
            "method": ("Method", _distinct([record.method for record in records])),
            "training": ("Training", _distinct([record.training for record in records])),
            "radius": (
                "Radius",
                _distinct([describe_radius(r) for record in records for r in record.radii]),
            ),
        },
        radius_name=describe_radius,
        plot=drawn and page.picture(style.to_png(drawn), bracket_caption()),
        posteriors=[describe_posterior(record) for record in records],
        command_line=command,
    )


class Described(NamedTuple):
    """All that a page says of one posterior.

    record: What it says it of.
    address: Within the page.
    summary: Names and texts.
    radii: The table of radii, as HTML.
    uncertainty: The table of AUROCs, as HTML.
    """

    record: PosteriorRecord
    address: str
    summary: list[tuple[str, str]]
    radii: Any
    uncertainty: Any


def describe_posterior(record: PosteriorRecord) -> Described:
    """Return all that is known of a posterior, in words."""
    summary = [
        ("data set", record.dataset),
        ("method", record.method),
        ("training", record.training),
        ("network", record.network),
        ("draws", f"{_draws(record)} of {record.num_parameters:,} parameters"),
        ("clean accuracy %", percent(record.accuracy)),
        ("signs of masking", describe_masking(record)),
        ("chains", _MIXED[record.mixed]),
        ("training time", describe_seconds(record.training_seconds)),
        ("evaluation time", describe_seconds(record.evaluation_seconds)),
        ("seed", str(record.seed)),
        ("hardware", record.hardware),
    ]
    if record.shipped:
        summary.append(("these draws", f'bnn_adv.zoo.load("{record.shipped}")'))
    return Described(
        record, address_of(record), summary, _radii_table(record), _auroc_table(record)
    )


def _draws(record: PosteriorRecord) -> str:
    return "1 draw" if record.num_samples == 1 else f"{record.num_samples:,} draws"


def _radii_table(record: PosteriorRecord) -> Any:
    header = (
        "radius",
        "inputs",
        "certified %",
        "strong attack %",
        "published attack %",
        "fresh draws %",
        "mean of weights %",
    )
    rows = [
        (
            Cell(describe_radius(r), "name", is_heading=True),
            Cell(f"{r.num_test:,}"),
            *map(Cell, map(percent, (r.certified, r.attacked, r.published))),
            *map(Cell, map(percent, (r.fresh, r.mean_weights))),
        )
        for r in record.radii
    ]
    return to_html(Table("", header, tuple(rows)))


def _auroc_table(record: PosteriorRecord) -> Any:
    header = ("AUROC", "score", "clean", "attacked")
    rows = [
        (
            Cell(f"{a.task}, {a.other}" if a.other else a.task, "name", is_heading=True),
            Cell(a.score.replace("_", " "), "name"),
            Cell(describe_auroc(a.clean)),
            Cell(describe_auroc(a.attacked)),
        )
        for a in record.aurocs
    ]
    return to_html(Table("", header, tuple(rows)))


def address_of(record: PosteriorRecord) -> str:
    """Return where a posterior stands within the page."""
    return f"posterior-{record.name}"


def percent(measured: Measured) -> str:
    """Return a share in per cent with its interval; ``"not measured"`` where there is none."""
    return NOT_MEASURED if measured.value is None else str(measured)


def describe_auroc(measured: Measured) -> str:
    """Return an AUROC with its interval, three decimals."""
    if measured.value is None:
        return NOT_MEASURED
    ends = measured.interval
    return f"{measured.value:.3f}" + ("" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]")


def describe_seconds(seconds: float | None) -> str:
    """Return a time as text."""
    if seconds is None:
        return NOT_MEASURED
    return f"{seconds:,.1f} s" if seconds < 100 else f"{seconds:,.0f} s"


def describe_masking(record: PosteriorRecord) -> str:
    """Return the signs of masking that were raised."""
    if record.masking is None:
        return NOT_MEASURED
    return ", ".join(sign.replace("_", " ") for sign in record.masking) or "none raised"


def describe_radius(radius: RadiusRecord) -> str:
    """Return norm and radius."""
    return f"{radius.norm} {radius.epsilon:g}" if radius.norm else NOT_MEASURED


def _distinct(values: Sequence[str]) -> list[str]:
    return sorted(set(values))


def _words(record: PosteriorRecord) -> str:
    """Return what the free text finds besides what stands in the row."""
    found = (record.network, record.command, record.hardware, describe_masking(record))
    return " ".join((*found, _MIXED[record.mixed], record.shipped, *record.remarks))


def _text(value: str) -> TableCell:
    return TableCell(value, value.casefold())


def _split(text: str, value: float | None) -> TableCell:
    """Return a cell of a number whose interval stands in small print."""
    if to_number(value) is None:
        return TableCell(NOT_MEASURED, "")
    number, bracket, interval = text.partition(" [")
    return TableCell(number, repr(value), f"[{interval}" if bracket else "")


def _share(measured: Measured) -> TableCell:
    return _split(percent(measured), measured.value)


def _auroc(record: PosteriorRecord, task: str) -> TableCell:
    """Return the first score's AUROC under attack, and the clean one in small print."""
    empty = AurocRecord(task, "", "", NOTHING, NOTHING)
    found = next((auroc for auroc in record.aurocs if auroc.task == task), empty)
    clean, attacked = found.clean.value, found.attacked.value
    if clean is None and attacked is None:
        return TableCell(NOT_MEASURED, "")
    text = NOT_MEASURED if attacked is None else f"{attacked:.3f}"
    small = NOT_MEASURED if clean is None else f"{clean:.3f}"
    return TableCell(text, "" if attacked is None else repr(attacked), f"clean {small}")


def _masking(record: PosteriorRecord) -> TableCell:
    if record.masking is None:
        return TableCell(NOT_MEASURED, "")
    count = len(record.masking)
    return TableCell(str(count) if count else "none", repr(count))


def _seconds(seconds: float | None) -> TableCell:
    return TableCell(describe_seconds(seconds), "" if seconds is None else repr(seconds))


COLUMNS = (
    Column(
        "posterior",
        "text",
        lambda p, r: TableCell(p.name, p.name, _draws(p), address_of(p)),
    ),
    Column("data set", "text", lambda p, r: _text(p.dataset)),
    Column("method", "text", lambda p, r: _text(p.method)),
    Column("training", "text", lambda p, r: _text(p.training)),
    Column(
        "radius",
        "number",
        lambda p, r: TableCell(describe_radius(r), repr(r.epsilon) if r.norm else ""),
    ),
    Column("clean %", "number", lambda p, r: _share(p.accuracy)),
    Column("certified %", "number", lambda p, r: _share(r.certified)),
    Column("strong attack %", "number", lambda p, r: _share(r.attacked)),
    Column("published attack %", "number", lambda p, r: _share(r.published)),
    Column("fresh draws %", "number", lambda p, r: _share(r.fresh)),
    Column("mean of weights %", "number", lambda p, r: _share(r.mean_weights)),
    Column("AUROC detection", "number", lambda p, r: _auroc(p, TASKS[0])),
    Column("AUROC shift", "number", lambda p, r: _auroc(p, TASKS[1])),
    Column("signs of masking", "number", lambda p, r: _masking(p)),
    Column("chains", "text", lambda p, r: _text("-" if p.mixed is None else _MIXED[p.mixed])),
    Column("training time", "number", lambda p, r: _seconds(p.training_seconds)),
    Column("evaluation time", "number", lambda p, r: _seconds(p.evaluation_seconds)),
)
"""Of the table that sorts, in order; the first names the line."""
