"""Deep ensembles under attack, by number of members: Table 2's ensemble as a curve.

  python -m experiments.ensembles --scale=cpu --workdir=runs/ensembles
  python -m experiments.ensembles --dataset=mnist --architecture=fc --hidden=64 --sizes=1,2,5,10

All members are trained side by side; an ensemble of S is the first S of them. The same command
continues a run that was stopped.
"""

from __future__ import annotations

from typing import Any

from experiments.ensembles.config import SCALES, Config
from experiments.ensembles.measure import build, load_data, measure_all
from experiments.ensembles.report import build_study
from experiments.launch.checks import check_inputs
from experiments.launch.run_directory import RunDirectory
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Study

NAME = "ensembles"
_TABLE2 = {"dataset": "mnist", "architecture": "conv", "hidden": 512}


def run(config: Config, workdir: str, *, scale: str = "") -> dict[str, Any]:
    """Fill a run directory and return its results.

    Raises:
      ValueError: The data or network do not allow the run, or the folder holds another one.
      OSError: The folder cannot be written to.
    """
    return run_study(NAME, config, workdir, _work, scale=scale, check=check)


def check(config: Config) -> None:
    """Raise unless there are as many images as are asked for, which the network takes.

    Raises:
      ValueError: The message names what is wrong.
    """
    dataset = load_data(config)
    network = build(config, dataset.num_classes)
    check_inputs(network, dataset, flag=f"--architecture={config.architecture}")


def _work(config: Config, run: RunDirectory) -> Study:
    return build_study(
        measure_all(config, run),
        setting=f"{config.dataset}, {config.architecture} of {config.hidden}",
        is_paper_network=all(getattr(config, name) == value for name, value in _TABLE2.items()),
    )


if __name__ == "__main__":
    launch(NAME, Config, SCALES, run, __doc__)
