"""One evaluation as text: what stands, what each attack did, and whether to believe it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from bnn_adv.report import fields, fresh, wording
from bnn_adv.report.fields import Results
from bnn_adv.report.shift import format_shift
from bnn_adv.report.table import Table, named_lines, to_text
from bnn_adv.report.wording import Measured, to_dict, to_dicts, to_interval, to_number

_ATTACK_HEADER = ("attack", "tried", "broke", "left %", "alone", "only", "seconds")
_WIDTH = 100
_SURROGATES = {"one_draw": "one draw", "mean_weights": "mean weights"}


def format_evaluation(record: Results) -> str:
    """Return an evaluation for a terminal: headline, verdict, attacks, signs of masking.

    Args:
      record: ``Evaluation.record``.

    Raises:
      ValueError: The record has another schema version.
    """
    fields.check_schema(record)
    lines = [describe_problem(record, ascii_only=True), ""]
    numbers = [*list_numbers(record), *fresh.list_numbers(record)]
    width = max(22, *(len(name) + 2 for name, _ in numbers))
    lines += [f"{name:<{width}}{number}" for name, number in numbers]
    if models := fresh.list_threat_models(record):
        lines += ["", *(f"threat model {text}" for text in models)]
    lines += ["", *_wrap(judge(record))]
    lines += [
        f"  - {line}" if i == 0 else f"    {line}"
        for s in raised(record)
        for i, line in enumerate(_wrap(s, _WIDTH - 4))
    ]
    attacks = attack_table(record)
    lines += ["", to_text(attacks), "", *_wrap(attacks.caption)]
    found = to_dict(record.get("fresh"))
    if found:
        lines += ["", *_wrap(fresh.describe(record)), "", to_text(fresh.attack_table(record))]
    pairs = fresh.pair_table(to_dict(found.get("table")))
    if pairs.rows:
        lines += ["", to_text(pairs)]
    if checks := to_dicts(record.get("checks")):
        names = ", ".join(wording.one_line(check["name"]) for check in checks)
        count = len(raised(record))
        lines += ["", *_wrap(f"Signs of masking: {count} of {len(checks)} raised ({names}).")]
    for number in list_extras(record):
        lines += _wrap(number)
    shifts = to_dict(record.get("shift"))
    for name, shift in shifts.items():
        lines += ["", f"Out of distribution: {wording.one_line(name)}", ""]
        lines.append(format_shift(shift, captions=name == list(shifts)[-1]))
    return "\n".join(lines) + "\n"


def describe_problem(record: Results, *, ascii_only: bool = False) -> str:
    """Return what was attacked in one line."""
    draws = record.get("num_samples")
    unit = "draw" if draws == 1 else "draws"
    if draws != 1 and record.get("decision_rule") == "mean_logits":
        unit += " (mean of logits)"
    setting = fields.describe_setting(record, ascii_only=ascii_only)
    return f"{setting}, {draws:,} {unit}, suite {wording.one_line(record.get('suite'))}"


def list_numbers(record: Results) -> list[tuple[str, str]]:
    """Return the headline numbers as (name, per cent with interval)."""
    found = []
    for name in ("accuracy", "adversarial_accuracy"):
        measured = Measured(
            to_number(record.get(name)), to_interval(record.get(f"{name}_interval"))
        )
        found.append((name.replace("_", " "), f"{measured} %"))
    return found


def raised(record: Results) -> list[str]:
    """Return the sentences of the signs that were raised."""
    return [
        f"{wording.one_line(check['name']).replace('_', ' ')}: "
        f"{wording.one_line(check['sentence'])}"
        for check in to_dicts(record.get("checks"))
        if check.get("raised")
    ]


def judge(record: Results) -> str:
    """Return how far the adversarial accuracy can be believed, in a sentence or two."""
    share = to_number(record.get("adversarial_accuracy"))
    checks, count = to_dicts(record.get("checks")), len(raised(record))
    percent = f"{wording.format_percent(share)} %"
    if to_number(record.get("accuracy")) == 0:
        return "No clean input is classified correctly: there is nothing to attack."
    if share == 0:
        rest = (
            ""
            if not count
            else f" {count} signs of masking were raised for attacks of the suite; others were not "
            "misled by it."
        ).replace("1 signs of masking were", "1 sign of masking was")
        return f"Nothing is left: every input that is classified correctly was broken.{rest}"
    if count:
        return (
            f"UPPER BOUND: {percent} is what these attacks failed to break, and there are signs "
            "that they failed for reasons other than robustness:"
        )
    if not checks:
        return f"{percent} is an upper bound; no sign of masking was looked for."
    measured = sum(check["value"] is not None for check in checks)
    return (
        f"{percent} withstood every attack, and none of the {measured} signs of masking that could "
        "be measured was raised. It remains an upper bound, as the result of any attack."
    )


def attack_table(record: Results) -> Table:
    """Return what each attack did as a table; ``-`` where something was not run."""
    lines = named_lines(map(_attack_row, to_dicts(record.get("per_attack"))))
    return Table("What each attack did", _ATTACK_HEADER, lines, _describe_columns(record))


def _describe_columns(record: Results) -> str:
    rows = to_dicts(record.get("per_attack"))
    probed = next((row["num_probed"] for row in rows), 0)
    text = (
        "tried, broke: inputs that still stood when the attack ran, and those it broke, over all "
        "restarts. left: share of all inputs that stands after it, in the first round."
    )
    if spared := max((row.get("set_aside", 0) for row in rows), default=0):
        text += (
            f" Attacks that were run on fewer inputs than stood left out those, up to {spared}, of "
            "which the attacks before had closed little of the gap between the label and the next "
            "class."
        )
    if not probed:
        return text
    return (
        f"{text} alone, only: of {probed} inputs on which every attack was run once, those it "
        "breaks, and those that no other attack breaks."
    )


def list_extras(record: Results) -> list[str]:
    """Return sentences on the smallest radius, uncertainty and confirmation."""
    found = []
    curve = to_dict(record.get("curve"))
    if curve:
        median = to_number(curve.get("median_smallest_epsilon"))
        what = "none for half of the inputs" if median is None else f"{median:.4g}"
        found.append(f"Smallest radius found per input, median over {curve['num_images']}: {what}.")
    count = to_dict(record.get("confirmed")).get("num_confirmed")
    if count is not None:
        found.append(
            f"Confirmed independently: {count:,} inputs in the ball that are classified wrongly."
        )
    return found


def _attack_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    name = wording.format_attack(row["name"])
    if row.get("surrogate") in _SURROGATES:
        name = f"{name} ({_SURROGATES[row['surrogate']]})"
    if not row.get("is_defined", True):
        return (f"{name} (not defined for the norm)", *["-"] * (len(_ATTACK_HEADER) - 1))
    counts = (row.get("alone"), row.get("only"))
    return (
        name,
        f"{row['tried']:,}",
        f"{row['broke']:,}",
        wording.format_percent(row.get("accuracy_after")),
        *("-" if count is None else f"{count:,}" for count in counts),
        f"{row['seconds']:.1f}",
    )


def _wrap(text: str, width: int = _WIDTH) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)
