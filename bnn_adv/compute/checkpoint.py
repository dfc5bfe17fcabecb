"""Save progress every so often, and continue from it bit for bit.

A checkpoint is one Orbax step: the state's arrays and a record in JSON, both with checksums.
What is finished for good (kept draws, attacked images) goes into *parts*, files that are written
once and that later checkpoints list. ``None`` in place of ``Checkpoints`` saves nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bnn_adv.compute import identity, interruption, parallel
from bnn_adv.compute.checkpoint_store import Parts, Saved, Store, to_host

Log = Callable[[str], None]

_LOCK_SECONDS = 60.0


class _Progress(NamedTuple):
    """What was last completed: all that a checkpoint needs, whoever writes it."""

    step: int
    tree: Any
    meta: dict[str, Any]


def say(message: str) -> None:
    """Print a message on standard error: the default log."""
    print(message, file=sys.stderr, flush=True)


class NoCheckpoints:
    """Save nothing: what ``None`` stands for in host loops."""

    @contextlib.contextmanager
    def session(self, named: identity.Named) -> Iterator[Saved | None]:
        """Yield None."""
        yield None

    def add_part(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Do nothing."""

    def tick(self, step: int | None, tree: Any, meta: dict[str, Any] | None = None) -> None:
        """Do nothing."""


