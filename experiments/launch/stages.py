"""Parts of an experiment that are computed once: an interrupted run finds them finished."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from bnn_adv.compute import files, parallel
from bnn_adv.compute.identity import compare
from bnn_adv.inference import InferenceResult
from bnn_adv.networks import get_apply_fn, init_params
from bnn_adv.posteriors.decision import DecisionRule
from bnn_adv.posteriors.posterior import Posterior, hash_draws, load_posterior, save_posterior
from experiments.launch.run_directory import RunDirectory

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SOURCES = "__sources__"
"""Name of the array that says what the others of a stage were computed from."""


class StageError(OSError):
    """Say that a stage's file is not what this run has computed."""


def cached(run: RunDirectory, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the JSON values of a stage, from an earlier start of the run where there are any.

    Args:
      run: The run.
      name: The stage; letters, digits, ``-`` and ``_``.
      compute: Computes them.

    Raises:
      ValueError: The name has other characters.
      StageError: They were computed from other settings or other draws.
    """
    stored = f"partial/{_check(name)}.json"
    if not parallel.agree((run.path / stored).exists()):
        with _timed(run, name):
            value = compute()
        run.write(files.write_json, stored, wrap(value, sources(run)))
    # Also what was just computed comes from the file: lists are lists on either path.
    return unwrap(run, stored, files.read_json(run.path / stored))


def cached_arrays(
    run: RunDirectory, name: str, compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return the arrays of a stage, see ``cached``."""
    stored = f"partial/{_check(name)}.npz"
    if not parallel.agree((run.path / stored).exists()):
        with _timed(run, name):
            arrays = compute()
        text = np.array(json.dumps(sources(run)))
        run.write(files.write_arrays, stored, {**arrays, _SOURCES: text})
    arrays = files.read_arrays(run.path / stored)
    there = str(arrays.pop(_SOURCES, "{}"))
    check_sources(run, stored, json.loads(there))
    return arrays


def sources(run: RunDirectory) -> dict[str, str]:
    """Return what a stage is computed from: the run's settings, and the draws it has read."""
    return {"settings": run.identity, **run.draws}


def wrap(value: Any, there: dict[str, str]) -> dict[str, Any]:
    """Return what the file of a stage holds: its value, and what it was computed from."""
    return {"sources": there, "value": value}


def unwrap(run: RunDirectory, name: str, record: Any) -> Any:
    """Return the value of a stage's file, checked against the run.

    Raises:
      StageError: It was computed from something else.
    """
    if not isinstance(record, dict) or not {"sources", "value"} <= set(record):
        record = {"sources": {}, "value": record}
    check_sources(run, name, record["sources"])
    return record["value"]


def check_sources(run: RunDirectory, name: str, there: dict[str, str]) -> None:
    """Raise unless a stage's file was computed from the run's settings and draws.

    Draws that this start has not read are not compared: where all that follows from them is
    finished, nobody reads them again.

    Raises:
      StageError: Something differs; the message names it.
    """
    here = sources(run)
    both = {source: there.get(source, "nothing") for source in {"settings", *there} & set(here)}
    if changed := compare(both, {source: here[source] for source in both}):
        raise StageError(
            f"{run.path / name} was computed from something else: {changed}. "
            "Delete it to compute it again."
        )


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

    Raises:
      StageError: The draws are not those of this run, or their file was replaced.
    """
    record, draws = f"posterior/{_check(name)}.json", f"posterior/{name}.npz"
    if not parallel.agree((run.path / record).exists()):
        with _timed(run, name) as seconds:
            result = train()
            jax.block_until_ready(result.posterior.samples)
        run.write(save_posterior, draws, result.posterior)
        # Last: its presence says that the draws are complete.
        values = {
            **result.diagnostics,
            "training_seconds": seconds(),
            **seal(run, {name: result.posterior}),
        }
        run.write(files.write_json, record, values)
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), network, input_shape))
    loaded = load_posterior(run.path / draws, get_apply_fn(network), expected)
    posterior = Posterior(
        loaded.apply_fn, loaded.samples, precision=precision, decision_rule=decision_rule
    )
    diagnostics = break_seal(run, record, files.read_json(run.path / record), {name: loaded})
    return posterior, diagnostics


def seal(run: RunDirectory, posteriors: Mapping[str, Posterior]) -> dict[str, Any]:
    """Return what the record of a training says beside its numbers: settings and draws."""
    hashes = {name: hash_draws(posterior) for name, posterior in posteriors.items()}
    return {"sources": {"settings": run.identity}, "draws_hash": hashes}


def break_seal(
    run: RunDirectory, name: str, record: dict[str, Any], posteriors: Mapping[str, Posterior]
) -> dict[str, Any]:
    """Return the numbers of a training's record, whose draws must be the given ones.

    Raises:
      StageError: They are not those of this run, or were replaced.
    """
    there = {key: record[key] for key in ("sources", "draws_hash") if key in record}
    check_sources(run, name, there.get("sources", {}))
    hashes = {key: hash_draws(posterior) for key, posterior in posteriors.items()}
    for key, found in hashes.items():
        trained = there.get("draws_hash", {}).get(key)
        if trained != found:
            raise StageError(
                f"The draws {run.path / 'posterior' / key} were replaced: {name} was written with "
                f"draws of the hash {trained}, they have {found}. Put them back, or delete both "
                "to train again."
            )
    run.draws |= hashes
    return {key: value for key, value in record.items() if key not in there}


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
