r"""Means over independent repetitions, powers, and whether a number falls from level to level.

That a number is smaller at the last level than at the first is a fall between two ends. A trend is
more: every step from one level to the next goes down, beyond what repetitions differ by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

CONFIDENCE = 0.95
"""Coverage of an interval."""


class Interval(NamedTuple):
    """A mean with its 95 % interval; the ends are NaN for a single value."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the mean and the ends of the interval."""
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


class Trend(NamedTuple):
    """How positive numbers go over L rising levels.

    centres: Geometric mean over repetitions at every level, [L].
    steps: log10 of the ratio of each level's number to that of the level before, with 95 %
      intervals over repetitions, L - 1.
    falls: True where every step's interval lies below zero. False where one step rises: its
      interval lies above zero, also at the confidence 1 - 0.05 / (L - 1) which allows for asking of
      every step (Bonferroni). None where repetitions do not tell.
    """

    centres: np.ndarray
    steps: tuple[Interval, ...]
    falls: bool | None

    def __str__(self) -> str:
        """Return the centres and, in brackets, the intervals of the steps."""
        centres = ", ".join(f"{value:.2g}" for value in self.centres)
        steps = "; ".join(f"10^{step}" for step in self.steps)
        return f"{centres} (steps: {steps})"


def t_interval(values: Sequence[float] | np.ndarray, *, confidence: float = CONFIDENCE) -> Interval:
    """Return mean and Student's interval of independent values, such as of seeds.

    Args:
      values: One number a repetition.
      confidence: Coverage, in (0, 1).

    Raises:
      ValueError: There is no value.
    """
    if not len(values):
        raise ValueError("An interval needs one value at least, got none.")
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return Interval(mean, np.nan, np.nan)
    quantile = special.stdtrit(count - 1, 0.5 + confidence / 2)
    half = float(quantile * np.std(values, ddof=1) / np.sqrt(count))
    return Interval(mean, mean - half, mean + half)


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the least-squares slope of log y against log x: the power with which y follows x.

    Raises:
      ValueError: Fewer than two values, or one is not positive.
    """
    is_positive = all(value > 0 for value in (*x, *y))
    if len(x) < 2 or len(x) != len(y) or not is_positive:
        raise ValueError(f"A power law needs two positive pairs at least, got {x} and {y}.")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def follow(values: np.ndarray) -> Trend:
    """Return how a number goes from level to level.

    Args:
      values: Non-negative numbers, [L, R] for L >= 2 rising levels and R independent repetitions.
        Repetition r of one level may be independent of repetition r of the next, or share its seed.
        A single repetition gives steps without an interval, and no trend.

    Raises:
      ValueError: There are fewer than two levels, or no repetition.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or len(values) < 2 or not values.shape[1]:
        raise ValueError(
            f"A trend needs numbers [L, R] of two levels at least, got shape {values.shape}."
        )
    # A number of exactly zero has no logarithm.
    logs = np.log10(np.maximum(values, 1e-30))
    changes = np.diff(logs, axis=0)
    steps = tuple(t_interval(change) for change in changes)
    stricter = 1 - (1 - CONFIDENCE) / len(steps)
    rises = any(t_interval(change, confidence=stricter).low > 0 for change in changes)
    falls = all(step.high < 0 for step in steps)
    return Trend(10 ** logs.mean(axis=1), steps, True if falls else False if rises else None)
