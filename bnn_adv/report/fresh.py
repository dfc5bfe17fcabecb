"""What an evaluation says of a predictor that draws anew, and under which threat models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnn_adv.report import wording
from bnn_adv.report.fields import Results
from bnn_adv.report.table import Table, named_lines
from bnn_adv.report.wording import Measured, to_dict, to_dicts, to_interval, to_number

FROZEN = "frozen: the attacker knows the very draws that predict"
FRESH = "fresh: the attacker knows how parameters are drawn, not which draws will predict"

_NUMBERS = (
    ("accuracy, fresh", "clean", "clean_interval"),
    ("adversarial accuracy, fresh", "accuracy", "interval"),
)


def list_threat_models(record: Results) -> list[str]:
    """Return the threat models of an evaluation; none for records that did not say."""
    if "fresh" not in record:
        return []
    return [FROZEN, FRESH] if to_dict(record["fresh"]) else [FROZEN]


def list_numbers(record: Results) -> list[tuple[str, str]]:
    """Return a fresh predictor's headline numbers as (name, per cent with interval)."""
    found = to_dict(record.get("fresh"))
    if not found:
        return []
    return [(name, f"{_measured(found, value, ends)} %") for name, value, ends in _NUMBERS]


def describe(record: Results) -> str:
    """Return how a fresh predictor was attacked and judged, in a few sentences."""
    found = to_dict(record.get("fresh"))
    if not found:
        return ""
    mostly = wording.format_percent(found.get("mostly_fooled"))
    return (
        f"Fresh: {mostly} % of the inputs fool more than half of {found['num_predictions']:,} new "
        f"predictions, each the mean of {found['defender_samples']:,} new draws. Gradients are of "
        f"{found['attacker_samples']:,} new draws a step; {found['held_out_samples']:,} held-out "
        "draws choose the best iterate, other predictions the worst attack of every input "
        "(chosen; of equals the first)."
    )


def attack_table(record: Results) -> Table:
    """Return the attacks on a fresh predictor as a table; without lines where there is none."""
    lines = [
        (
            wording.format_attack(row["name"]),
            str(_measured(row, "accuracy", "interval")),
            wording.format_percent(row.get("chosen")),
        )
        for row in to_dicts(to_dict(record.get("fresh")).get("per_entry"))
    ]
    return Table(
        "Attacks on a fresh predictor",
        ("attack, fresh", "accuracy %", "chosen %"),
        named_lines(lines),
        "Expected accuracy under each attack alone, and the share of inputs for which it was "
        "chosen as the worst, of equals the first.",
    )


def pair_table(found: Mapping[str, Any]) -> Table:
    """Return the table of attackers and defenders.

    Args:
      found: ``AttackerDefenderTable.to_dict``, or the part ``table`` of a fresh evaluation.

    Returns:
      The table; without lines where it was left out.
    """
    if not found:
        return Table("", (), ())
    names = ["clean", *(f"S = {size}" for size in found["attacker_samples"])]
    shares = [found["clean"], *found["accuracies"]]
    ends = [found["clean_intervals"], *found["intervals"]]
    lines = [
        (name, *(str(Measured(to_number(s), to_interval(e))) for s, e in zip(*part, strict=True)))
        for name, *part in zip(names, shares, ends, strict=True)
    ]
    return Table(
        "Attackers and defenders",
        ("attacker", *(f"defender S = {size}" for size in found["defender_samples"])),
        named_lines(lines),
        f"Expected accuracy in per cent with 95 % intervals, on {found['num_images']:,} inputs "
        "drawn by seed, by the draws that make the attacker's gradient (lines) and the defender's "
        "prediction (columns); the suite's first gradient attack.",
    )


def _measured(numbers: Mapping[str, Any], value: str, ends: str) -> Measured:
    return Measured(to_number(numbers.get(value)), to_interval(numbers.get(ends)))
