"""Train all members side by side, and attack ensembles of the first ones."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bnn_adv.attacks.threat import LInf
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.compute.progress import progress
from bnn_adv.data import Dataset, load_dataset
from bnn_adv.evaluation import Settings as AttackSettings
from bnn_adv.evaluation import run_suite
from bnn_adv.evaluation.cascade import predict
from bnn_adv.evaluation.suites import Suite, list_compared
from bnn_adv.inference import InferenceResult, RunOptions, sgd
from bnn_adv.inference.densities import Data
from bnn_adv.networks import build_network
from bnn_adv.posteriors.decision import predicted_class
from bnn_adv.posteriors.posterior import Posterior
from experiments.ensembles.config import Config
from experiments.ensembles.report import Size
from experiments.launch import stages
from experiments.launch.run_directory import RunDirectory

_TRAIN, _ATTACK = range(2)


def load_data(config: Config) -> Dataset:
    """Return the data set, as many images of it as are asked for."""
    return load_dataset(
        config.dataset,
        config.data_dir or None,
        num_train=config.num_train or None,
        num_test=config.num_test,
        seed=config.seed,
    )


def build(config: Config, num_classes: int) -> nn.Module:
    """Return the network of every member."""
    return build_network(
        config.architecture,
        hidden=config.hidden,
        num_classes=num_classes,
        activation=config.activation,
    )


def measure_all(config: Config, run: RunDirectory) -> list[Size]:
    """Return all ensembles of a run under attack; members and attacks are stages.

    Args:
      config: Settings of the study.
      run: Where stages are.
    """
    dataset = load_data(config)
    stages.note_data(run, dataset)
    stages.note_suites(run, list_compared(config.suite).values())
    members = _train(config, run, dataset)
    return [
        _attack(config, run, dataset, members, count, epsilon)
        for count in config.sizes
        for epsilon in config.epsilons
    ]


def _train(config: Config, run: RunDirectory, dataset: Dataset) -> Posterior:
    """Train all members, or read them back."""
    network = build(config, dataset.num_classes)
    settings = sgd.Config(
        num_members=config.sizes[-1],
        num_epochs=config.sgd_epochs,
        learning_rate=config.sgd_learning_rate,
        minibatch_size=min(config.sgd_minibatch_size, len(dataset.y_train)),
        member_chunk=config.member_chunk or None,
    )

    def train() -> InferenceResult:
        with progress("members", "minibatches") as report:
            return sgd.run(
                _key(config, _TRAIN),
                network,
                Data(jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train)),
                settings,
                RunOptions(
                    progress=report,
                    checkpoints=run.checkpoints("members", config.checkpoint_every),
                ),
            )

    posterior, _ = stages.cached_posterior(
        run,
        "members",
        network,
        dataset.input_shape,
        train,
        # As the published code's ensembles.
        decision_rule="mean_logits",
    )
    return posterior


def _attack(
    config: Config,
    run: RunDirectory,
    dataset: Dataset,
    members: Posterior,
    count: int,
    epsilon: float,
) -> Size:
    """Attack the ensemble of the first ``count`` members."""
    posterior = members.take(np.arange(count))
    x, y, settings = dataset.x_test, dataset.y_test, AttackSettings(config.batch_size)

    def is_correct(images: np.ndarray) -> np.ndarray:
        return predicted_class(predict(posterior, images, settings)) == y

    stored = {}
    for key, suite in list_compared(config.suite).items():
        name = f"attack-{count}-{config.epsilons.index(epsilon)}-{key}"
        checkpoints = run.checkpoints(name, config.checkpoint_every)

        def compute(
            key: str = key,
            suite: Suite = suite,
            checkpoints: Checkpoints | None = checkpoints,
        ) -> dict[str, np.ndarray]:
            with progress(f"{count} members: {key}", "image-steps") as report:
                found = run_suite(
                    _key(config, _ATTACK),
                    suite,
                    posterior,
                    x,
                    y,
                    threat=LInf(epsilon),
                    settings=dataclasses.replace(settings, checkpoints=checkpoints),
                    progress=lambda attack, done, total: report(done, total, label=attack),
                )
            correct = {name: is_correct(images) for name, images in found.adversarial.items()}
            return {
                **correct,
                "clean": is_correct(x),
                "softmax_robustness": np.asarray(found.softmax_robustness),
                "zero_gradient_share": np.asarray(found.zero_gradient_share),
            }

        stored[key] = stages.cached_arrays(run, name, compute)
    numbers = ("softmax_robustness", "zero_gradient_share")
    correct = {
        f"{key}/{attack}": values
        for key, arrays in stored.items()
        for attack, values in arrays.items()
        if attack not in ("clean", *numbers)
    }
    # An image that any attack breaks is not robust.
    correct["strong/worst"] = np.logical_and.reduce(list(correct.values()))
    return Size(
        epsilon,
        count,
        stored["published"]["clean"],
        correct,
        *({key: float(arrays[name]) for key, arrays in stored.items()} for name in numbers),
    )


def _key(config: Config, purpose: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(config.seed), purpose)
