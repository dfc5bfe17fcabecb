"""Choose how much work one device call does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np

_GROWTH = 8


class Pacer:
    """Choose counts so that one call takes about a second, and the host can look in between.

    Host loops cut their work into calls whose length is data of one program, so that the cut
    changes nothing but when the host is asked. The first call compiles and is not timed.

    Args:
      target_seconds: What a call aims at.
    """

    def __init__(self, *, target_seconds: float = 1.0) -> None:
        self._target = target_seconds
        self._count = 1
        self._warm = False

    def next(self, most: int) -> int:
        """Return how many units the next call does, 1 .. ``most``; alike on every process."""
        count = self._count
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            # Clocks differ, and processes that run different programs wait for each other forever.
            count = int(multihost_utils.broadcast_one_to_all(np.int32(count)))
        return max(1, min(count, most))

    @contextmanager
    def timed(self, count: int) -> Iterator[None]:
        """Learn from a call of ``count`` units, which the block starts and waits for."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        if self._warm:
            per_unit = max(seconds / count, 1e-9)
            self._count = int(min(max(self._target / per_unit, 1), _GROWTH * count, 2**30))
        self._warm = True
