"""Turn a row of the table into a trained posterior."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from bnn_adv.compute import files, parallel
from bnn_adv.compute.disk import DiskDraws, store_in
from bnn_adv.compute.progress import progress
from bnn_adv.data import Dataset
from bnn_adv.inference.base import RunOptions, keep_on_device
from bnn_adv.inference.densities import Data
from bnn_adv.networks import get_apply_fn, init_params
from bnn_adv.posteriors.posterior import Posterior, load_posterior, save_posterior, shard_posterior
from experiments.launch import stages
from experiments.launch.checks import check_inputs
from experiments.launch.compare_config import DataConfig
from experiments.launch.methods import Row
from experiments.launch.run_directory import RunDirectory

_HELD_OUT = 200
"""Test points on which chains are diagnosed."""


class Trained(NamedTuple):
    """A trained model.

    posterior: Draws that the attacker knows.
    fresh: Other draws of the same posterior, or None where none can be drawn.
    diagnostics: The method's record, with the seconds that training took.
    """

    posterior: Posterior
    fresh: Posterior | None
    diagnostics: dict[str, Any]


def check_networks(rows: Sequence[Row], dataset: Dataset) -> None:
    """Raise unless every row's network takes the data set's inputs, and its likelihood labels.

    Raises:
      ValueError: The message names the network and the inputs' shape, or the likelihood.
    """
    for row in rows:
        likelihood = getattr(row.config, "likelihood", "categorical")
        if likelihood == "gaussian":
            raise ValueError(
                f"--{row.name}.likelihood={likelihood} is for real targets; the labels of "
                f"{dataset.name} are classes: leave it out."
            )
        check_inputs(
            row.build(dataset.num_classes),
            dataset,
            flag=f"--network={row.network_name}",
            instead="--network=mlp",
        )


def train_or_load(
    config: DataConfig, row: Row, dataset: Dataset, run: RunDirectory, mesh: Mesh | None
) -> Trained:
    """Train a row's posterior, or read it back where an earlier start of the run has trained it."""
    network, model = row.build(dataset.num_classes), row.name
    record = f"posterior/{model}.json"
    if not parallel.agree((run.path / record).exists()):
        _train(config, row, network, dataset, run, record, mesh)
    expected = jax.eval_shape(
        lambda: init_params(jax.random.key(0), network, dataset.x_train.shape[1:])
    )
    apply_fn = get_apply_fn(network)
    options: dict[str, Any] = {
        "precision": config.precision,
        "decision_rule": row.decision_rule,
    }

    def load(name: str) -> Posterior | None:
        path = run.path / "posterior" / name
        if path.is_dir():
            return Posterior(apply_fn, DiskDraws(path, expected), **options)
        if not path.with_suffix(".npz").exists():
            return None
        posterior = load_posterior(path.with_suffix(".npz"), apply_fn, expected)
        return dataclasses.replace(posterior, **options)

    posterior, fresh = load(model), load(f"{model}_fresh")
    if posterior is None:
        raise FileNotFoundError(
            f"{run.path / 'posterior'} holds the record of {model} and not its draws: delete "
            f"{record} there to train it again."
        )
    loaded = {model: posterior} if fresh is None else {model: posterior, f"{model}_fresh": fresh}
    diagnostics = stages.break_seal(run, record, files.read_json(run.path / record), loaded)
    on_mesh = None if fresh is None else _place(fresh, mesh)
    return Trained(_place(posterior, mesh), on_mesh, diagnostics)


def _place(posterior: Posterior, mesh: Mesh | None) -> Posterior:
    """Split the draws over the mesh where they can be; one network is not."""
    if isinstance(posterior.samples, DiskDraws):
        return posterior
    if parallel.shards(mesh, posterior.num_samples, "draws") > 1:
        return shard_posterior(posterior, mesh)
    return dataclasses.replace(posterior, samples=parallel.replicate(posterior.samples, mesh))


def _train(
    config: DataConfig,
    row: Row,
    network: nn.Module,
    dataset: Dataset,
    run: RunDirectory,
    record: str,
    mesh: Mesh | None,
) -> None:
    model = row.name
    data = Data(jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train))
    held_out = Data(
        jnp.asarray(dataset.x_test[:_HELD_OUT]), jnp.asarray(dataset.y_test[:_HELD_OUT])
    )
    started, folder = time.monotonic(), run.path / "posterior"
    checkpoints = run.checkpoints(f"{model}-training", config.checkpoint_every)
    with progress(f"{model}: training", getattr(row.method.module, "UNIT", "steps")) as report:

        def log(done: int, total: int, numbers: dict[str, float]) -> None:
            run.log(model=model, stage="training", done=done, total=total, **numbers)
            report(done, total, numbers)

        result = row.method.module.run(
            row.key(config.seed, 0),
            network,
            data,
            row.config,
            RunOptions(
                held_out=held_out,
                progress=log,
                checkpoints=checkpoints,
                mesh=mesh,
                store=store_in(folder / model) if config.draws_on_disk else keep_on_device,
            ),
        )
    trained = {model: result.posterior}
    if result.sample is not None and config.fresh:
        fresh = result.sample(row.key(config.seed, 2), result.posterior.num_samples)
        _save(run, f"{model}_fresh", fresh, on_disk=config.draws_on_disk)
        trained[f"{model}_fresh"] = fresh
    if not config.draws_on_disk:
        _save(run, model, result.posterior, on_disk=False)
    seconds = time.monotonic() - started if checkpoints is None else checkpoints.seconds
    numbers = {
        **result.diagnostics,
        "decision_rule": row.decision_rule,
        "training_seconds": round(seconds, 1),
        **stages.seal(
            run,
            {
                name: dataclasses.replace(posterior, apply_fn=get_apply_fn(network))
                for name, posterior in trained.items()
            },
        ),
    }
    # Written last: its presence says that the model is complete.
    run.write(files.write_json, record, numbers)
    if checkpoints is not None:
        checkpoints.remove()


def _save(run: RunDirectory, name: str, posterior: Posterior, *, on_disk: bool) -> None:
    if on_disk:
        store_in(run.path / "posterior" / name)(posterior.samples)
    else:
        run.write(save_posterior, f"posterior/{name}.npz", posterior)
