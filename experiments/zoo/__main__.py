"""Train posteriors plainly and robustly, and hold each between certificate and attack.

  python -m experiments.zoo --scale=cpu --data_dir=data --workdir=runs/zoo
  python -m experiments.zoo --datasets=mnist --methods=sgd,ensemble --trainings=interval
  python -m experiments.zoo --join=runs/zoo --workdir=runs/zoo_joined
  python -m experiments.zoo --join=experiments/zoo/results/joined,runs/zoo --join_across_code

Every method with the standard, the adversarial and the interval likelihood, on one small network;
HMC on a smaller one and fewer images. What is written: ``report.html``, and ``zoo.html``, one page
of all posteriors that sorts and filters. The same command continues a run that was stopped; methods
may run in folders of their own, side by side, and be joined, also with what was joined before.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from bnn_adv.compute import files, parallel
from experiments.launch.checks import check_inputs
from experiments.launch.run_directory import RunDirectory
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Study
from experiments.zoo.config import SCALES, Config
from experiments.zoo.join import describe_states, leave_out_curves, read_runs
from experiments.zoo.measure import (
    build,
    check_sampled,
    list_subjects,
    load_all,
    measure_all,
)
from experiments.zoo.page import render_zoo
from experiments.zoo.report import TITLE, build_study, make_records
from experiments.zoo.runs import hash_runs

__all__ = ["SCALES", "Config", "run"]


def run(config: Config, workdir: str, *, scale: str = "") -> dict[str, Any]:
    """Fill a run directory and return its results.

    Args:
      config: Every setting.
      workdir: The run directory.
      scale: Name of the scale, for the record.

    Raises:
      ValueError: The data or networks do not allow the run, or the folder holds another one.
      OSError: The folder cannot be written to.
    """
    return run_study(
        "zoo",
        config,
        workdir,
        _work,
        scale=scale,
        check=check,
        # A folder of runs may hold others by the time that it is joined again.
        hash_inputs=lambda config: hash_runs(config.join),
    )


def check(config: Config) -> None:
    """Raise unless there is something to train, on inputs that the networks take.

    Raises:
      ValueError: The message names what is wrong.
    """
    if config.join:
        read_runs(config.join, across_code=config.join_across_code)
        return
    if not list(list_subjects(config)):
        raise ValueError(
            "--methods and --trainings leave nothing to train: HMC has no adversarial likelihood, "
            "which starts at random; add a method or a training."
        )
    sets = load_all(config)
    for dataset in sets.values():
        check_inputs(build(config, "sgd", dataset.num_classes), dataset, flag="--width")
    check_sampled(config, sets)


def _work(config: Config, run: RunDirectory) -> Study:
    joined: dict[str, Any] = {}
    if config.join:
        found, records, joined = read_runs(config.join, across_code=config.join_across_code)
        found = leave_out_curves(found)
    else:
        found, device = measure_all(config, run), run.environment
        records = make_records(
            found,
            command=run.command,
            seed=config.seed,
            hardware=f"{device['device']}, {device['cpu_count']} cores of {device['cpu']}",
        )
    study = build_study(found, records)
    if joined:
        summary = study.summary + describe_states(joined["states"])
        study = dataclasses.replace(study, summary=summary, data={**study.data, "joined": joined})
    if parallel.is_writer():
        page = render_zoo(records, title=TITLE, summary=study.summary, command=run.command)
        run.write(files.write_text, "zoo.html", page)
    return study


if __name__ == "__main__":
    launch("zoo", Config, SCALES, run, __doc__)
