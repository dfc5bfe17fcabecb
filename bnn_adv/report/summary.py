"""What the numbers say, in sentences computed from them."""

from __future__ import annotations

from collections.abc import Sequence

from bnn_adv.report import fields
from bnn_adv.report.fields import Results
from bnn_adv.report.findings import Bound, Finding, Verdict, list_findings, lowest
from bnn_adv.report.wording import format_attack, format_percent, to_number

_ORDER: Sequence[Verdict] = ("artefact", "weak suite", "unclear", "holds", "not tested")
_MANY = 0.1
_HALF = 0.5


def summarise(results: Results) -> str:
    """Return one paragraph: what holds for which model, what is an artefact first.

    Args:
      results: What the run found.

    Returns:
      Plain text.
    """
    findings = list_findings(results)
    if not findings:
        return "The run holds no model."
    ordered = sorted(findings, key=lambda finding: _ORDER.index(finding.verdict))
    sentences = [_sentence(finding) for finding in ordered if finding.verdict != "holds"]
    parts = [*sentences, *_holding(findings), *_suspicious(results, findings), *_fresh(results)]
    return " ".join(parts)


def _sentence(finding: Finding) -> str:
    claim, worst = finding.claim, finding.worst
    if finding.verdict == "not tested":
        return f"{finding.model}: {_untested(claim, worst)}"
    both = (
        f"{_percent(claim)} of the inputs stay correct under the {claim.suite} suite "
        f"({format_attack(claim.attack)}), {_percent(worst)} under the {worst.suite} one"
    )
    if finding.verdict == "artefact":
        return (
            f"{finding.model}: the {claim.suite} robustness is an artefact of the attack: "
            f"{both}, same inputs, same draws{_cause(finding)}."
        )
    if finding.verdict == "weak suite":
        return (
            f"{finding.model}: {both}; the suite is weaker than a single attack, and the lower "
            "number is the bound."
        )
    return f"{finding.model}: {both}; the intervals overlap, so more inputs are needed."


def _holding(findings: Sequence[Finding]) -> list[str]:
    held = [finding for finding in findings if finding.verdict == "holds"]
    if not held:
        return []
    numbers = ", ".join(
        f"{f.model} ({_percent(f.claim)} {f.claim.suite}, {_percent(f.worst)} {f.worst.suite})"
        for f in held
    )
    return [f"The suites agree to within ten points for {numbers}."]


def _untested(claim: Bound, worst: Bound) -> str:
    if claim.accuracy.value is not None:
        return (
            f"{_percent(claim)} of the inputs stay correct under the {claim.suite} suite "
            f"({format_attack(claim.attack)}), an upper bound; no worst case over a suite of "
            "attacks was run, so nothing follows about robustness."
        )
    if worst.accuracy.value is not None:
        return f"{_percent(worst)} of the inputs stay correct under the {worst.suite} suite."
    return "no accuracy under attack is available."


def _cause(finding: Finding) -> str:
    share = finding.zero_gradient_share
    if share is None or share < _MANY:
        return ""
    return (
        f"; at {format_percent(share)} % of them the {finding.claim.suite} attack's gradient "
        "is exactly zero, and it cannot move"
    )


def _suspicious(results: Results, findings: Sequence[Finding]) -> list[str]:
    epsilon = to_number(results.get("epsilon"))
    is_known = results.get("dataset") == "mnist" and results.get("norm") == "linf"
    if not is_known or epsilon is None or epsilon < 0.3:
        return []
    names = [finding.model for finding in findings if (finding.worst.accuracy.value or 0) > _HALF]
    if not names:
        return []
    return [
        "More than half of the inputs stay correct under the whole suite for "
        f"{', '.join(names)}: at this size of perturbation that is known of adversarially trained "
        "networks only, and without such training it points to attacks that still fail."
    ]


def _fresh(results: Results) -> list[str]:
    parts = []
    for line in fields.list_lines(results):
        worst_cases = [name for name in line.suites if fields.is_worst_case(results, name)]
        bound = lowest(results, line, worst_cases)
        if line.is_fresh and bound.accuracy.value is not None:
            parts.append(f"{_percent(bound)} ({line.model})")
    if not parts:
        return []
    return [
        f"Predicted by fresh draws, the accuracy on the worst-case inputs is {', '.join(parts)}."
    ]


def _percent(bound: Bound) -> str:
    return f"{format_percent(bound.accuracy.value)} %"
