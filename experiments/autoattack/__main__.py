"""Compare this library's suites with PyTorch AutoAttack on the very same draws.

  python -m experiments.autoattack --jobs=8 --workdir=runs/autoattack
  python -m experiments.autoattack --posterior=runs/demo --model=vi --threats=linf:0.1

Weights of fully connected posteriors are exported, and AutoAttack (Croce, Hein 2020; the packages
pyautoattack and torch, extra ``autoattack``) attacks their log-predictive in a process of its own.
The same command again resumes a run that was stopped; on a finished one it prints the table.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

from absl import flags

from experiments.autoattack import attackers
from experiments.autoattack.config import Config, ProcessConfig
from experiments.autoattack.measure import measure_all
from experiments.autoattack.posteriors import load_images, read_run
from experiments.autoattack.report import format_results, list_errors, summarise
from experiments.launch import runtime, stages
from experiments.launch.apart import share_devices
from experiments.launch.config import define_flags, make, read_flags, to_json
from experiments.launch.entry import start
from experiments.launch.run_directory import RunDirectory, describe_command

FLAGS = flags.FLAGS


def define_all_flags(argv: Sequence[str], flag_values: flags.FlagValues = FLAGS) -> None:
    """Define the flags."""
    flags.DEFINE_string(
        "workdir",
        "runs/autoattack",
        "Run directory; made, resumed or reprinted.",
        flag_values=flag_values,
    )
    define_flags(Config, flag_values=flag_values)
    define_flags(ProcessConfig, flag_values=flag_values)


def main(flag_values: flags.FlagValues = FLAGS) -> dict[str, Any]:
    """Run the comparison that the flags describe."""
    given = read_flags(flag_values)
    config, processes = make(Config, given), make(ProcessConfig, given)
    runtime.cache_programs(processes)
    return compare(config, str(flag_values["workdir"].value), processes)


def compare(config: Config, workdir: str, processes: ProcessConfig) -> dict[str, Any]:
    """Fill a run directory and return its results.

    Args:
      config: Every setting.
      workdir: The run directory.
      processes: How it runs.

    Raises:
      ValueError: The interpreter lacks a package, a posterior cannot be
        exported, AutoAttack failed, or the folder holds another run.
      OSError: A file cannot be read or written.
    """
    python, versions = processes.torch_python or sys.executable, {}
    if not Path(workdir, "results.json").expanduser().exists():
        versions = attackers.describe(python)
    if config.posterior:
        read_run(config.posterior, config.model, config.num_images, config.data_dir)
    else:
        load_images(config.num_images)
    share_devices(processes.jobs)
    command = describe_command("experiments.autoattack")
    run = RunDirectory(workdir, "autoattack", to_json(config), command)
    results = run.read_results()
    if results is not None:
        print(f"{run.path} holds a finished run of this command.\n")
    else:
        stored = stages.cached(run, "autoattack_versions", lambda: versions)
        if stored != versions:
            raise ValueError(f"{run.path} was begun with {stored}, and {python} has {versions}.")
        results = _finish(run, config, versions, measure_all(run, config, python, processes.jobs))
    print(format_results(results))
    print(f"Results: {run.path / 'results.json'}")
    return results


def _finish(
    run: RunDirectory, config: Config, versions: dict[str, str], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    results = {
        "schema_version": 1,
        "experiment": "autoattack",
        "summary": summarise(rows),
        "errors": list_errors(rows),
        "rows": rows,
        "seed": config.seed,
        "seconds": round(stages.spent(run), 1),
        "command": run.command,
        "environment": {**run.environment, "autoattack": versions},
        "config": {key: value for key, value in to_json(config).items() if key != "data_dir"},
    }
    run.finish(results)
    return results


if __name__ == "__main__":
    start(define_all_flags, main, __doc__, errors=(BrokenExecutor,))
