"""A run directory: what was asked, where it ran, what came out; resumable."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from bnn_adv.compute import files, parallel
from bnn_adv.compute.canonical import digest
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.compute.identity import changed_settings
from experiments.launch import locks, metrics_log

_DOES_NOT_CHANGE_RESULTS = {"checkpoint_every", "data_dir", "jobs"}
_DOES_NOT_CHANGE_STAGES = {"time_budget"}
"""How far a run gets, not what it finds."""


class RunDirectory:
    """Open, or reopen, a run directory.

    Its first file is ``config.json``, which says what the run is: a start that ended anywhere after
    it is resumed, and one that ended before has left nothing. While a process works there no other
    one can.

    Args:
      path: The folder; created where absent.
      experiment: Name of the experiment.
      config: Every flag, and the hashes of what else results follow from, as JSON values.
      command: The command line, for the record.

    Attributes:
      noted: Hashes of the data and networks that this start has met, by name.
      suites: Hashes of the suites that it runs.
      draws: Hashes of the draws that it has trained or read, by name.
      claimed: By name of draws that it has not, their hash as a stage's file says it, and the file.
      is_apart: Whether this is the copy of a process that works on a part beside others.

    Raises:
      ValueError: The folder holds another run, or files that are no run, or a damaged one.
      OSError: The folder cannot be created or written to, or another process works there.
    """

    def __init__(
        self, path: str | os.PathLike[str], experiment: str, config: dict[str, Any], command: str
    ) -> None:
        self.path = Path(path).expanduser()
        self.noted: dict[str, str] = {}
        self.suites: dict[str, str] = {}
        self.draws: dict[str, str] = {}
        self.claimed: dict[str, tuple[str, str]] = {}
        self.is_apart = False
        self._lost: set[str] = set()
        record = {"experiment": experiment, **config}
        if settings := changed_settings():
            record["jax_settings"] = settings
        self.identity = identify_run(record)
        self.path.mkdir(parents=True, exist_ok=True)
        is_finished = parallel.agree((self.path / "results.json").exists())
        is_new = parallel.is_writer() and not is_finished and locks.acquire(self.path)
        try:
            self._open(record, command, is_finished)
        except BaseException:
            if is_new:
                locks.release(self.path)
            raise

    def _open(self, record: dict[str, Any], command: str, is_finished: bool) -> None:
        if parallel.agree((self.path / "config.json").exists()):
            self._check_same(self._read("config.json"), record)
        else:
            self._check_empty()
            self.write(files.write_json, "config.json", record)
        if is_finished:
            # What a start that was killed after its results has left.
            self._tidy()
            return
        if parallel.is_writer():
            self._remove_leftovers()
            if torn := metrics_log.cut_torn_line(self.path / "metrics.jsonl"):
                self.say(f"The last line of metrics.jsonl was torn and is cut off: {torn[:80]!r}.")
        if not parallel.agree((self.path / "command.txt").exists()):
            self.write(files.write_text, "command.txt", command + "\n")
        self._note_environment()

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, device and commit of the machine that started the run."""
        return self.environments[0]

    @property
    def environments(self) -> list[dict[str, Any]]:
        """What ``environment`` says of every start, each once, in order."""
        first = self._read("environment.json")
        later = first.pop("later_starts", [])
        return [first, *later]

    @property
    def command(self) -> str:
        """The command line that started the run."""
        return (self.path / "command.txt").read_text("utf-8").strip()

    def read_results(self) -> dict[str, Any] | None:
        """Return the results if the run is finished, else None.

        Raises:
          ValueError: They are damaged.
        """
        exists = parallel.agree((self.path / "results.json").exists())
        return self._read("results.json") if exists else None

    def write(self, writer: Callable[[Path, Any], object], name: str, value: Any) -> None:
        """Write a file of the run: process 0 does, for all.

        Args:
          writer: From ``bnn_adv.compute.files``, or alike.
          name: The file's path within the folder.
          value: What to write.
        """
        if parallel.is_writer():
            writer(self.path / name, value)
        parallel.barrier(name)

    def checkpoints(self, name: str, every_seconds: float) -> Checkpoints | None:
        """Return where the stage ``name`` saves progress; None where ``every_seconds`` is 0."""
        if not every_seconds:
            return None
        return Checkpoints(
            self.path / "checkpoints" / name, every_seconds=every_seconds, log=self.say
        )

    def finish(self, results: dict[str, Any]) -> None:
        """Write the results, whose presence says that the run is finished, and tidy up."""
        self.write(files.write_json, "results.json", results)
        if parallel.is_writer():
            locks.release(self.path)
        self._tidy()

    def _tidy(self) -> None:
        if parallel.is_writer():
            for name in ("partial", "checkpoints"):
                shutil.rmtree(self.path / name, ignore_errors=True)
            with contextlib.suppress(OSError):  # The folder may be read only.
                (self.path / locks.NAME).unlink(missing_ok=True)

    def say(self, message: str) -> None:
        """Print a message on standard error and append it to ``metrics.jsonl``."""
        if parallel.is_writer():
            print(message, file=sys.stderr, flush=True)
            # What is said may be that the disk is full.
            with contextlib.suppress(OSError):
                self.log(message=message)

    def log(self, **record: Any) -> None:
        """Append one JSON object to ``metrics.jsonl``, with the time in seconds since 1970.

        Of an entry that is NaN or infinite, null is written and, once an entry, a message.
        """
        if not parallel.is_writer():
            return
        lost = set(metrics_log.append(self.path / "metrics.jsonl", record)) - self._lost
        if lost:
            self._lost |= lost
            self.say(
                f"NaN or infinite: {', '.join(sorted(lost))}. metrics.jsonl holds null instead."
            )

    def sum_logged(self, name: str) -> float:
        """Return the sum of a number over the lines of ``metrics.jsonl`` that hold it."""
        return metrics_log.total(self.path / "metrics.jsonl", name)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads((self.path / name).read_text("utf-8"))
        except ValueError as error:
            found = str(error)
        if isinstance(found, dict):
            return found
        raise ValueError(
            f"{self.path / name} is damaged ({found if isinstance(found, str) else 'no object'}): "
            "put back a copy of it, or give another --workdir."
        )

    def _note_environment(self) -> None:
        """Add this start's environment where it is not that of an earlier start."""
        here, path = describe_environment(), self.path / "environment.json"
        if not parallel.agree(path.exists()):
            self.write(files.write_json, "environment.json", here)
            return
        known = self.environments
        if parallel.agree(here not in known):
            record = {**known[0], "later_starts": [*known[1:], here]}
            self.write(files.write_json, "environment.json", record)

    def _check_empty(self) -> None:
        names = {path.name for path in self.path.iterdir()} - {locks.NAME}
        # What the write of a start that was killed has left.
        names = {name for name in names if not name.endswith(files.TEMPORARY)}
        if parallel.is_writer() and names:
            raise ValueError(
                f"{self.path} is not empty and holds no run (no config.json). "
                "Give an empty or new folder to --workdir."
            )

    def _remove_leftovers(self) -> None:
        """Delete what a start that was killed while it wrote has left: never a file of others."""
        for path in self.path.rglob(f".*{files.TEMPORARY}"):
            path.unlink(missing_ok=True)

    def _check_same(self, stored: dict[str, Any], given: dict[str, Any]) -> None:
        names = sorted((set(stored) | set(given)) - _DOES_NOT_CHANGE_RESULTS)
        other = [name for name in names if stored.get(name) != given.get(name)]
        # Of another method's run every setting differs.
        other = [name for name in other if name in ("experiment", "method")][:1] or other
        if other:
            listed = "; ".join(
                f"{name} is {stored.get(name)!r} there, {given.get(name)!r} here" for name in other
            )
            raise ValueError(
                f"{self.path} holds a run with other settings: {listed}. "
                "Give another --workdir, or the same flags to resume it."
            )


