"""Measure the theory of the paper's supplement, sections 9 and 10, on manifolds that are known.

  python -m experiments.geometry --scale=cpu --workdir=runs/geometry

Four parts: global convergence; gradients along and across a manifold (Lemma 3, Corollary 2);
weights with the opposite normal gradient, constructed (Lemma 4); and what is left of the normal
gradient in the mean over a posterior. The same command resumes a run that was stopped.
"""

from __future__ import annotations

from typing import Any

from experiments.geometry.config import SCALES, Config
from experiments.geometry.posteriors import measure_posteriors
from experiments.geometry.report import build_study
from experiments.geometry.training import measure_convergence, measure_dimension, measure_mirror
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
      ValueError: The folder holds another run.
      OSError: The folder cannot be written to.
    """
    return run_study("geometry", config, workdir, _work, scale=scale)


def _work(config: Config, run: RunDirectory) -> Study:
    return build_study(
        {
            "convergence": measure_convergence(config, run),
            "dimension": measure_dimension(config, run),
            "mirror": measure_mirror(config, run),
            "posteriors": measure_posteriors(config, run),
        }
    )


if __name__ == "__main__":
    launch("geometry", Config, SCALES, run, __doc__)
