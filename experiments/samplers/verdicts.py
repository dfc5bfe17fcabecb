"""What may be said of a method: mixed or not, biased or not, and which one to use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from bnn_adv.inference.diagnostics import describe_mixing, has_mixed
from experiments.samplers.config import ADJUSTED, HMC_PUBLISHED
from experiments.samplers.prefixes import smallest_ess

Record = dict[str, Any]
"""One method on one posterior, see ``measure.measure``."""

_Z = 2.576
"""Of a 99 % interval per pair of a method and its reference. Every method of every posterior is
asked, and nothing corrects for how many these are."""


class Difference(NamedTuple):
    """Mean log density of a method's draws less that of an adjusted one's, in nats.

    value: The difference.
    low: Lower end of its 99 % Monte Carlo interval, per pair.
    high: Upper end.
    spread: Standard deviation of the reference's log density over its draws.
    """

    value: float
    low: float
    high: float
    spread: float

    @property
    def is_told(self) -> bool:
        """Whether it is told from zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        """Return it with its interval."""
        return f"{self.value:+.1f} [{self.low:+.1f}, {self.high:+.1f}] nats"


class Judged(NamedTuple):
    """One method on one posterior, judged at the end of its run.

    record: Its record.
    is_mixed: See ``diagnostics.has_mixed``.
    difference: Its log density against the reference's; None where one of the two is missing, or
      where it is the reference.
    is_usable: Whether it has mixed and is not biased, as far as was judged.
    words: The verdict.
    """

    record: Record
    is_mixed: bool | None
    difference: Difference | None
    is_usable: bool
    words: str

    @property
    def last(self) -> dict[str, Any]:
        """The numbers of the whole run; empty where there are none."""
        points = self.record["points"]
        return points[-1] if points else {}


def find_reference(records: Sequence[Record]) -> Record | None:
    """Return the adjusted method of a posterior that judges the others.

    That is the first of ``ADJUSTED`` that has mixed, for their draws have the posterior's law; None
    where none has.
    """
    by_method = {record["method"]: record for record in records}
    for method in ADJUSTED:
        record = by_method.get(method)
        if record is not None and record["points"] and has_mixed(record["points"][-1]):
            return record
    return None


def compare(record: Record, reference: Record | None) -> Difference | None:
    """Return how far the log density of a method's draws is from the reference's."""
    if reference is None or reference is record or not record["points"]:
        return None
    own, other = record["points"][-1], reference["points"][-1]
    if "density_error" not in own or "density_error" not in other:
        return None
    value = own["density"] - other["density"]
    reach = _Z * math.hypot(own["density_error"], other["density_error"])
    return Difference(value, value - reach, value + reach, other["density_spread"])


def judge(records: Sequence[Record]) -> list[Judged]:
    """Return the verdicts on the methods of one posterior, in their order."""
    reference = find_reference(records)
    return [_judge(record, reference) for record in records]


def _judge(record: Record, reference: Record | None) -> Judged:
    if record["error"]:
        return Judged(record, False, None, False, f"failed: {record['error']}")
    if not record["points"]:
        return Judged(record, None, None, False, "not judged (too few draws)")
    last = record["points"][-1]
    is_mixed, words = has_mixed(last), describe_mixing(last)
    difference = compare(record, reference)
    if not is_mixed:
        return Judged(record, is_mixed, difference, False, words)
    if record is reference:
        return Judged(record, True, None, True, words)
    if difference is None:
        return Judged(
            record, True, None, False, "mixed; bias not judged (no adjusted chains mixed)"
        )
    if difference.is_told:
        # A Metropolis test leaves no bias: one of the two has missed a part of the posterior.
        is_exact = record["method"] in (HMC_PUBLISHED, *ADJUSTED)
        what = f"at odds with {reference['method']}" if is_exact and reference else "biased"
        off = f"mixed but {what} (log density off by {difference})"
        return Judged(record, True, difference, False, off)
    return Judged(record, True, difference, True, words)


def ess_per_gradient(judged: Judged) -> float | None:
    """Return effective draws of all chains for each gradient of all chains, at the whole run."""
    size, last = smallest_ess(judged.last), judged.last
    if size is None:
        return None
    return size / (last["gradients"] * last["num_chains"])


def ess_per_second(judged: Judged) -> float | None:
    """Return effective draws of all chains a second of computing them."""
    rate, seconds = ess_per_gradient(judged), judged.record.get("seconds_per_gradient")
    return None if rate is None or not seconds else rate / seconds


def mixed_from(judged: Judged) -> float | None:
    """Return the gradients a chain from which on chains have mixed, of those that were tried."""
    found = None
    for point in reversed(judged.record["points"]):
        if has_mixed(point) is not True:
            break
        found = point["gradients"]
    return found


def recommend(title: str, rows: Sequence[Judged]) -> str:
    """Return in a sentence which method has the most effective draws for its cost."""
    usable = [row for row in rows if row.is_usable]
    if not usable:
        biased = [row.record["method"] for row in rows if row.is_mixed]
        if not biased:
            return f"{title}: none mixed within the budget."
        named = ", ".join(biased)
        return (
            f"{title}: none is shown to have mixed without bias within the budget; mixed: {named}."
        )
    by_gradient = max(usable, key=lambda row: ess_per_gradient(row) or 0.0)
    by_second = max(usable, key=lambda row: ess_per_second(row) or 0.0)
    gradient = 1000 * (ess_per_gradient(by_gradient) or 0.0)
    if len(rows) == 1:
        name = by_gradient.record["method"]
        return (
            f"{title}: {name} has mixed, with {gradient:.3g} effective draws per 1,000 gradients."
        )
    sentence = (
        f"{title}: of {len(usable)} of {len(rows)} methods that have mixed without a bias that was "
        f"told from zero, {by_gradient.record['method']} has the most effective draws per gradient "
        f"({gradient:.3g} per 1,000)"
    )
    second = ess_per_second(by_second)
    if second is None:
        return f"{sentence}."
    return f"{sentence}, {by_second.record['method']} the most per second ({second:.3g})."
