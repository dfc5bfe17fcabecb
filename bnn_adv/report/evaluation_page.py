"""One evaluation as a self-contained HTML page."""

from __future__ import annotations

from typing import Any

from bnn_adv.report import evaluation, fields, fresh, page, style, wording
from bnn_adv.report.diagnostics import describe_settings
from bnn_adv.report.fields import Results
from bnn_adv.report.robustness_curve import curve_caption, curve_figure
from bnn_adv.report.shift import shift_sections
from bnn_adv.report.table import Cell, Table, to_html
from bnn_adv.report.uncertainty import uncertainty_tables
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
    drawn = curve_figure(record)
    settings, provenance, environment = (
        describe_settings(values)
        for values in (record.get("config"), _provenance(record), record.get("environment"))
    )
    return page.render(
        "evaluation.html",
        title=f"Adversarial robustness: {evaluation.describe_problem(record)}",
        judgement=evaluation.judge(record),
        raised=evaluation.raised(record),
        numbers=[
            *evaluation.list_numbers(record),
            *(("threat model", text) for text in fresh.list_threat_models(record)[:1]),
        ],
        attacks=to_html(evaluation.attack_table(record)),
        checks=to_html(_checks_table(record)),
        curve=drawn and page.picture(style.to_png(drawn), curve_caption(record)),
        extras=evaluation.list_extras(record),
        fresh=_fresh(record),
        uncertainty=[
            to_html(table) for table in uncertainty_tables(to_dict(record.get("uncertainty")))
        ],
        shifts=shift_sections(to_dict(record.get("shift"))),
        settings=settings,
        provenance=provenance,
        environment=environment,
        command_line=record.get("command"),
    )


def _fresh(record: Results) -> dict[str, Any]:
    """Return what the section of a fresh predictor shows; nothing where there is none."""
    found = to_dict(record.get("fresh"))
    if not found:
        return {}
    return {
        "threat": f"{fresh.FRESH}.",
        "numbers": fresh.list_numbers(record),
        "sentences": fresh.describe(record),
        "attacks": to_html(fresh.attack_table(record)),
        "pairs": to_html(fresh.pair_table(to_dict(found.get("table")))),
    }


def _checks_table(record: Results) -> Table:
    lines = tuple(
        (
            Cell(wording.one_line(check["name"]).replace("_", " "), "name", is_heading=True),
            Cell("RAISED" if check["raised"] else "no" if check["value"] is not None else "n/a"),
            Cell(wording.format_short(check["value"])),
            Cell(wording.format_short(check["threshold"])),
            Cell(wording.one_line(check["sentence"]), "prose"),
        )
        for check in to_dicts(record.get("checks"))
    )
    header = ("sign", "raised", "measured", "threshold", "what it says")
    return Table("Signs of masking", header, lines)


def _provenance(record: Results) -> dict[str, object]:
    return {**to_dict(record.get("provenance")), "seconds": record.get("seconds")}
