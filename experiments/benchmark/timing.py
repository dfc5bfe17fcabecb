"""Time calls: a warm-up, repeats until a budget is spent, the median with its spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Work = Callable[[], Any]
"""A call whose result is waited for; nothing else of it is looked at."""


class Timing(NamedTuple):
    """The seconds of one piece of work.

    median: Median over the repeats.
    low: Fastest repeat.
    high: Slowest repeat.
    repeats: How many there were, without the warm-up.
    """

    median: float
    low: float
    high: float
    repeats: int


def summarise(seconds: list[float]) -> Timing:
    """Return median and spread of repeated measurements, one at least."""
    return Timing(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


def time_once(work: Work) -> float:
    """Return the seconds of one call, waiting for what it computes."""
    started = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - started


def measure(work: Work, *, budget: float) -> Timing:
    """Time a call after one warm-up, which compiles.

    Args:
      work: What is timed.
      budget: Seconds after which no further repeat starts; there is always one.
    """
    return compare({"work": work}, budget=budget)["work"]


def compare(works: Mapping[str, Work], *, budget: float, rounds: int = 1) -> dict[str, Timing]:
    """Time several calls in turn, so that a change of load hits all of them alike.

    Args:
      works: Calls by name; each is warmed up once.
      budget: Seconds after which no further round starts.
      rounds: Rounds that there are in any case, at least 1.
    """
    for work in works.values():
        time_once(work)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    started = time.perf_counter()
    done = 0
    while done < rounds or time.perf_counter() - started < budget:
        done += 1
        for name, work in works.items():
            seconds[name].append(time_once(work))
    return {name: summarise(taken) for name, taken in seconds.items()}
