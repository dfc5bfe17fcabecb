"""One evaluation as a self-contained HTML page."""

from __future__ import annotations

from html import escape

from bnn_adv.report import elements, evaluation, fields, fresh, style, wording
from bnn_adv.report.diagnostics import describe_settings
from bnn_adv.report.elements import Cell
from bnn_adv.report.fields import Results
from bnn_adv.report.html import render_page
from bnn_adv.report.robustness_curve import curve_caption, curve_figure
from bnn_adv.report.wording import to_dict, to_dicts

_CONDITION = ("calibration_error", "entropy", "mutual_information")


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
            elements.section("Accuracy", _accuracy(record)),
            elements.section("What each attack did", _attacks(record)),
            elements.section("Signs of masking", _checks(record)),
            elements.section(
                "Robustness against the radius" if drawn else "Confirmed", drawn, *notes
            ),
            elements.section("Random predictors", *fresh.render(record)),
            elements.section("Uncertainty under attack", *_uncertainty(record)),
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


def _accuracy(record: Results) -> str:
    models = [("threat model", text) for text in fresh.list_threat_models(record)[:1]]
    return elements.pairs([*evaluation.list_numbers(record), *models])


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
            Cell(wording.one_line(check["sentence"]), "prose"),
        ]
        for check in to_dicts(record.get("checks"))
    ]
    return elements.table(("sign", "raised", "measured", "threshold", "what it says"), lines)


def _uncertainty(record: Results) -> tuple[str, ...]:
    found = to_dict(record.get("uncertainty"))
    if not found:
        return ()
    detectors = {
        name: to_dict(found[name])
        for name in ("entropy", "mutual_information")
        if to_dict(found.get(name))
    }
    inputs = [("clean", found["clean"]), ("adversarial", found["adversarial"])]
    inputs += [(f"aware of {_plain(name)}", part["aware"]) for name, part in detectors.items()]
    conditions = [
        [
            Cell(name, "name", is_heading=True),
            Cell(wording.format_percent(part["accuracy"])),
            *(Cell(_number(part[key])) for key in _CONDITION),
        ]
        for name, part in inputs
    ]
    judged = [
        [
            Cell(_plain(name), "name", is_heading=True),
            *(
                Cell(
                    f"{part[key]['value']:.3f} [{part[key]['lower']:.3f}, {part[key]['upper']:.3f}]"
                )
                for key in ("auroc", "auroc_aware")
            ),
            *(Cell(wording.format_percent(part[key])) for key in ("evading", "evading_aware")),
        ]
        for name, part in detectors.items()
    ]
    note = (
        f"{found['num_inputs']:,} inputs drawn by seed. Entropy and mutual information: means, in "
        "nats. A detector refuses inputs whose uncertainty exceeds the "
        f"{100 * found['quantile']:g} % quantile of clean ones; aware: an attack that aims at it. "
        "AUROC: how well it tells clean from adversarial inputs (0.5 is chance), 95 % interval. "
        "evading: share of inputs that are misclassified and accepted, in per cent."
    )
    return (
        elements.table(("inputs", "accuracy %", "ECE", "entropy", "mutual inf."), conditions),
        elements.table(
            ("detector", "AUROC", "AUROC, aware", "evading %", "evading %, aware"), judged
        ),
        elements.paragraph(note, style="quiet"),
    )


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _number(value: object) -> str:
    number = wording.to_number(value)
    return wording.NOT_AVAILABLE if number is None else f"{number:.3g}"


def _pairs(values: object) -> str:
    return elements.pairs(describe_settings(values))


def _provenance(record: Results) -> dict[str, object]:
    return {**to_dict(record.get("provenance")), "seconds": record.get("seconds")}


def _command(record: Results) -> str:
    return f"<pre>{escape(str(record['command']))}</pre>" if record.get("command") else ""
