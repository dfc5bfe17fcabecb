"""One evaluation as a self-contained HTML page."""

from __future__ import annotations

from html import escape

from bnn_adv.report import elements, evaluation, fields, style, wording
from bnn_adv.report.diagnostics import describe_settings
from bnn_adv.report.elements import Cell
from bnn_adv.report.fields import Results
from bnn_adv.report.html import render_page
from bnn_adv.report.robustness_curve import curve_caption, curve_figure
from bnn_adv.report.wording import to_dict, to_dicts


def render_evaluation(record: Results) -> str:
    """Render an evaluation as one HTML file that needs nothing else.

    A raised sign of masking stands at its top.

    Args:
      record: ``Evaluation.record``.

    Raises:
      ValueError: The record has another schema version.
    """
    fields.check_schema(record)
    figure = curve_figure(record)
    drawn = "" if figure is None else elements.figure(style.to_png(figure), curve_caption(record))
    title = f"Adversarial robustness: {evaluation.describe_problem(record)}"
    notes = [elements.paragraph(text) for text in evaluation.list_extras(record)]
    return render_page(
        title,
        (
            _verdict(record),
            elements.section("Accuracy", elements.pairs(evaluation.list_numbers(record))),
            elements.section("What each attack did", _attacks(record)),
            elements.section("Signs of masking", _checks(record)),
            elements.section("Robustness against the radius", drawn, *notes),
            elements.section("Random predictors", _pairs(record.get("fresh"))),
            elements.section("Uncertainty under attack", _pairs(record.get("uncertainty"))),
            elements.section("Settings", _pairs(record.get("config"))),
            elements.section("Provenance", _pairs(_provenance(record))),
            elements.section("Environment", _pairs(record.get("environment"))),
            elements.section("Command", _command(record)),
        ),
    )


def _verdict(record: Results) -> str:
    sentences = evaluation.raised(record)
    if not sentences:
        return elements.paragraph(evaluation.judge(record), style="summary")
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return (
        f'<aside class="warnings"><h2>{escape(evaluation.judge(record))}</h2>'
        f"<ul>{items}</ul></aside>"
    )


def _attacks(record: Results) -> str:
    lines = [
        [Cell(name, "name", is_heading=True), *map(Cell, numbers)]
        for name, *numbers in evaluation.attack_rows(record)
    ]
    note = evaluation.describe_columns(record)
    table = elements.table(evaluation.ATTACK_HEADER, lines)
    return table + elements.paragraph(note, style="quiet")


def _checks(record: Results) -> str:
    lines = [
        [
            Cell(wording.one_line(check["name"]).replace("_", " "), "name", is_heading=True),
            Cell("RAISED" if check["raised"] else "no" if check["value"] is not None else "n/a"),
            Cell(_number(check["value"])),
            Cell(_number(check["threshold"])),
            Cell(wording.one_line(check["sentence"]), "name"),
        ]
        for check in to_dicts(record.get("checks"))
    ]
    return elements.table(("sign", "raised", "measured", "threshold", "what it says"), lines)


def _number(value: object) -> str:
    number = wording.to_number(value)
    return wording.NOT_AVAILABLE if number is None else f"{number:.3g}"


def _pairs(values: object) -> str:
    return elements.pairs(describe_settings(values))


def _provenance(record: Results) -> dict[str, object]:
    return {**to_dict(record.get("provenance")), "seconds": record.get("seconds")}


def _command(record: Results) -> str:
    return f"<pre>{escape(str(record['command']))}</pre>" if record.get("command") else ""
