"""What averaging over a posterior is worth under attack: where it ends, and what of it does it.

  python -m experiments.bayesian_gain --scale=digits --workdir=runs/gain_digits
  python -m experiments.bayesian_gain --scale=cpu --data_dir=data --workdir=runs/gain

On equal data and networks: one network, deep ensembles, modes of the posterior, VI, Laplace, SWAG,
cyclical SGMCMC and HMC, warm and cold; accuracy under a strong suite against the radius and the
number of draws, with draws that the attacker knows and with others. The same command continues a
run that was stopped.
"""

from __future__ import annotations

from typing import Any

from experiments.bayesian_gain.config import SCALES, Config
from experiments.bayesian_gain.measure import check_sampled, load, measure_all, open_work
from experiments.bayesian_gain.report import build_study
from experiments.launch.apart import share_devices
from experiments.launch.run_directory import RunDirectory
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Study

NAME = "bayesian_gain"


def run(config: Config, workdir: str, *, scale: str = "") -> dict[str, Any]:
    """Fill a run directory and return its results.

    Raises:
      ValueError: The data do not allow the run, or the folder holds another one.
      OSError: The folder cannot be written to.
    """
    share_devices(config.jobs)
    return run_study(NAME, config, workdir, _work, scale=scale, check=check)


def check(config: Config) -> None:
    """Raise unless there are as many images as are asked for, and chains that fit them.

    Raises:
      ValueError: The message names what is wrong.
    """
    check_sampled(config, load(config))


def _work(config: Config, run: RunDirectory) -> Study:
    return build_study(list(measure_all(open_work(config, run))), config)


if __name__ == "__main__":
    launch(NAME, Config, SCALES, run, __doc__)
