"""Half moons: expected loss gradients of a grid of HMC networks, and their true robustness.

  python -m experiments.half_moons --scale=cpu --workdir=runs/half_moons
  python -m experiments.half_moons --hidden=32,64 --num_train=5000 --num_warmup=200

Figure 1 of the paper (grid: the supplement's figure 5), and beside it networks whose chains mix by
longer trajectories (``--mixed_hidden``). In two dimensions a dense grid of inputs
finds what no attack can hide, so that every attack is held against the truth. Networks are trained,
measured and attacked one by one: the same command continues a run that was stopped.
"""

from __future__ import annotations

from typing import Any

from experiments.half_moons.config import SCALES, Config
from experiments.half_moons.measure import measure_all
from experiments.half_moons.report import build_study
from experiments.launch.run_directory import RunDirectory
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Study


def run(config: Config, workdir: str, *, scale: str = "") -> dict[str, Any]:
    """Fill a run directory and return its results.

    Raises:
      ValueError: The folder holds another run.
      OSError: The folder cannot be written to.
    """
    return run_study("half_moons", config, workdir, _work, scale=scale)


def _work(config: Config, run: RunDirectory) -> Study:
    return build_study(measure_all(config, run), least_accuracy=config.least_accuracy)


if __name__ == "__main__":
    launch("half_moons", Config, SCALES, run, __doc__)
