"""What the comparison computes: each attacker on each posterior under each threat."""

from __future__ import annotations

import functools
from typing import Any

from bnn_adv.compute import files
from bnn_adv.compute.canonical import digest
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.posteriors.posterior import hash_draws
from experiments.autoattack import attackers
from experiments.autoattack.config import Config, parse_threats
from experiments.autoattack.posteriors import Target, make_target, read_run
from experiments.autoattack.report import build_row
from experiments.launch import stages
from experiments.launch.apart import work_apart
from experiments.launch.run_directory import RunDirectory


def measure_all(run: RunDirectory, config: Config, python: str, jobs: int) -> list[dict[str, Any]]:
    """Return a row for every posterior and threat, in order.

    Args:
      run: The run directory.
      config: Every setting.
      python: Interpreter with PyTorch and AutoAttack.
      jobs: Processes beside each other.
    """
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
