"""Compare this library's suites with PyTorch AutoAttack on the very same draws.

  python -m experiments.autoattack --jobs=8 --workdir=runs/autoattack
  python -m experiments.autoattack --posterior=runs/demo --model=vi --threats=linf:0.1

Weights of fully connected posteriors are exported, and AutoAttack (Croce, Hein 2020; the packages
pyautoattack and torch, extra ``autoattack``) attacks their log-predictive in a process of its own.
The same command again resumes a run that was stopped; on a finished one it prints the table.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

from absl import flags

from bnn_adv.compute import files
from bnn_adv.compute.canonical import digest
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.posteriors.posterior import hash_draws
from experiments.autoattack import attackers
from experiments.autoattack.config import Config, ProcessConfig, parse_threats
from experiments.autoattack.posteriors import Target, load_images, make_target, read_run
from experiments.autoattack.report import build_row, format_results, list_errors, summarise
from experiments.launch import runtime, stages
from experiments.launch.apart import share_devices, work_apart
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
        results = _finish(run, config, versions, _work_all(run, config, python, processes.jobs))
    print(format_results(results))
    print(f"Results: {run.path / 'results.json'}")
    return results


def _work_all(run: RunDirectory, config: Config, python: str, jobs: int) -> list[dict[str, Any]]:
    names = (config.model,) if config.posterior else config.posteriors
    found = work_apart(functools.partial(_work, config, python), run, names, jobs)
    return [row for rows in found for row in rows]


def _work(config: Config, python: str, run: RunDirectory, name: str) -> list[dict[str, Any]]:
    """Return the rows of one posterior; what an earlier start finished is read."""
    if config.posterior:
        target = read_run(config.posterior, name, config.num_images, config.data_dir)
    else:
        target = make_target(run, name, config.num_images)
    stages.note_suites(run, map(get_suite, config.suites))
    draws = {"hash": hash_draws(target.posterior), "images": digest((target.x, target.y))}
    rows = []
    if stages.cached(run, f"{name}-draws", lambda: draws) != draws:
        raise ValueError(
            f"{run.path} was begun with other draws or images of {name}: give another --workdir."
        )
    for text, (norm, epsilon) in parse_threats(config).items():
        asked = attackers.Asked(norm, epsilon, config.seed)
        head = {"posterior": name, "num_draws": target.posterior.num_samples, "threat": text}
        head |= {"norm": norm, "epsilon": epsilon, "num_images": len(target.x)}
        parts = {
            attacker: _attack(run, config, python, target, (name, text, attacker), asked)
            for attacker in ("autoattack", *config.suites)
        }
        rows.append(build_row(head, parts.pop("autoattack"), parts))
    return rows


def _attack(
    run: RunDirectory,
    config: Config,
    python: str,
    target: Target,
    names: tuple[str, str, str],
    asked: attackers.Asked,
) -> dict[str, Any]:
    """Return what one attacker left of one posterior under one threat."""
    part = "-".join(names).replace(":", "_").replace(".", "_")

    def compute() -> dict[str, Any]:
        if names[-1] == "autoattack":
            record, arrays = attackers.run_autoattack(
                target,
                asked,
                version=config.autoattack_version,
                python=python,
                say=lambda line: run.say(f"{part}: {line}"),
            )
        else:
            record, arrays = attackers.run_suite(target, asked, names[-1])
        run.write(files.write_arrays, f"adversarial/{part}.npz", arrays)
        run.say(f"{part}: {len(record['standing'])} of {len(target.x)} stand")
        return record

    return stages.cached(run, part, compute)


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
