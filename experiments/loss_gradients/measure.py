"""Train the posteriors of the study, and take the gradients of every condition."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.compute.progress import progress
from bnn_adv.data import Dataset, load_dataset
from bnn_adv.evaluation.metrics import accuracy
from bnn_adv.inference import METHODS, InferenceResult, RunOptions
from bnn_adv.inference.densities import Data
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from bnn_adv.theory import gradient_decay, gradients
from bnn_adv.theory.expected_norm import Groups, group_draws
from bnn_adv.theory.gradients import LossGradients
from experiments.launch.run_directory import RunDirectory
from experiments.launch.sampled import SampledRun, find_runs
from experiments.launch.stages import cached, cached_arrays, cached_posterior, note_data
from experiments.loss_gradients.config import (
    Config,
    Item,
    build_item,
    read_counts,
)
from experiments.loss_gradients.report import CONDITIONS, POSTERIOR, PRIOR, PUBLISHED_LOSS, SHUFFLED

_HELD_OUT = 200

_TRAIN, _DRAWS, _PRIOR, _LABELS, _ORDERS, _BOOTSTRAP, _SELECTION = range(7)


class Measured(NamedTuple):
    """An item of the study.

    record: Its numbers, ready for JSON.
    dataset: Its data.
    ours: Gradients under the posterior's own draws.
    """

    record: dict[str, Any]
    dataset: Dataset
    ours: LossGradients


def check(config: Config) -> None:
    """Raise unless there are as many examples as are asked for, and runs have what is taken.

    Raises:
      ValueError: The message names what is wrong.
    """
    items = [build_item(config, name) for name in config.items]
    found = {key: _load(config, *key) for key in dict.fromkeys(map(_data_of, items))}
    runs = _find_runs(config)
    for item in items:
        if item.is_mixed and item.dataset in runs:
            run, most = runs[item.dataset], read_counts(config)[-1]
            run.check(item.network, found[_data_of(item)], item.settings, config.data_dir)
            if most > (draws := run.row.config.num_draws):
                raise ValueError(
                    f"--counts must be at most the draws of {run.path} ({draws}), got {most}."
                )


def _find_runs(config: Config) -> Mapping[str, SampledRun]:
    """Return the runs whose chains are taken, by their data."""
    items = [build_item(config, name) for name in config.items]
    return find_runs(config.mixed_runs, [item.dataset for item in items if item.is_mixed])


def _data_of(item: Item) -> tuple[str, int]:
    return item.dataset, item.num_train


def _load(config: Config, name: str, num_train: int) -> Dataset:
    return load_dataset(
        name,
        config.data_dir or None,
        num_train=num_train or None,
        num_test=config.num_test,
        seed=config.seed,
    )


def measure_item(config: Config, run: RunDirectory, name: str) -> Measured:
    """Train an item's posterior and measure it, or read its stages back.

    Args:
      config: Settings of the study.
      run: Where stages are.
      name: Of the item.
    """
    item = build_item(config, name)
    dataset = _note(config, run, item)
    posterior, diagnostics = _train(config, item, dataset, run)
    if item.is_mixed:
        # Those of the draws, which another run may have sampled.
        chains = {"num_chains": diagnostics["num_chains"]}
        item = item._replace(settings=dataclasses.replace(item.settings, **chains))
    found = _measure(config, item, posterior, dataset, run)
    record = _describe(config, item, posterior, dataset, found, diagnostics, run)
    return Measured(record, dataset, found[POSTERIOR])


def _note(config: Config, run: RunDirectory, item: Item) -> Dataset:
    """Return an item's data; a size of its own is noted by a name of its own."""
    dataset, own = _load(config, *_data_of(item)), item.num_train != config.num_train
    name = f"{item.dataset}, {item.num_train} examples" if own else item.dataset
    note_data(run, dataclasses.replace(dataset, name=name))
    return dataset


def _key(config: Config, item: Item, purpose: int) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(config.seed), item.stream)
    return jax.random.fold_in(key, purpose)


