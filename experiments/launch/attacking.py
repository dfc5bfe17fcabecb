"""Attack one trained model by every suite and make its row of the table."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

import numpy as np
from jax.sharding import Mesh

from bnn_adv.attacks.threat import THREATS
from bnn_adv.compute import files, parallel
from bnn_adv.compute.canonical import digest
from bnn_adv.compute.checkpoint import Checkpoints, NoCheckpoints
from bnn_adv.compute.progress import Report, progress
from bnn_adv.data import Dataset
from bnn_adv.evaluation import Settings, evaluate_fresh, metrics, run_suite
from bnn_adv.evaluation.confirmation import confirm
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.networks import count_params
from bnn_adv.posteriors.decision import NO_CLASS, predicted_class
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from bnn_adv.report import Example
from experiments.launch import stages
from experiments.launch.compare_config import CompareConfig
from experiments.launch.methods import Row
from experiments.launch.run_directory import RunDirectory
from experiments.launch.training import Trained

_NUM_EXAMPLES = 4


def attack_or_load(
    config: CompareConfig,
    method: Row,
    trained: Trained,
    dataset: Dataset,
    run: RunDirectory,
    mesh: Mesh | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a model's row and its adversarial arrays, from an earlier start where there are any.

    Returns:
      The row as JSON values; arrays by ``model/suite/attack``, each with inputs [N, ...], and
      the same name with ``/success``, booleans [N].
    """
    model = method.name
    names = [f"partial/{model}{end}" for end in (".json", ".npz")]
    row_path, arrays_path = (run.path / name for name in names)
    if parallel.agree(row_path.exists()):
        stored = stages.unwrap(run, names[0], files.read_json(row_path))
        row, arrays = stored["row"], files.read_arrays(arrays_path)
        if stored["arrays"] != (found := digest(arrays, "arrays")):
            raise stages.StageError(
                f"{arrays_path} was replaced: {names[0]} was written with arrays of the hash "
                f"{stored['arrays']}, they have {found}. Delete both to attack again."
            )
        _confirm(config, trained.posterior, dataset, arrays)
        return row, arrays
    # One for all suites: each may be shorter than the time between checkpoints.
    checkpoints = run.checkpoints(f"{model}-attacks", config.checkpoint_every)
    keeper = checkpoints or NoCheckpoints()
    with keeper.session(f"attacks on {model}"):
        row, arrays = attack_model(config, method, trained, dataset, run, mesh, checkpoints)
    run.write(files.write_arrays, names[1], arrays)
    record = {"row": row, "arrays": digest(arrays, "arrays")}
    run.write(files.write_json, names[0], stages.wrap(record, stages.sources(run)))
    if checkpoints is not None:
        checkpoints.remove()
    return row, arrays


def _confirm(
    config: CompareConfig,
    posterior: Posterior,
    dataset: Dataset,
    arrays: dict[str, np.ndarray],
) -> None:
    """Pass images that an earlier start has found through the referee once more."""
    settings = Settings(config.batch_size)
    clean = _log_probs(posterior, dataset.x_test, settings)
    for name, images in arrays.items():
        if not name.endswith("/success"):
            classes = predicted_class(_log_probs(posterior, images, settings))
            confirm(
                posterior,
                dataset.x_test,
                dataset.y_test,
                images,
                threat=THREATS[config.norm](config.epsilon),
                clean_correct=predicted_class(clean) == dataset.y_test,
                misclassified=arrays[f"{name}/success"] & (classes != NO_CLASS),
            )


