"""One evaluation as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnn_adv.report import evaluation, fields, fresh, page, style, wording
from bnn_adv.report.diagnostics import describe_settings
from bnn_adv.report.fields import Results
from bnn_adv.report.robustness_curve import curve_caption, curve_figure
from bnn_adv.report.table import Cell, Table, named_lines, to_html
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
        uncertainty=[to_html(table) for table in _uncertainty_tables(record)],
        settings=settings,
        provenance=provenance,
        environment=environment,
        command_line=record.get("command"),
    )


def _fresh(record: Results) -> dict[str, Any]:
    """Return what the section of a fresh predictor shows; nothing where there is none."""
    if not to_dict(record.get("fresh")):
        return {}
    return {
        "threat": f"{fresh.FRESH}.",
        "numbers": fresh.list_numbers(record),
        "sentences": fresh.describe(record),
        "attacks": to_html(fresh.attack_table(record)),
        "pairs": to_html(fresh.pair_table(record)),
    }


def _checks_table(record: Results) -> Table:
    lines = tuple(
        (
            Cell(_plain(wording.one_line(check["name"])), "name", is_heading=True),
            Cell("RAISED" if check["raised"] else "no" if check["value"] is not None else "n/a"),
            Cell(_number(check["value"])),
            Cell(_number(check["threshold"])),
            Cell(wording.one_line(check["sentence"]), "prose"),
        )
        for check in to_dicts(record.get("checks"))
    )
    header = ("sign", "raised", "measured", "threshold", "what it says")
    return Table("Signs of masking", header, lines)


def _uncertainty_tables(record: Results) -> tuple[Table, ...]:
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
        (name, wording.format_percent(part["accuracy"]), *(_number(part[k]) for k in _CONDITION))
        for name, part in inputs
    ]
    judged = [
        (
            _plain(name),
            *(_with_interval(part[key]) for key in ("auroc", "auroc_aware")),
            *(wording.format_percent(part[key]) for key in ("evading", "evading_aware")),
        )
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
        Table(
            "Predictions",
            ("inputs", "accuracy %", "ECE", "entropy", "mutual inf."),
            named_lines(conditions),
        ),
        Table(
            "Detectors",
            ("detector", "AUROC", "AUROC, aware", "evading %", "evading %, aware"),
            named_lines(judged),
            note,
        ),
    )


def _with_interval(auroc: Mapping[str, float]) -> str:
    return f"{auroc['value']:.3f} [{auroc['lower']:.3f}, {auroc['upper']:.3f}]"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _number(value: object) -> str:
    number = wording.to_number(value)
    return wording.NOT_AVAILABLE if number is None else f"{number:.3g}"


def _provenance(record: Results) -> dict[str, object]:
    return {**to_dict(record.get("provenance")), "seconds": record.get("seconds")}
