"""What a case reports: one number a row, what it is compared with, and how much it varied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from experiments.benchmark.timing import Timing

Say = Callable[[str], None]
"""Called with one line of progress."""


class Target(NamedTuple):
    """The closed interval that a figure should lie in.

    low: Smallest value that will do; None for no limit.
    high: Largest value that will do; None for no limit.
    """

    low: float | None = None
    high: float | None = None

    def is_met(self, value: float) -> bool:
        """Whether a value lies in the interval."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        """Return the interval as a reader writes it."""
        if self.low is None:
            return "" if self.high is None else f"<= {self.high:g}"
        return f">= {self.low:g}" if self.high is None else f"{self.low:g}-{self.high:g}"


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure of one piece of work.

    Args:
      case: Key in ``CASES``.
      work: What was computed, with its sizes.
      figure: What was measured.
      value: The figure; from the median time where it is a time.
      unit: Its unit; a ratio names its denominator.
      low: Smallest value among the repeats; None where it was measured once or is exact.
      high: Largest value among the repeats.
      repeats: How often the work was timed after the warm-up.
      target: What the project promises, where it promises something.
      details: Whatever else a reader needs to check the figure, as JSON values.
    """

    case: str
    work: str
    figure: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    repeats: int = 1
    target: Target | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values, with the verdict on its target."""
        record = dataclasses.asdict(self)
        if self.target is None:
            return record | {"target": None, "met": None}
        return record | {"target": self.target._asdict(), "met": self.target.is_met(self.value)}


def rate_row(
    case: str,
    work: str,
    timing: Timing,
    *,
    flops: float,
    ceiling: float,
    cpu: float | None = None,
    gpu: float | None = None,
) -> Row:
    """Return the row that compares a FLOP rate with the ceiling measured around it.

    Args:
      case: Key in ``CASES``.
      work: What was computed.
      timing: Seconds.
      flops: Operations of one run of the work.
      ceiling: FLOP/s of the large matrix product, mean of before and after.
      cpu: Share of the ceiling that is promised on a CPU; None promises nothing.
      gpu: The same on a data-centre GPU.
    """
    promised = cpu if jax.default_backend() == "cpu" else gpu
    return Row(
        case,
        work,
        "FLOP rate",
        flops / timing.median / ceiling,
        "of ceiling",
        flops / timing.high / ceiling,
        flops / timing.low / ceiling,
        timing.repeats,
        None if promised is None else Target(low=promised),
        {
            "flops": flops,
            "seconds": timing.median,
            "gflops_per_second": flops / timing.median / 1e9,
            "ceiling_gflops_per_second": ceiling / 1e9,
        },
    )


def per_second_row(case: str, work: str, timing: Timing, *, count: float, unit: str) -> Row:
    """Return the row that says how many units of work were done a second."""
    return Row(
        case,
        work,
        "throughput",
        count / timing.median,
        f"{unit}/s",
        count / timing.high,
        count / timing.low,
        timing.repeats,
        None,
        {"seconds": timing.median, "count": count},
    )