class Checkpoints(NoCheckpoints):
    """Keep the newest checkpoints of one computation in a folder of its own.

    Args:
      directory: The folder; created at the first save.
      every_seconds: Save when so much time has passed; None never saves for that reason.
      every_steps: Save when so many units of work are done; None as above.
      keep: Checkpoints kept; two survive damage to the newest.
      log: Told about resumption, damaged checkpoints and failed saves.

    Raises:
      ValueError: A setting is out of range.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every_seconds: float | None = 60.0,
        every_steps: int | None = None,
        keep: int = 2,
        log: Log = say,
    ) -> None:
        for name, value in (
            ("every_seconds", every_seconds),
            ("every_steps", every_steps),
            ("keep", keep),
        ):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}.")
        self.directory = Path(directory).expanduser().absolute()
        self._every_seconds = math.inf if every_seconds is None else every_seconds
        self._every_steps = math.inf if every_steps is None else every_steps
        self._log = log
        self._lock = threading.Lock()
        self._started = self._saved_at = time.monotonic()
        self._seconds_before = 0.0
        self._saved_step = -1
        self._identity: identity.Identity | None = None
        self._nested: dict[str, identity.Identity] = {}
        self._saved: Saved | None = None
        self._progress: _Progress | None = None
        self._staged: Parts = {}
        self._pending: Parts = {}
        self._part_files: dict[str, str] = {}
        self._store = Store(self.directory, keep)

    @property
    def seconds(self) -> float:
        """Seconds since the outermost session began, and of the starts before it."""
        return self._seconds_before + time.monotonic() - self._started

    @contextlib.contextmanager
    def session(self, named: identity.Named) -> Iterator[Saved | None]:
        """Read the newest usable checkpoint, and save in time if the block is interrupted.

        A session within a session belongs to the outer one and yields the same. What it computes
        is remembered by its name as well, and compared when the work is continued.

        Args:
          named: What is computed; continuing something else is refused.

        Yields:
          The checkpoint, or None where there is none.

        Raises:
          OtherWorkError: The folder holds checkpoints of another computation; the message names
            what differs.
          TypeError: What is computed cannot be told from something else, see ``identity``.
        """
        here = identity.resolve(named)
        if self._identity is not None:
            there = self._nested.setdefault(here["computation"], here)
            self._check(there, here)
            yield self._saved
            return
        # Whatever was done before it is no part of this computation.
        self._started, self._seconds_before = time.monotonic(), 0.0
        self._saved = self._restore(here)
        self._identity = here
        self._saved_at = time.monotonic()
        try:
            with interruption.saving(self._save_on_behalf):
                yield self._saved
        finally:
            self._identity = self._saved = self._progress = None
            self._store.close()

    def add_part(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Hand over arrays that will not change any more; they belong to the next ``tick``.

        Args:
          name: Unique name.
          arrays: Arrays by name.
        """
        self._staged[name] = dict(arrays)

    def tick(self, step: int | None, tree: Any, meta: dict[str, Any] | None = None) -> None:
        """Note that ``step`` units of work are done; save if it is time to.

        Args:
          step: Grows from tick to tick; None counts the ticks.
          tree: State from which the work continues, a pytree of arrays.
          meta: JSON values that belong to it.

        Raises:
          Interrupted: A signal asked for an end, and the state is saved.
        """
        if step is None:
            step = max(self._saved_step, self._progress.step if self._progress else -1) + 1
        with self._lock:
            self._pending |= self._staged
            self._staged = {}
            self._progress = _Progress(step, tree, meta or {})
        due, stop = self._decide(step)
        if due or stop:
            with self._lock:
                self._save()
        if stop:
            raise interruption.Interrupted(stop)

    def remove(self) -> None:
        """Delete the folder: the result is safe elsewhere."""
        if parallel.is_writer():
            shutil.rmtree(self.directory, ignore_errors=True)

    def _decide(self, step: int) -> tuple[bool, int]:
        due = (
            time.monotonic() - self._saved_at >= self._every_seconds
            or step - max(self._saved_step, 0) >= self._every_steps
        )
        stop = interruption.requested() or 0
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            # Saving is collective: the first process's clock decides, and anybody's signal.
            flags = np.asarray(multihost_utils.process_allgather(np.array([due, stop], np.int32)))
            due, stop = bool(flags[0, 0]), int(flags[:, 1].max())
        return due, stop

    def _save_on_behalf(self) -> None:
        # Other processes are elsewhere, and saving is collective: their last checkpoint counts.
        if jax.process_count() > 1 or not self._lock.acquire(timeout=_LOCK_SECONDS):
            return
        try:
            self._save()
        finally:
            self._lock.release()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        progress = self._progress
        if progress is None or progress.step <= self._saved_step:
            return
        leaves = to_host(progress.tree)
        if parallel.is_writer():
            record = {
                "identity": self._identity,
                "nested": self._nested,
                "seconds": self.seconds,
                "meta": progress.meta,
            }
            try:
                self._part_files = self._store.write(
                    progress.step, leaves, record, self._pending, self._part_files
                )
            except Exception as error:
                self._log(
                    f"The checkpoint of step {progress.step} could not be written to "
                    f"{self.directory} ({_reason(error)}). The run goes on; older checkpoints "
                    "stay as they are."
                )
                self._store.sweep(self._part_files)
                return
        self._pending = {}
        self._saved_step = progress.step

    def _check(self, there: identity.Identity, here: identity.Identity) -> None:
        if changed := identity.compare(there, here):
            within = "" if there["computation"] != here["computation"] else here["computation"]
            raise identity.OtherWorkError(
                f"{self.directory} holds a checkpoint of something else: "
                + (f"of {within}, " if within else "")
                + f"{changed}. Give another folder, or delete this one."
            )

    def _restore(self, here: identity.Identity) -> Saved | None:
        self._saved_step, self._part_files, self._pending, self._staged = -1, {}, {}, {}
        self._nested = {}
        if jax.process_count() == 1:
            saved = self._restore_newest()
        else:
            from jax.experimental import multihost_utils

            # The first process chooses; the others read what it chose.
            saved = self._restore_newest() if parallel.is_writer() else None
            step = int(multihost_utils.broadcast_one_to_all(np.int32(saved.step if saved else -1)))
            if step >= 0 and not parallel.is_writer():
                saved = self._store.read(step)
        if saved is None:
            return None
        # Those of older versions hold a text, and no nested ones.
        self._check(identity.resolve(saved.record["identity"]), here)
        self._nested = dict(saved.record.get("nested", {}))
        self._saved_step = saved.step
        self._part_files = saved.record["parts"]
        self._seconds_before = saved.record["seconds"]
        return saved

    def _restore_newest(self) -> Saved | None:
        damaged: list[int] = []
        saved = None
        for step in reversed(self._store.steps()):
            try:
                saved = self._store.read(step)
                break
            except Exception as error:
                damaged.append(step)
                self._log(
                    f"Checkpoint {step} in {self.directory} is damaged and is not used "
                    f"({_reason(error)})."
                )
        self._store.set_aside(damaged)
        if saved is not None:
            self._log(f"Resuming from checkpoint {saved.step} in {self.directory}.")
        elif damaged:
            self._log(f"No checkpoint in {self.directory} can be used: starting over.")
        return saved


def _reason(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    # Orbax names the cause last, behind long paths.
    return line if len(line) <= 160 else f"... {line[-160:]}"