def attack_model(
    config: CompareConfig,
    method: Row,
    trained: Trained,
    dataset: Dataset,
    run: RunDirectory,
    mesh: Mesh | None = None,
    checkpoints: Checkpoints | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Run every suite on a model; see ``attack_or_load`` for what comes back."""
    started, model = time.monotonic(), method.name
    posterior, fresh = trained.posterior, trained.fresh
    x, y = dataset.x_test, dataset.y_test
    chunk = min(config.sample_chunk, posterior.num_samples // posterior.shards) or None
    settings = Settings(config.batch_size, chunk, mesh)
    threat = THREATS[config.norm](config.epsilon)
    row: dict[str, Any] = {
        "model": model,
        "network": method.describe(),
        "num_parameters": count_params(posterior.take([0]).samples),
        "num_samples": posterior.num_samples,
        "decision_rule": posterior.decision_rule,
        "draws_hash": run.draws[model],
        **_clean_accuracy(posterior, x, y, settings),
        "protocols": {},
        "fresh": None,
        "diagnostics": trained.diagnostics,
    }
    if fresh is not None:
        row["fresh"] = {
            "num_samples": fresh.num_samples,
            **_clean_accuracy(fresh, x, y, settings),
            "protocols": {},
        }
    arrays = {}
    for name in config.suites:
        with progress(f"{model}: {name}", "image-steps") as report:
            result = run_suite(
                method.key(config.seed, 1),
                get_suite(name),
                posterior,
                x,
                y,
                threat=threat,
                settings=dataclasses.replace(settings, checkpoints=checkpoints),
                progress=functools.partial(_report_steps, report),
            )
        row["protocols"][name] = result.to_dict()
        if fresh is not None:
            row["fresh"]["protocols"][name] = evaluate_fresh(result, fresh, y, settings=settings)
        for attack, images in result.adversarial.items():
            arrays[f"{model}/{name}/{attack}"] = images
            arrays[f"{model}/{name}/{attack}/success"] = _fooled(posterior, images, y, settings)
        run.log(model=model, stage="attack", suite=name, **_scalars(result.to_dict()))
    seconds = time.monotonic() - started if checkpoints is None else checkpoints.seconds
    row["seconds"] = {
        "training": trained.diagnostics["training_seconds"],
        "evaluation": round(seconds, 1),
    }
    return row, arrays


def _clean_accuracy(
    posterior: Posterior, x: np.ndarray, y: np.ndarray, settings: Settings
) -> dict[str, Any]:
    share = metrics.accuracy(_log_probs(posterior, x, settings), y)
    return {
        "accuracy": share,
        "accuracy_interval": list(metrics.wilson_interval(share, len(y))),
    }


def _fooled(posterior: Posterior, x: np.ndarray, y: np.ndarray, settings: Settings) -> np.ndarray:
    return predicted_class(_log_probs(posterior, x, settings)) != y


def _log_probs(posterior: Posterior, x: np.ndarray, settings: Settings) -> np.ndarray:
    return parallel.to_host(
        predict_log_probs(
            posterior,
            parallel.replicate(x, settings.mesh),
            sample_chunk=settings.sample_chunk,
            batch_size=settings.batch_size,
        )
    )


def _report_steps(report: Report, attack: str, done: int, total: int) -> None:
    report(done, total, label=attack)


def _scalars(record: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in record.items() if isinstance(value, float)}


def describe_examples(
    config: CompareConfig,
    method: Row,
    trained: Trained,
    dataset: Dataset,
    adversarial: dict[str, np.ndarray],
    mesh: Mesh | None = None,
) -> list[Example]:
    """Return a few test images under the last suite's last attack.

    The images are drawn by seed, never chosen by what the attack achieved.
    """
    count = min(_NUM_EXAMPLES, len(dataset.y_test))
    picked = np.random.default_rng(config.seed).choice(len(dataset.y_test), count, replace=False)
    rows = np.sort(picked)
    attack = [name for name in adversarial if not name.endswith("/success")][-1]
    settings = Settings(config.batch_size, mesh=mesh)
    clean = np.exp(_log_probs(trained.posterior, dataset.x_test[rows], settings))
    fooled = np.exp(_log_probs(trained.posterior, adversarial[attack][rows], settings))
    return [
        Example(
            index=int(row),
            label=int(dataset.y_test[row]),
            clean=dataset.x_test[row],
            clean_prediction=int(predicted_class(clean[i])),
            clean_probability=float(clean[i].max()),
            adversarial=adversarial[attack][row],
            adversarial_prediction=int(predicted_class(fooled[i])),
            adversarial_probability=float(fooled[i].max()),
            model=method.name,
            attack=attack.split("/", 1)[1],
        )
        for i, row in enumerate(rows)
    ]
