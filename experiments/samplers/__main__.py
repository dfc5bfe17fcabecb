"""Every chain method on the same posteriors: R-hat, effective draws per gradient and per second.

  python -m experiments.samplers --scale=cpu --workdir=runs/samplers
  python -m experiments.samplers --scale=mnist --data_dir=data --workdir=runs/samplers_mnist
  python -m experiments.samplers --targets=mnist_6000 --hidden=128 --methods=hmc,mclmc

Methods have equal budgets of gradients of all data. Each is run, and judged, as a stage of its own:
the same command continues a run that was stopped.
"""

from __future__ import annotations

import functools
from typing import Any

from experiments.launch import stages
from experiments.launch.apart import share_devices, work_apart
from experiments.launch.run_directory import RunDirectory
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Study
from experiments.samplers.config import SCALES, Config, build_posterior
from experiments.samplers.measure import Cell, fill, load, measure
from experiments.samplers.report import build_study

NAME = "samplers"


def run(config: Config, workdir: str, *, scale: str = "") -> dict[str, Any]:
    """Fill a run directory and return its results.

    Raises:
      ValueError: The data do not allow the run, or the folder holds another one.
      OSError: A file cannot be read or written.
    """
    share_devices(config.jobs)
    return run_study(NAME, config, workdir, _work, scale=scale, check=check)


def check(config: Config) -> None:
    """Raise unless there are as many examples as are asked for, and targets differ.

    Raises:
      ValueError: The message names what is wrong.
    """
    names: dict[str, str] = {}
    for name in config.targets:
        title = build_posterior(config, name).title
        if title in names:
            raise ValueError(
                f"--targets={names[title]},{name} with --num_train={config.num_train} are the same "
                f"posterior, {title}: leave one of them out, or --num_train."
            )
        names[title] = name
    for name in config.targets:
        load(config, name)


def _work(config: Config, run: RunDirectory) -> Study:
    if config.jobs > 1:
        cells = [Cell(name, method) for name in config.targets for method in config.methods]
        work_apart(functools.partial(fill, config), run, cells, config.jobs)
    panels = {}
    for name in config.targets:
        dataset = stages.note_data(run, load(config, name))
        panels[build_posterior(config, name).title] = [
            measure(config, Cell(name, method), dataset, run) for method in config.methods
        ]
    found = run.environment
    return build_study(panels, f"{found['cpu_count']} x {found['cpu']} ({found['device']})")


if __name__ == "__main__":
    launch(NAME, Config, SCALES, run, __doc__)
