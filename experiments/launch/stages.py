"""Parts of an experiment that are computed once: an interrupted run finds them finished."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from bnn_adv.compute import files, parallel
from bnn_adv.compute.canonical import digest
from bnn_adv.compute.identity import compare
from bnn_adv.data import Dataset, hash_data
from bnn_adv.evaluation.suite_run import define
from bnn_adv.evaluation.suites import Suite
from bnn_adv.inference import InferenceResult
from bnn_adv.networks import get_apply_fn, init_params
from bnn_adv.posteriors.decision import DecisionRule
from bnn_adv.posteriors.posterior import Posterior, hash_draws, load_posterior, save_posterior
from experiments.launch.run_directory import RunDirectory

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_NETWORK = "network of "
_SOURCES = "__sources__"
"""Name of the array that says what the others of a stage were computed from."""


class StageError(OSError):
    """A stage's file is not what this run has computed."""


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
        arrays = {key: np.asarray(value) for key, value in arrays.items()}
        text = json.dumps({"sources": sources(run), "hash": digest(arrays, name)})
        run.write(files.write_arrays, stored, {**arrays, _SOURCES: np.array(text)})
    arrays = files.read_arrays(run.path / stored)
    record = json.loads(str(arrays.pop(_SOURCES, "{}")))
    check_sources(run, stored, record.get("sources", {}))
    _check_hash(run, stored, record.get("hash", "nothing"), digest(arrays, name))
    return arrays


def note_data(run: RunDirectory, dataset: Dataset) -> Dataset:
    """Return a data set, and remember that the stages that follow are computed from it.

    Raises:
      StageError: A stage that was read before was computed from another.
    """
    _note(run, run.noted, f"data {dataset.name}", hash_data(dataset))
    return dataset


def note_chains(run: RunDirectory, dataset: str, draws_hash: str) -> None:
    """Remember whose chains the stages that follow take, where another run has sampled them.

    Raises:
      StageError: A stage that was read before has taken others.
    """
    _note(run, run.noted, f"chains of {dataset}", draws_hash)


def note_suites(run: RunDirectory, suites: Iterable[Suite]) -> None:
    """Remember that the stages that follow run these suites, as they are defined today.

    Raises:
      StageError: A stage that was read before has run another.
    """
    for suite in suites:
        _note(run, run.suites, f"suite {suite.name}", digest(define(suite), suite.name))


def _note(run: RunDirectory, into: dict[str, str], name: str, found: str) -> None:
    _check_claim(run, name, found, "this start")
    into[name] = found


def sources(run: RunDirectory) -> dict[str, str]:
    """Return what a stage is computed from: settings, what was noted, and the draws read."""
    return {"settings": run.identity, **run.noted, **run.suites, **run.draws}


def wrap(value: Any, there: dict[str, str]) -> dict[str, Any]:
    """Return what the file of a stage holds: its value with its hash, and its sources."""
    return {"sources": there, "hash": _hash_json(value), "value": value}


def unwrap(run: RunDirectory, name: str, record: Any) -> Any:
    """Return the value of a stage's file, checked against the run.

    Raises:
      StageError: It was computed from something else, or was edited.
    """
    if not isinstance(record, dict) or not {"sources", "hash", "value"} <= set(record):
        record = {"sources": {}, "hash": "nothing", "value": record}
    check_sources(run, name, record["sources"])
    _check_hash(run, name, record["hash"], _hash_json(record["value"]))
    return record["value"]


def _hash_json(value: Any) -> str:
    # As it is read back: a tuple is a list there.
    return digest(json.loads(json.dumps(value)), "value")


def _check_hash(run: RunDirectory, name: str, there: str, found: str) -> None:
    if there != found:
        raise StageError(
            f"{run.path / name} was edited: it was written with the hash {there}, its values have "
            f"{found}. Delete it to compute it again."
        )