def _train(
    config: Config, item: Item, dataset: Dataset, run: RunDirectory
) -> tuple[Posterior, dict[str, Any]]:
    unit = "transitions" if item.method == "hmc" else "minibatches"

    def train() -> InferenceResult:
        if item.is_mixed and (sampled := _find_runs(config).get(item.dataset)):
            return sampled.read(item.network, dataset.input_shape)
        data = Data(jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train))
        held_out = Data(
            jnp.asarray(dataset.x_test[:_HELD_OUT]), jnp.asarray(dataset.y_test[:_HELD_OUT])
        )
        with progress(f"{item.name}: training", unit) as report:
            return METHODS["hmc" if item.method == "hmc" else "svi"].run(
                _key(config, item, _TRAIN),
                item.network,
                data,
                item.settings,
                RunOptions(
                    held_out=held_out,
                    progress=report,
                    checkpoints=run.checkpoints(f"{item.name}-training", config.checkpoint_every),
                ),
            )

    posterior, diagnostics = cached_posterior(
        run, item.name, item.network, dataset.input_shape, train, precision=config.precision
    )
    # VI's draws are independent; those of a chain are not, see shuffle_draws.
    if item.method == "hmc":
        posterior = gradients.shuffle_draws(_key(config, item, _DRAWS), posterior)
    return posterior, diagnostics


def _measure(
    config: Config, item: Item, posterior: Posterior, dataset: Dataset, run: RunDirectory
) -> dict[str, LossGradients]:
    """Return the gradients of every condition; each is a stage of the run."""
    counts, labels = read_counts(config), dataset.y_test
    shuffled = gradients.shuffle_labels(_key(config, item, _LABELS), labels)
    groups = _groups(config, item, posterior.num_samples)

    def take(name: str) -> dict[str, np.ndarray]:
        network = posterior
        if name == PRIOR:
            key = _key(config, item, _PRIOR)
            network = gradients.prior_control(key, posterior, counts[-1], item.settings.prior)
        with progress(f"{item.name}: gradients, {name}", "images") as report:
            result = gradients.expected_loss_gradients(
                _key(config, item, _ORDERS),
                network,
                dataset.x_test,
                shuffled if name == SHUFFLED else labels,
                counts=counts,
                settings=gradients.GradientSettings(
                    loss="double_softmax" if name == PUBLISHED_LOSS else "cross_entropy",
                    num_orders=config.num_orders,
                    groups=groups[name],
                    batch_size=config.batch_size,
                    progress=report,
                ),
            )
        return result._asdict()

    found = {}
    for name in CONDITIONS:
        stage = f"{item.name}-{name.replace(',', '').replace(' ', '-')}"
        arrays = cached_arrays(run, stage, functools.partial(take, name))
        found[name] = LossGradients(**arrays)
    return found


def _groups(config: Config, item: Item, num_draws: int) -> dict[str, Groups]:
    """Return for every condition which of its draws are independent of one another."""
    groups = group_draws(num_draws)
    if item.method == "hmc":
        groups = gradients.shuffle_groups(
            _key(config, item, _DRAWS), group_draws(num_draws, item.settings.num_chains)
        )
    prior = group_draws(read_counts(config)[-1])
    return {name: prior if name == PRIOR else groups for name in CONDITIONS}


def _describe(
    config: Config,
    item: Item,
    posterior: Posterior,
    dataset: Dataset,
    found: dict[str, LossGradients],
    diagnostics: dict[str, Any],
    run: RunDirectory,
) -> dict[str, Any]:
    """Return every number of an item, see ``gradient_study.Record``."""

    def predict() -> dict[str, Any]:
        log_probs = predict_log_probs(posterior, jnp.asarray(dataset.x_test))
        return {"accuracy": accuracy(log_probs, dataset.y_test)}

    groups = _groups(config, item, posterior.num_samples)
    correct = cached(run, f"{item.name}-accuracy", predict)["accuracy"]
    key, norms = _key(config, item, _BOOTSTRAP), found[POSTERIOR].mean_linf[0]
    images = gradients.select_inputs(
        _key(config, item, _SELECTION),
        norms,
        min(config.num_images, len(dataset.x_test)),
        config.selection,
    )
    note = (
        f"{item.size}, {len(dataset.x_train):,} training images, {posterior.num_samples} draws, "
        f"{len(dataset.x_test)} test images, "
        f"accuracy {100 * correct:.1f} %"
    )
    return {
        "title": item.title,
        "name": item.name,
        "note": note,
        "accuracy": correct,
        "num_train": len(dataset.x_train),
        "diagnostics": {
            key: value for key, value in diagnostics.items() if isinstance(value, int | float | str)
        },
        "warnings": diagnostics["warnings"],
        "falling_share": float(np.mean(gradients.falls_throughout(norms))),
        "images": images.tolist(),
        "image_norms": norms[:, images].T.tolist(),
        "conditions": {
            name: gradient_decay.summarise(
                jax.random.fold_in(key, index), found[name], groups[name].num_chains
            )
            for index, name in enumerate(CONDITIONS)
        },
    }
