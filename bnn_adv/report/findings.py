"""Compare what one suite of attacks claims with the worst case over another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from bnn_adv.report import fields
from bnn_adv.report.fields import Line, Results
from bnn_adv.report.wording import Measured, to_number

Verdict = Literal["artefact", "weak suite", "unclear", "holds", "not tested"]

_GAP = 0.1
"""Ten percentage points: less is an ordinary difference between attacks of different length."""


class Bound(NamedTuple):
    """The lowest accuracy that a suite's attacks leave.

    suite: Name of the suite; empty where none was run.
    attack: Name of the attack.
    accuracy: What it leaves.
    """

    suite: str
    attack: str
    accuracy: Measured


_NOTHING = Bound("", "", Measured(None))


class Finding(NamedTuple):
    """What the suites together say about one model.

    model: Name of the model.
    verdict: ``"artefact"`` where the claim lies clearly above the worst case, ``"holds"`` where
      both are near each other, ``"unclear"`` where they differ within their intervals, ``"weak
      suite"`` where the worst case lies clearly above the claim, ``"not tested"`` where one of
      them is missing.
    claim: Of the published suite, or where it was not run of the first that is no worst case.
    worst: Of the worst-case suites.
    zero_gradient_share: Of the claiming suite, in [0, 1].
    """

    model: str
    verdict: Verdict
    claim: Bound
    worst: Bound
    zero_gradient_share: float | None


def list_findings(results: Results) -> tuple[Finding, ...]:
    """Compare, for every model, the published suite with the worst case.

    Args:
      results: What the run found.

    Returns:
      One finding a model, in order.
    """
    suites = fields.list_suites(results)
    worst = [name for name in suites if fields.is_worst_case(results, name)]
    claims = [name for name in suites if name not in worst]
    claims.sort(key=lambda name: name != "published")
    return tuple(
        _finding(results, line, claims, worst)
        for line in fields.list_lines(results)
        if not line.is_fresh
    )


def lowest(results: Results, line: Line, suites: Sequence[str]) -> Bound:
    """Return the lowest accuracy over the attacks of some suites.

    Args:
      results: What the run found.
      line: A model.
      suites: Names; of a worst-case suite only its worst counts.
    """
    bounds = [
        Bound(suite, attack, line.attack(suite, attack))
        for suite in suites
        for attack in fields.list_attacks(results, suite)
    ]
    known = [(bound.accuracy.value, bound) for bound in bounds if bound.accuracy.value is not None]
    return min(known, key=lambda item: item[0], default=(0.0, _NOTHING))[1]


def _finding(
    results: Results, line: Line, claims: Sequence[str], worst_cases: Sequence[str]
) -> Finding:
    candidates = [lowest(results, line, [suite]) for suite in claims]
    claim = next((bound for bound in candidates if bound.suite), _NOTHING)
    worst = lowest(results, line, worst_cases)
    share = to_number(line.suites.get(claim.suite, {}).get("zero_gradient_share"))
    return Finding(line.model, _judge(claim.accuracy, worst.accuracy), claim, worst, share)


def _judge(claim: Measured, worst: Measured) -> Verdict:
    if claim.value is None or worst.value is None:
        return "not tested"
    gap = claim.value - worst.value
    if abs(gap) < _GAP:
        return "holds"
    low, high = (worst, claim) if gap > 0 else (claim, worst)
    # Both are measured on the same inputs, which makes disjoint intervals a cautious criterion.
    if low.interval and high.interval and low.interval[1] >= high.interval[0]:
        return "unclear"
    return "artefact" if gap > 0 else "weak suite"
