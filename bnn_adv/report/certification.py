"""A certificate as text and as a page, with what attacks left beside it."""

from __future__ import annotations

import textwrap

from bnn_adv.report import evaluation, fields, page, style, wording
from bnn_adv.report.certified_curve import certified_caption, certified_figure
from bnn_adv.report.diagnostics import describe_settings
from bnn_adv.report.fields import Results
from bnn_adv.report.table import Table, named_lines, to_html, to_text
from bnn_adv.report.wording import Measured, to_dict, to_interval, to_number

_WIDTH = 100
_OF = {
    "float32": "the network as float32 evaluates it, whatever the order of its sums",
    "real": "the function that the weights define in real arithmetic; float32 may round otherwise",
}
_OUTCOMES = {
    "certified": "certified: no attack breaks them",
    "neither": "neither certified nor broken",
    "broken": "broken by an attack",
    "wrong": "wrong from the start",
}


def format_certificate(record: Results) -> str:
    """Return a certificate for a terminal, with the attacks beside it where there are any.

    Args:
      record: Of ``experiments.certify``, or ``Bracket.record``.

    Raises:
      ValueError: The record has another schema version.
    """
    fields.check_schema(record)
    numbers = list_numbers(record)
    width = max(len(name) for name, _ in numbers) + 2
    lines = [describe_problem(record, ascii_only=True), ""]
    lines += [f"{name:<{width}}{number}" for name, number in numbers]
    lines += ["", *textwrap.wrap(judge(record), _WIDTH, break_on_hyphens=False)]
    if record.get("counts"):
        lines += ["", to_text(outcome_table(record)), ""]
    for text in list_extras(record):
        lines += textwrap.wrap(text, _WIDTH, break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def describe_problem(record: Results, *, ascii_only: bool = False) -> str:
    """Return what was certified in one line."""
    draws = record["num_samples"]
    unit = "draw" if draws == 1 else "draws"
    if draws != 1 and record.get("decision_rule") == "mean_logits":
        unit += " (mean of logits)"
    setting = fields.describe_setting(record, ascii_only=ascii_only)
    return f"{setting}, {draws:,} {unit}, {wording.one_line(record['method'])}"


def list_numbers(record: Results) -> list[tuple[str, str]]:
    """Return the headline numbers as (name, per cent with interval)."""
    found = []
    for name in ("accuracy", "certified_accuracy", "adversarial_accuracy"):
        if name in record:
            share = to_number(record[name])
            measured = Measured(share, to_interval(record.get(f"{name}_interval")))
            found.append((name.replace("_", " "), f"{measured} %"))
    return found


def judge(record: Results) -> str:
    """Return between what the truth lies, and of what it is certified, in a sentence or two."""
    certified = _measure(record, "certified_accuracy")
    text = f"certified {certified} <= true"
    if "adversarial_accuracy" in record:
        text += f" <= attacked {_measure(record, 'adversarial_accuracy')}"
    each = record.get("rule") == "every_draw"
    what = "every single draw of" if each else "the prediction of"
    return (
        f"{text} % (95 % intervals over inputs). Certified is {what} {_OF[record['arithmetic']]}."
    )


def _measure(record: Results, name: str) -> Measured:
    return Measured(to_number(record[name]), to_interval(record.get(f"{name}_interval")))


def outcome_table(record: Results) -> Table:
    """Return how many inputs are certified, broken, and neither."""
    counts = to_dict(record.get("counts"))
    lines = [(text, f"{counts[name]:,}") for name, text in _OUTCOMES.items() if name in counts]
    return Table("Inputs", ("inputs", "count"), named_lines(lines))


def list_extras(record: Results) -> list[str]:
    """Return sentences on radii, cancellation and time."""
    found = []
    radius = to_number(record.get("median_certified_radius"))
    if radius is not None:
        text = f"Largest radius certified per input, median: {radius:.4g}"
        if "smallest_epsilon" in record:
            smallest = to_number(record.get("median_smallest_epsilon"))
            what = "none for half of the inputs" if smallest is None else f"{smallest:.4g}"
            text += (
                f"; smallest radius that an attack found: {what} "
                f"({len(record['smallest_epsilon']):,} inputs)"
            )
        found.append(f"{text}.")
    kept = to_number(record.get("median_cancellation"))
    if kept is not None and record["num_samples"] > 1 and record["method"] != "ibp":
        found.append(
            f"Of the draws' linear bounds {100 * kept:.0f} % are left in their sum (median); the "
            "rest cancels."
        )
    real, ours = to_number(record["certified_accuracy_real"]), record["certified_accuracy"]
    if real is not None and real > ours and record.get("rule") != "every_draw":
        found.append(
            f"In real arithmetic {wording.format_percent(real)} % are certified: rounding of "
            "float32 costs the difference."
        )
    if record.get("referee"):
        found.append(_say_referee(to_dict(record["referee"])))
    found.append(f"Certified in {record['certify_seconds']:,.1f} s.")
    return found


def _say_referee(referee: Results) -> str:
    if referee["num_confirmed"] is None:
        return f"A second implementation did not check it: {referee['words']}"
    text = (
        f"A second implementation, in NumPy, confirms {referee['num_confirmed']:,} of "
        f"{referee['num_claimed']:,} inputs ({referee['seconds']:,.1f} s)."
    )
    if count := referee.get("num_radii_unconfirmed"):
        text += f" Of the largest radii it leaves {count:,} open: it allows more for rounding."
    return text


def render_certificate(record: Results) -> str:
    """Render a certificate as one HTML file that needs nothing else.

    Args:
      record: Of ``experiments.certify``, or ``Bracket.record``.

    Raises:
      ValueError: The record has another schema version.
    """
    fields.check_schema(record)
    drawn, attacked = certified_figure(record), to_dict(record.get("evaluation"))
    settings, provenance, environment = (
        describe_settings(values)
        for values in (
            record.get("config"),
            {"draws_hash": record.get("draws_hash"), "seconds": record.get("seconds")},
            record.get("environment"),
        )
    )
    return page.render(
        "certificate.html",
        title=f"Certified robustness: {describe_problem(record)}",
        judgement=judge(record),
        raised=evaluation.raised(attacked) if attacked else [],
        numbers=list_numbers(record),
        outcomes=to_html(outcome_table(record)) if record.get("counts") else "",
        curve=drawn and page.picture(style.to_png(drawn), certified_caption(record)),
        extras=list_extras(record),
        attacks=to_html(evaluation.attack_table(attacked)) if attacked else "",
        settings=settings,
        provenance=provenance,
        environment=environment,
        command_line=record.get("command"),
    )
