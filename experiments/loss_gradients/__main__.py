"""Measure expected loss gradients against the number of draws (figures 2 and 3 of the paper).

  python -m experiments.loss_gradients --scale=cpu --workdir=runs/loss_gradients
  python -m experiments.loss_gradients --scale=paper --items=mnist-vi --selection=published

Trains HMC (table 3) and VI (table 4) posteriors, and HMC of long trajectories whose chains mix on
fewer images and units (items ``-hmc-mixed``), and takes the gradients of the loss at test images
under every draw: the posterior's own, those of untrained networks, those at shuffled labels, and
those of the loss as published.
"""

from __future__ import annotations

from typing import Any

from experiments.launch.run_directory import RunDirectory
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Study
from experiments.loss_gradients.config import SCALES, Config
from experiments.loss_gradients.measure import check, measure_item
from experiments.loss_gradients.pages import build_study


def run(config: Config, workdir: str, *, scale: str = "") -> dict[str, Any]:
    """Fill a run directory and return its results.

    Raises:
      ValueError: The data do not allow the run, or the folder holds another one.
      OSError: A file cannot be read or written.
    """
    return run_study("loss_gradients", config, workdir, _work, scale=scale, check=check)


def _work(config: Config, run: RunDirectory) -> Study:
    return build_study([measure_item(config, run, name) for name in config.items], config)


if __name__ == "__main__":
    launch("loss_gradients", Config, SCALES, run, __doc__)
