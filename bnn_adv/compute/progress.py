"""Progress as a bar with the time left on a terminal and in a notebook, elsewhere as lines."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_BARS = 0.1


class Report(Protocol):
    """How progress is reported."""

    def __call__(
        self,
        done: int,
        total: int,
        metrics: dict[str, float] | None = None,
        *,
        label: str = "",
    ) -> None:
        """Report that ``done`` of ``total`` units of the (sub-)task ``label`` are done."""


@contextmanager
def progress(label: str, unit: str) -> Iterator[Report]:
    """Report one task's progress on standard error.

    Args:
      label: What is being done.
      unit: What is counted: epochs, samples, image-steps.

    Yields:
      A function to call with (done, total, metrics).
    """
    has_bar = sys.stderr.isatty() or in_notebook()
    with _bar(label, unit) if has_bar else _lines(label, unit) as report:
        yield report


def in_notebook() -> bool:
    """Return whether a kernel runs this for a notebook."""
    # Whoever runs in one has imported it; nobody else needs to.
    shell = sys.modules.get("IPython")
    kernel = None if shell is None else shell.get_ipython()
    return kernel is not None and hasattr(kernel, "kernel")


def _find_tqdm() -> Any:
    """Return the bar of a notebook or of a terminal."""
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        # Without ipywidgets a notebook has a bar of text, which is as good.
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm
    return tqdm


@contextmanager
def _bar(task: str, unit: str) -> Iterator[Report]:
    bar = _find_tqdm()(desc=task, unit=f" {unit}", leave=False, dynamic_ncols=True)
    current, shown = "", 0.0

    def report(
        done: int, total: int, metrics: dict[str, float] | None = None, *, label: str = ""
    ) -> None:
        nonlocal current, shown
        if label != current:
            # A new sub-task: its time left is its own.
            current = label
            bar.reset(total)
            bar.set_description(f"{task} {label}", refresh=False)
        bar.total = total
        bar.n = done
        if metrics:
            bar.set_postfix({key: f"{value:.4g}" for key, value in metrics.items()}, refresh=False)
        now = time.monotonic()
        if now - shown > _SECONDS_BETWEEN_BARS or done == total:
            shown = now
            bar.refresh()

    try:
        yield report
    finally:
        bar.close()


@contextmanager
def _lines(task: str, unit: str) -> Iterator[Report]:
    started = last = seen = time.monotonic()
    current = ""

    def report(
        done: int, total: int, metrics: dict[str, float] | None = None, *, label: str = ""
    ) -> None:
        nonlocal started, last, seen, current
        now = time.monotonic()
        if label != current:
            # A new sub-task: it began when the one before it was last heard of.
            started, current = seen, label
        seen = now
        if now - last < _SECONDS_BETWEEN_LINES or not done:
            return
        last = now
        left = (now - started) * (total - done) / done
        numbers = "".join(f", {key} {value:.4g}" for key, value in (metrics or {}).items())
        print(
            f"{task} {label}".rstrip() + f": {done} of {total} {unit}{numbers}, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    yield report
