"""A run directory: what was asked, where it ran, what came out; resumable."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from bnn_adv import files, parallel
from bnn_adv.checkpoint import Checkpoints

_DOES_NOT_CHANGE_RESULTS = {"checkpoint_every", "data_dir"}


class RunDirectory:
    """Open, or reopen, a run directory.

    Args:
      path: The folder; created where absent.
      experiment: Name of the experiment.
      config: Every flag, as JSON values.
      command: The command line, for the record.

    Raises:
      ValueError: The folder holds another run, or files that are no run.
      OSError: The folder cannot be created or written to.
    """

    def __init__(
        self, path: str | os.PathLike[str], experiment: str, config: dict[str, Any], command: str
    ) -> None:
        self.path = Path(path).expanduser()
        self.path.mkdir(parents=True, exist_ok=True)
        record = {"experiment": experiment, **config}
        stored = self.path / "config.json"
        if parallel.agree(stored.exists()):
            self._check_same(json.loads(stored.read_text("utf-8")), record)
            self._remove_leftovers()
            return
        if parallel.is_writer() and any(self.path.iterdir()):
            raise ValueError(
                f"{self.path} is not empty and holds no run (no config.json). "
                "Give an empty or new folder to --workdir."
            )
        self.write(files.write_text, "command.txt", command + "\n")
        self.write(files.write_json, "environment.json", describe_environment())
        self.write(files.write_json, "config.json", record)

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, device and commit of the machine that started the run."""
        return json.loads((self.path / "environment.json").read_text("utf-8"))

    @property
    def command(self) -> str:
        """The command line that started the run."""
        return (self.path / "command.txt").read_text("utf-8").strip()

    def read_results(self) -> dict[str, Any] | None:
        """Return the results if the run is finished, else None."""
        path = self.path / "results.json"
        exists = parallel.agree(path.exists())
        return json.loads(path.read_text("utf-8")) if exists else None

    def write(self, writer: Callable[[Path, Any], object], name: str, value: Any) -> None:
        """Write a file of the run: process 0 does, for all.

        Args:
          writer: From ``bnn_adv.files``, or alike.
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
            for name in ("partial", "checkpoints"):
                shutil.rmtree(self.path / name, ignore_errors=True)

    def say(self, message: str) -> None:
        """Print a message on standard error and append it to ``metrics.jsonl``."""
        if parallel.is_writer():
            print(message, file=sys.stderr, flush=True)
            # What is said may be that the disk is full.
            with contextlib.suppress(OSError):
                self.log(message=message)

    def log(self, **record: Any) -> None:
        """Append one JSON object to ``metrics.jsonl``, with the time in seconds since 1970."""
        if not parallel.is_writer():
            return
        line = json.dumps({"time": round(time.time(), 3), **record})
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def sum_logged(self, name: str) -> float:
        """Return the sum of a number over the lines of ``metrics.jsonl`` that hold it."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return 0.0
        lines = path.read_text("utf-8").splitlines()
        return sum(json.loads(line).get(name, 0.0) for line in lines)

    def _remove_leftovers(self) -> None:
        """Delete what a start that was killed while it wrote has left: never a file of the run."""
        if parallel.is_writer():
            for path in self.path.rglob(".*.tmp"):
                path.unlink(missing_ok=True)

    def _check_same(self, stored: dict[str, Any], given: dict[str, Any]) -> None:
        names = sorted((set(stored) | set(given)) - _DOES_NOT_CHANGE_RESULTS)
        other = [name for name in names if stored.get(name) != given.get(name)]
        if other:
            listed = "; ".join(
                f"{name} is {stored.get(name)!r} there, {given.get(name)!r} here" for name in other
            )
            raise ValueError(
                f"{self.path} holds a run with other settings: {listed}. "
                "Give another --workdir, or the same flags to resume it."
            )


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
        "numpy",
    )
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "backend": jax.default_backend(),
        "commit": _commit(),
    }


def describe_command(module: str) -> str:
    """Return the command line as a user would type it.

    Args:
      module: What is run where no module of the experiments was started, as from a test.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    # One experiment may run another, as experiments.reproduce does.
    started = spec.name if spec is not None and spec.name.startswith("experiments.") else module
    return " ".join(["python", "-m", started, *sys.argv[1:]])


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
