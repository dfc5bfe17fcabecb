"""Parts of an experiment that are computed once: an interrupted run finds them finished."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from bnn_adv import files, parallel
from bnn_adv.decision import DecisionRule
from bnn_adv.inference import InferenceResult
from bnn_adv.networks import get_apply_fn, init_params
from bnn_adv.posterior import Posterior, load_posterior, save_posterior
from experiments.run_directory import RunDirectory

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def cached(run: RunDirectory, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the JSON values of a stage, from an earlier start of the run where there are any.

    Args:
      run: The run.
      name: The stage; letters, digits, ``-`` and ``_``.
      compute: Computes them.

    Raises:
      ValueError: The name has other characters.
    """
    stored = f"partial/{_check(name)}.json"
    if not parallel.agree((run.path / stored).exists()):
        with _timed(run, name):
            value = compute()
        run.write(files.write_json, stored, value)
    # Also what was just computed comes from the file: lists are lists on either path.
    return files.read_json(run.path / stored)


def cached_arrays(
    run: RunDirectory, name: str, compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return the arrays of a stage, see ``cached``."""
    stored = f"partial/{_check(name)}.npz"
    if not parallel.agree((run.path / stored).exists()):
        with _timed(run, name):
            arrays = compute()
        run.write(files.write_arrays, stored, arrays)
    return files.read_arrays(run.path / stored)


def cached_posterior(
    run: RunDirectory,
    name: str,
    network: nn.Module,
    input_shape: tuple[int, ...],
    train: Callable[[], InferenceResult],
    *,
    precision: str = "highest",
    decision_rule: DecisionRule = "mean_probabilities",
) -> tuple[Posterior, dict[str, Any]]:
    """Return draws and diagnostics of a training, from an earlier start where there are any.

    Args:
      run: The run.
      name: The stage, see ``cached``.
      network: What is trained.
      input_shape: Shape of one input.
      train: Trains it.
      precision: Of the posterior's matrix products.
      decision_rule: How its draws make a prediction.

    Returns:
      The posterior; the method's diagnostics with ``"training_seconds"``.
    """
    record, draws = f"posterior/{_check(name)}.json", f"posterior/{name}.npz"
    if not parallel.agree((run.path / record).exists()):
        with _timed(run, name) as seconds:
            result = train()
            jax.block_until_ready(result.posterior.samples)
        run.write(save_posterior, draws, result.posterior)
        # Last: its presence says that the draws are complete.
        values = {**result.diagnostics, "training_seconds": seconds()}
        run.write(files.write_json, record, values)
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), network, input_shape))
    loaded = load_posterior(run.path / draws, get_apply_fn(network), expected)
    posterior = Posterior(
        loaded.apply_fn, loaded.samples, precision=precision, decision_rule=decision_rule
    )
    return posterior, files.read_json(run.path / record)


def spent(run: RunDirectory) -> float:
    """Return the seconds that all stages of a run took, over all its starts."""
    return run.sum_logged("stage_seconds")


@contextmanager
def _timed(run: RunDirectory, name: str) -> Iterator[Callable[[], float]]:
    started = time.monotonic()

    def seconds() -> float:
        return round(time.monotonic() - started, 2)

    yield seconds
    run.log(stage=name, stage_seconds=seconds())


def _check(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"A stage is named by letters, digits, hyphens and underscores, got {name!r}."
        )
    return name
