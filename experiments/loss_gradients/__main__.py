"""Measure expected loss gradients against the number of draws (figures 2 and 3 of the paper).

  python -m experiments.loss_gradients --scale=cpu --workdir=runs/loss_gradients
  python -m experiments.loss_gradients --scale=paper --items=mnist-vi --selection=published

Trains HMC (table 3) and VI (table 4) posteriors, and HMC of long trajectories whose chains mix on
fewer images and units (items ``-hmc-mixed``), and takes the gradients of the loss at test images
under every draw: the posterior's own, those of untrained networks, those at shuffled labels, and
those of the loss as published.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

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
from experiments.launch.stages import cached, cached_arrays, cached_posterior, note_data
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Plot, Study
from experiments.loss_gradients import figures
from experiments.loss_gradients import report as gradient_study
from experiments.loss_gradients.config import (
    SCALES,
    Config,
    Item,
    build_item,
    read_counts,
)
from experiments.loss_gradients.report import CONDITIONS, POSTERIOR, PRIOR, PUBLISHED_LOSS, SHUFFLED

_HELD_OUT = 200
_MOST_MAPS = 3
"""Numbers of draws in a figure of pixels."""

_TRAIN, _DRAWS, _PRIOR, _LABELS, _ORDERS, _BOOTSTRAP, _SELECTION = range(7)


def run(config: Config, workdir: str, *, scale: str = "") -> dict[str, Any]:
    """Fill a run directory and return its results.

    Raises:
      ValueError: The data do not allow the run, or the folder holds another one.
      OSError: A file cannot be read or written.
    """
    return run_study("loss_gradients", config, workdir, _work, scale=scale, check=check)


def check(config: Config) -> None:
    """Raise unless there are as many examples as are asked for.

    Raises:
      ValueError: The message names what is wrong.
    """
    for name, num_train in dict.fromkeys(_data_of(build_item(config, i)) for i in config.items):
        _load(config, name, num_train)


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


def _work(config: Config, run: RunDirectory) -> Study:
    records, plots = [], []
    strips: dict[str, list[figures.Strip]] = {}
    curves: dict[str, dict[str, figures.Curve]] = {}
    for name in config.items:
        item = build_item(config, name)
        dataset = _note(config, run, item)
        posterior, diagnostics = _train(config, item, dataset, run)
        found = _measure(config, item, posterior, dataset, run)
        record = _describe(config, item, posterior, dataset, found, diagnostics, run)
        records.append(record)
        ours, title = found[POSTERIOR], record["title"]
        plots += _maps(config, record, dataset, ours)
        strips[title] = [
            figures.Strip(int(count), mean)
            for count, mean in zip(ours.counts, ours.means, strict=True)
        ]
        curves[title] = {
            condition: _curve(record["conditions"][condition])
            for condition in (POSTERIOR, PRIOR, SHUFFLED)
        }
    plots.append(Plot("strips", figures.gradient_strips(strips, seed=config.seed), _STRIPS_CAPTION))
    plots.append(Plot("norms", figures.norm_curves(curves), _CURVES_CAPTION))
    return Study(
        title="Expected loss gradients against the number of draws (Figs 2, 3)",
        summary=gradient_study.summary(records),
        tables=(gradient_study.norms_table(records), gradient_study.cancellation_table(records)),
        plots=tuple(plots),
        claims=gradient_study.claims(records),
        verdicts=gradient_study.verdicts(records),
        data={"items": records},
    )


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


def _maps(
    config: Config, record: dict[str, Any], dataset: Dataset, ours: LossGradients
) -> list[Plot]:
    """Return the figure of pixels, or none where no image meets the published rule."""
    images = np.asarray(record["images"], int)
    if not len(images):
        return []
    # As the paper: 1, 10 and 100, or what comes next to them.
    wanted = [int(np.argmin(np.abs(np.log(ours.counts / target)))) for target in (1, 10, 100)]
    places = sorted(set(wanted))[:_MOST_MAPS]
    figure = figures.gradient_maps(
        dataset.x_test[images],
        ours.means[places][:, images],
        ours.counts[places].tolist(),
        [f"image {index}, label {dataset.y_test[index]}" for index in images],
    )
    how = {
        "seed": "drawn at random by the seed",
        "published": "the first whose norm is not zero at the smallest S and never rises with S, "
        f"as the published code picks them ({100 * record['falling_share']:.0f} % of all do)",
    }[config.selection]
    caption = (
        f"{record['title']} ({record['note']}): expected loss gradient of every pixel for growing "
        f"numbers S of draws. The images are {how}. Red raises the loss, blue lowers it; the "
        "colours of a row share one scale, so that a pale map is a smaller gradient. Below each "
        "map its l_inf norm."
    )
    return [Plot(f"pixels_{record['name'].replace('-', '_')}", figure, caption)]


def _curve(found: dict[str, Any]) -> figures.Curve:
    return figures.Curve(np.asarray(found["counts"]), *np.asarray(found["quartiles_linf"]))


_STRIPS_CAPTION = (
    "Every component of the expected loss gradients of all test images, one strip for each number "
    "of draws S. A strip that narrows shows gradients that shrink. Above each strip the share of "
    "components that are exactly zero in float32: gradients of saturated softmaxes. Of a strip "
    "with more than 50,000 components so many are drawn, evenly spaced by rank."
)
_CURVES_CAPTION = (
    "Norm of the expected loss gradient against the number of draws S, median and quartiles over "
    "test images and random orders of the draws, on logarithmic axes. Dotted: the fall as S^(-1/2) "
    "of any mean of independent gradients of zero mean, from where the posterior and the prior "
    "start. No expectation can fall faster. A curve along its dotted line shows Monte-Carlo "
    "averaging, of an expectation that is small beside its error or zero; a curve above it, draws "
    "that agree on a gradient, as those of chains that have not mixed do too. "
    "prior: untrained networks with weights from N(0, 1). shuffled labels: the same posterior at "
    "labels of other images. Norms that are zero are not drawn."
)


if __name__ == "__main__":
    launch("loss_gradients", Config, SCALES, run, __doc__)
