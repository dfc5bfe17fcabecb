"""Compare certificates with those of other public tools, each in an environment of its own.

  python -m experiments.certifiers --scale=cpu --venvs=venvs --workdir=runs/certifiers

Margins of trained networks by this package and by auto_LiRPA on the same boxes; what jax_verify and
immrax do under the JAX that is current; deepbayes on cases whose answers are known. The README says
what to install. The same command resumes a run that was stopped.
"""

from __future__ import annotations

from typing import Any

from experiments.certifiers.config import SCALES, Config
from experiments.certifiers.measure import measure_all
from experiments.certifiers.report import build_study
from experiments.launch.run_directory import RunDirectory
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Study

__all__ = ["SCALES", "Config", "run"]


def run(config: Config, workdir: str, *, scale: str = "") -> dict[str, Any]:
    """Fill a run directory and return its results.

    Args:
      config: Every setting.
      workdir: The run directory.
      scale: Name of the scale, for the record.

    Raises:
      ValueError: The folder holds another run, or a tool's environment cannot run its script.
      OSError: The folder cannot be written to.
    """
    return run_study("certifiers", config, workdir, _work, scale=scale)


def _work(config: Config, run: RunDirectory) -> Study:
    return build_study(measure_all(config, run))


if __name__ == "__main__":
    launch("certifiers", Config, SCALES, run, __doc__)
