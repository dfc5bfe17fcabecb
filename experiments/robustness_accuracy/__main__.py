"""Robustness against accuracy of a cloud of networks: HMC, SGD and VI grids, attacked one by one.

  python -m experiments.robustness_accuracy --scale=cpu --workdir=runs/clouds
  python -m experiments.robustness_accuracy --scale=paper --grid_filter='method=hmc,starred=true'

Figure 4 and Table 1 of the paper (grids: the supplement's tables 5 to 7), and beside them methods
on equal terms: HMC whose chains mix, SGD, ensembles, VI, Laplace and SWAG (``--matched``). Every
network gets its accuracy, softmax robustness by the published and the corrected metric, and
adversarial accuracy under the published, corrected and strong suites. The same command continues
a run that was stopped; with a larger --time_budget also one that ended on its budget.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from bnn_adv.compute.progress import progress
from bnn_adv.data import Dataset, load_dataset
from bnn_adv.evaluation.suites import list_compared
from experiments.launch import stages
from experiments.launch.checks import check_inputs
from experiments.launch.config import to_json
from experiments.launch.run_directory import RunDirectory
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Study
from experiments.robustness_accuracy.config import (
    SCALES,
    Config,
    find_sampled,
    list_tasks,
    matched_data,
    method_config,
)
from experiments.robustness_accuracy.measure import Work, build, measure_all, reopen
from experiments.robustness_accuracy.report import build_study

NAME = "robustness_accuracy"


def run(config: Config, workdir: str, *, scale: str = "") -> dict[str, Any]:
    """Fill a run directory and return its results.

    Raises:
      ValueError: The data or networks do not allow the run, or the folder holds another one.
      OSError: The folder cannot be written to.
    """
    reopen(Path(workdir).expanduser(), {"experiment": NAME, **to_json(config), "scale": scale})
    return run_study(NAME, config, workdir, _work, scale=scale, check=check)


def check(config: Config) -> None:
    """Raise unless there are as many images as are asked for, which every network takes.

    Runs whose chains are taken must be of the same network, images and posterior.

    Raises:
      ValueError: The message names what is wrong.
    """
    networks = (network for task in list_tasks(config) for network in task.members)
    # Whether one takes the inputs does not depend on its width.
    examples = {str(network.get("architecture")): network for network in networks}
    sources = ",".join(config.sources)
    datasets, runs = _load(config), find_sampled(config)
    for task in list_tasks(config):
        if task.is_sampled and task.dataset in runs:
            dataset = datasets[task.data]
            network = build(task.members[0], dataset.num_classes)
            settings = method_config(config, task.members, len(dataset.y_train))
            runs[task.dataset].check(network, dataset, settings, config.data_dir)
    for dataset in datasets.values():
        for architecture, example in examples.items():
            network = build(example, dataset.num_classes)
            check_inputs(
                network,
                dataset,
                flag=f"architecture={architecture} of the grids --sources={sources}",
                instead="--grid_filter=architecture!=conv",
            )


def _load(config: Config) -> dict[str, Dataset]:
    """Return the data by name, see ``Task.data``."""

    def load(name: str, num_train: int) -> Dataset:
        return load_dataset(
            name,
            config.data_dir or None,
            num_train=num_train or None,
            num_test=config.num_test,
            seed=config.seed,
        )

    found = {name: load(name, config.num_train) for name in config.datasets}
    for name in config.datasets if config.matched else ():
        own = load(name, config.matched_num_train)
        found[matched_data(name)] = dataclasses.replace(own, name=matched_data(name))
    return found


def _work(config: Config, run: RunDirectory) -> Study:
    datasets = {n: stages.note_data(run, found) for n, found in _load(config).items()}
    stages.note_suites(run, list_compared(config.suite).values())
    tasks = list_tasks(config)
    total, rows = sum(len(task.members) for task in tasks), []
    with progress("clouds", "networks") as report:
        for row in measure_all(Work(config, run, datasets), tasks):
            rows.append(row)
            report(len(rows), total, label=row["dataset"])
    return build_study(
        rows,
        epsilon=config.epsilon,
        suite=config.suite,
        least_accuracy=config.least_accuracy,
        seed=config.seed,
    )


if __name__ == "__main__":
    launch(NAME, Config, SCALES, run, __doc__)