def identify_run(record: dict[str, Any]) -> str:
    """Return the hash of all settings on which what a run finds depends."""
    left_out = _DOES_NOT_CHANGE_RESULTS | _DOES_NOT_CHANGE_STAGES
    # As JSON reads them back: a tuple is a list there.
    kept = json.loads(json.dumps({k: v for k, v in record.items() if k not in left_out}))
    return digest(kept, "config")


def describe_environment() -> dict[str, Any]:
    """Return versions, hardware and commit, as plain text."""
    packages = (
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "blackjax",
        "numpyro",
        "orbax-checkpoint",
        "arviz-stats",
        "numpy",
    )
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_count": _count_cores(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "backend": jax.default_backend(),
        "commit": _commit(),
    }


def describe_command(module: str) -> str:
    """Return the command line as a shell reads it: values with spaces or asterisks are quoted.

    Args:
      module: What is run where no module of the experiments was started, as from a test.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    # One experiment may run another, as experiments.reproduce does.
    started = spec.name if spec is not None and spec.name.startswith("experiments.") else module
    # A folder is started by its name, and names its __main__ itself.
    return shlex.join(["python", "-m", started.removesuffix(".__main__"), *sys.argv[1:]])


def _count_cores() -> int:
    """Return how many cores this process may use, which may be fewer than the machine has."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _commit() -> str:
    folder = Path(__file__).resolve().parent
    try:
        commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "-uno"])
        head, changes = (
            subprocess.run(c, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for c in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + (" with changes" if changes else "")
