"""Every chain method on the same posteriors: R-hat, effective draws per gradient and per second.

  python -m experiments.samplers --scale=cpu --workdir=runs/samplers
  python -m experiments.samplers --scale=mnist --data_dir=data --workdir=runs/samplers_mnist
  python -m experiments.samplers --targets=mnist_6000 --hidden=128 --methods=hmc,mclmc

Methods have equal budgets of gradients of all data. Each is run, and judged, as a stage of its own:
the same command continues a run that was stopped.
"""

from __future__ import annotations

from typing import Any

from bnn_adv.data import Dataset, load_dataset
from bnn_adv.data.dataset import subset
from experiments.launch import stages
from experiments.launch.run_directory import RunDirectory
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Study
from experiments.samplers.config import SCALES, Config, build_posterior
from experiments.samplers.measure import Cell, measure
from experiments.samplers.report import build_study

NAME = "samplers"


def run(config: Config, workdir: str, *, scale: str = "") -> dict[str, Any]:
    """Fill a run directory and return its results.

    Raises:
      ValueError: The data do not allow the run, or the folder holds another one.
      OSError: A file cannot be read or written.
    """
    return run_study(NAME, config, workdir, _work, scale=scale, check=check)


def check(config: Config) -> None:
    """Raise unless there are as many examples as are asked for.

    Raises:
      ValueError: The message names what is wrong.
    """
    for name in config.targets:
        _load(config, name)


def _load(config: Config, name: str) -> Dataset:
    posterior = build_posterior(config, name)
    dataset = load_dataset(
        posterior.dataset,
        config.data_dir or None,
        num_train=posterior.num_train or None,
        seed=config.seed,
    )
    if config.num_held_out > (most := len(dataset.y_test)):
        raise ValueError(
            f"--num_held_out must be at most {most}, the test examples of {dataset.name}, got "
            f"{config.num_held_out}."
        )
    return subset(dataset, num_test=config.num_held_out)


def _work(config: Config, run: RunDirectory) -> Study:
    panels = {}
    for name in config.targets:
        dataset = stages.note_data(run, _load(config, name))
        panels[build_posterior(config, name).title] = [
            measure(config, Cell(name, method), dataset, run) for method in config.methods
        ]
    found = run.environment
    return build_study(panels, f"{found['cpu_count']} x {found['cpu']} ({found['device']})")


if __name__ == "__main__":
    launch(NAME, Config, SCALES, run, __doc__)