def check_sources(run: RunDirectory, name: str, there: dict[str, str]) -> None:
    """Raise unless a stage's file was computed from the run's settings, data and draws.

    Where all that follows from draws is finished, nobody reads them again. The files of stages must
    agree on them even so, and with the draws if they are read later.

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
    for source in there.keys() - here.keys():
        _check_claim(run, source, there[source], str(run.path / name))
        run.claimed[source] = there[source], str(run.path / name)


def _check_claim(run: RunDirectory, source: str, found: str, name: str) -> None:
    """Raise where a stage's file that was read before says that it comes from something else."""
    claimed, by = run.claimed.get(source, (found, name))
    if claimed != found:
        raise StageError(
            f"{by} was computed from other data or draws than {name}: {source} {claimed!r} there, "
            f"{found!r} here. Delete it to compute it again."
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
      StageError: The draws are not those of this run, or their file was replaced or is damaged.
    """
    record, draws = f"posterior/{_check(name)}.json", f"posterior/{name}.npz"
    if not parallel.agree((run.path / record).exists()):
        with _timed(run, name) as seconds:
            result = train()
            jax.block_until_ready(result.posterior.samples)
        run.write(save_posterior, draws, result.posterior)
        # Last: its presence says that the draws are complete.
        values = {
            "training_seconds": seconds(),
            # Draws that another run has sampled say how long that took.
            **result.diagnostics,
            **seal(run, {name: Posterior(get_apply_fn(network), result.posterior.samples)}),
        }
        run.write(files.write_json, record, values)
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), network, input_shape))
    with _reading():
        loaded = load_posterior(run.path / draws, get_apply_fn(network), expected)
        stored = files.read_json(run.path / record)
    posterior = Posterior(
        loaded.apply_fn, loaded.samples, precision=precision, decision_rule=decision_rule
    )
    diagnostics = break_seal(run, record, stored, {name: loaded})
    return posterior, diagnostics


def seal(run: RunDirectory, posteriors: Mapping[str, Posterior]) -> dict[str, Any]:
    """Return what the record of a training says beside its numbers: sources and draws."""
    hashes = {name: hash_draws(posterior) for name, posterior in posteriors.items()}
    there = {"settings": run.identity, **run.noted, **_networks(posteriors)}
    return {"sources": there, "draws_hash": hashes}


def networks_claimed(run: RunDirectory) -> dict[str, str]:
    """Return the hashes of networks that stages were computed from and this start has not read."""
    return {
        source: found for source, (found, _) in run.claimed.items() if source.startswith(_NETWORK)
    }


def _networks(posteriors: Mapping[str, Posterior]) -> dict[str, str]:
    return {
        f"{_NETWORK}{name}": digest(posterior.apply_fn, name)
        for name, posterior in posteriors.items()
    }


def break_seal(
    run: RunDirectory, name: str, record: dict[str, Any], posteriors: Mapping[str, Posterior]
) -> dict[str, Any]:
    """Return the numbers of a training's record, whose draws must be the given ones.

    Raises:
      StageError: They are not those of this run or of its network, or were replaced.
    """
    there = {key: record[key] for key in ("sources", "draws_hash") if key in record}
    for network, found in _networks(posteriors).items():
        _note(run, run.noted, network, found)
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
        _check_claim(run, key, found, str(run.path / name))
    run.draws |= hashes
    return {key: value for key, value in record.items() if key not in there}


def spent(run: RunDirectory) -> float:
    """Return the seconds that all stages of a run took, over all its starts."""
    return run.sum_logged("stage_seconds")


@contextmanager
def _reading() -> Iterator[None]:
    """Say of a file that cannot be read that it is this run's: it is no failure of a training."""
    try:
        yield
    except ValueError as error:
        raise StageError(str(error)) from error


@contextmanager
def _timed(run: RunDirectory, name: str) -> Iterator[Callable[[], float]]:
    started = time.monotonic()

    def seconds() -> float:
        return round(time.monotonic() - started, 2)

    yield seconds
    # Of parts beside each other the whole is timed, see apart.
    entry = "part_seconds" if run.is_apart else "stage_seconds"
    run.log(stage=name, **{entry: seconds()})


def _check(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"A stage is named by letters, digits, hyphens and underscores, got {name!r}."
        )
    return name
