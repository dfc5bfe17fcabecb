"""What the ablation computes, stage by stage: posteriors, what each is like, attacks on it."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bnn_adv.attacks.threat import LInf
from bnn_adv.compute import files
from bnn_adv.compute.canonical import digest
from bnn_adv.compute.progress import progress
from bnn_adv.data import Dataset
from bnn_adv.data.dataset import subset
from bnn_adv.evaluation import Settings, run_suite
from bnn_adv.evaluation.cascade import predict
from bnn_adv.evaluation.masking.saturation import measure_logits
from bnn_adv.evaluation.redrawn import draw_log_probs
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.inference import METHODS, InferenceResult, RunOptions, hmc, stored_guides, svi
from bnn_adv.inference.densities import Data
from bnn_adv.inference.subsampling import last_minibatch, resample, transitions_per_minibatch
from bnn_adv.networks import build_network
from bnn_adv.posteriors.distinct import count_distinct
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.posteriors.sampler import Sampler
from experiments.launch.mixed import mixed_hmc
from experiments.launch.run_directory import RunDirectory
from experiments.launch.sampled import SampledRun, find_runs
from experiments.launch.stages import StageError, cached, cached_arrays, cached_posterior
from experiments.protocol_ablation import switches as ablation
from experiments.protocol_ablation.config import Config
from experiments.protocol_ablation.published_versions import average_predictions
from experiments.protocol_ablation.switches import Departures

MIXED = "hmc-mixed"
"""Stage of HMC whose chains are meant to mix."""

_HELD_OUT = 200
"""Test images on which chains are diagnosed."""

_PREDICTIONS = 10
"""Predictions of an image, each by draws of its own, where draws are made anew."""

_TRAIN, ATTACK, _SHUFFLE, _RESAMPLE, _PREDICT = range(5)
"""What keys are for. All rows share them: they differ in their switches alone."""


class Subject(NamedTuple):
    """A trained posterior.

    name: Prefix of its stages.
    known: Draws that are attacked, and predict where draws are fixed.
    sampler: Draws anew from the same posterior; None where none can be drawn.
    diagnostics: The method's record.
    """

    name: str
    known: Posterior
    sampler: Sampler | None
    diagnostics: dict[str, Any]


class Work(NamedTuple):
    """What all stages share.

    config: Settings.
    run: The run directory.
    dataset: Its test images are attacked.
    """

    config: Config
    run: RunDirectory
    dataset: Dataset

    def first(self, count: int) -> Work:
        """Return the same with the first ``count`` test images alone."""
        own = self.dataset
        images = dataclasses.replace(own, x_test=own.x_test[:count], y_test=own.y_test[:count])
        return self._replace(dataset=images)

    @property
    def settings(self) -> Settings:
        """Images at once."""
        return Settings(self.config.batch_size)

    def key(self, purpose: int) -> jax.Array:
        """Return the key for a purpose."""
        return jax.random.fold_in(jax.random.key(self.config.seed), purpose)


def train_vi(work: Work, training: Departures) -> Subject:
    """Train the VI posterior of a set of training switches, or read it back."""
    config = work.config
    settings = svi.Config(
        num_samples=config.num_draws,
        num_epochs=config.vi_epochs,
        learning_rate=config.vi_learning_rate,
        minibatch_size=config.vi_minibatch_size,
        kl_weight="published" if "kl_weight" in training else "corrected",
        init="published" if "vi_init" in training else "network",
    )
    name = "-".join(["vi", *sorted(training)]) if training else "vi-corrected"
    data = Data(jnp.asarray(work.dataset.x_train), jnp.asarray(work.dataset.y_train))
    guide = f"posterior/{name}-guide.npz"

    def keep_guide(result: InferenceResult) -> dict[str, Any]:
        assert result.sampler is not None  # Variational inference has one.
        found = stored_guides.get_guide_params(result.sampler)
        params = {k: np.asarray(v) for k, v in found.items()}
        work.run.write(files.write_arrays, guide, params)
        return {"guide_hash": digest(params, "guide")}

    known, diagnostics = _train(work, name, "svi", settings, data, keep_guide)
    params = files.read_arrays(work.run.path / guide)
    trained = diagnostics.pop("guide_hash", None)
    if trained != (found := digest(params, "guide")):
        raise StageError(
            f"{work.run.path / guide} was replaced: posterior/{name}.json was written with a guide "
            f"of the hash {trained}, it has {found}. Put it back, or delete both to train again."
        )
    sampler = stored_guides.restore_sampler(
        _network(work, "svi"), settings, work.dataset.input_shape, params
    )
    return Subject(name, known, sampler, diagnostics)


def train_hmc(work: Work) -> tuple[Subject, ...]:
    """Sample with HMC on all the data, as published, and so that chains mix; or read them back."""
    config = work.config
    settings = hmc.Config(
        num_samples=config.hmc_num_samples,
        num_warmup=config.hmc_num_warmup,
        num_chains=config.hmc_num_chains,
        step_size=config.hmc_step_size,
        num_integration_steps=config.hmc_num_integration_steps,
        adapt="step_size",
        init="network",
    )
    data = Data(jnp.asarray(work.dataset.x_train), jnp.asarray(work.dataset.y_train))
    full, diagnostics = _train(work, "hmc-full", "hmc", settings, data)
    first = Subject("hmc-full", full, None, {**diagnostics, "num_train": len(data.y)})
    second = _train_hmc_as_published(work, settings, data, full.num_samples)
    return (first, second, _train_mixed(work)) if config.mixed_num_train else (first, second)


def _train_mixed(work: Work) -> Subject:
    """Sample with trajectories of the prior's scale, on the data on which chains of them mix."""
    config = work.config
    part = load_few(config, work.dataset)
    data = Data(jnp.asarray(part.x_train), jnp.asarray(part.y_train))
    chains, diagnostics = _train(work, MIXED, "hmc", mixed_hmc(config), data)
    count = min(config.mixed_num_draws, chains.num_samples)
    places = np.linspace(0, chains.num_samples - 1, count).round().astype(int)
    taken = chains.take(places)
    own = {"num_train": len(data.y), "num_distinct_draws": count_distinct(taken)}
    return Subject(MIXED, taken, None, {**diagnostics, **own})


def load_few(config: Config, dataset: Dataset) -> Dataset:
    """Return the data with as many training images as chains that mix see."""
    return subset(dataset, num_train=config.mixed_num_train, seed=config.seed)


def find_sampled(config: Config) -> SampledRun | None:
    """Return the run whose chains are taken in place of mixed HMC, if one is given.

    Raises:
      ValueError: See ``sampled.find_runs``.
    """
    is_sampled = "hmc" in config.parts and config.mixed_num_train
    return find_runs(config.mixed_runs, [config.dataset] if is_sampled else []).get(config.dataset)


def _train_hmc_as_published(
    work: Work, settings: hmc.Config, data: Data, num_samples: int
) -> Subject:
    """Sample ``num_samples`` draws as ``inference.subsampling`` says that they were."""
    name, size = "hmc-minibatch", min(work.config.hmc_minibatch_size, len(data.y))
    part = last_minibatch(work.key(_SHUFFLE), data, size)
    settings = dataclasses.replace(
        settings,
        num_samples=transitions_per_minibatch(num_samples, len(data.y), size),
        num_chains=1,
        trajectory_length=settings.step_size * settings.num_integration_steps,
        adapt="window",
    )
    chain, diagnostics = _train(work, name, "hmc", settings, part)
    resampled, _ = resample(work.key(_RESAMPLE), chain, num_samples)
    diagnostics = {
        **diagnostics,
        "num_train": size,
        "num_distinct_draws": count_distinct(resampled),
    }
    return Subject(name, resampled, None, diagnostics)


def _network(work: Work, method: str, name: str = "") -> nn.Module:
    if name == MIXED:
        return mixed_network(work.config, work.dataset.num_classes)
    config, is_hmc = work.config, method == "hmc"
    return build_network(
        "fc" if is_hmc else config.architecture,
        hidden=config.hmc_hidden if is_hmc else config.hidden,
        num_classes=work.dataset.num_classes,
        activation=config.hmc_activation if is_hmc else config.activation,
    )


def mixed_network(config: Config, num_classes: int) -> nn.Module:
    """Return the network of the chains that are meant to mix."""
    return build_network(
        "fc",
        hidden=config.mixed_hidden,
        num_classes=num_classes,
        activation=config.hmc_activation,
    )


def _train(
    work: Work,
    name: str,
    method: str,
    settings: Any,
    data: Data,
    then: Callable[[InferenceResult], dict[str, Any]] = lambda result: {},
) -> tuple[Posterior, dict[str, Any]]:
    """Train, or read back; ``then`` of what was just trained joins the diagnostics."""
    config, dataset, network = work.config, work.dataset, _network(work, method, name)
    # The rows of the paper share their key; that of a newcomer comes from its name.
    key = work.key(_TRAIN)
    key = jax.random.fold_in(key, zlib.crc32(name.encode())) if name == MIXED else key
    held_out = Data(
        jnp.asarray(dataset.x_test[:_HELD_OUT]), jnp.asarray(dataset.y_test[:_HELD_OUT])
    )

    def train() -> InferenceResult:
        if name == MIXED and (sampled := find_sampled(config)):
            return sampled.read(network, dataset.input_shape)
        checkpoints = work.run.checkpoints(f"{name}-training", config.checkpoint_every)
        unit = "transitions" if method == "hmc" else "minibatches"
        with progress(f"{name}: training", unit) as report:
            result: InferenceResult = METHODS[method].run(
                key,
                network,
                data,
                settings,
                RunOptions(held_out=held_out, progress=report, checkpoints=checkpoints),
            )
        return result._replace(diagnostics={**result.diagnostics, **then(result)})

    return cached_posterior(work.run, name, network, dataset.input_shape, train)


def describe(work: Work, subject: Subject) -> dict[str, Any]:
    """Return how large a posterior's logits are at the test images."""

    def compute() -> dict[str, Any]:
        scale = measure_logits(
            subject.known, work.dataset.x_test, batch_size=work.config.batch_size
        )
        return scale._asdict()

    return cached(work.run, f"{subject.name}-logits", compute)


def predict_clean(work: Work, subject: Subject, on: Departures = ablation.NONE) -> np.ndarray:
    """Return the log of the predictions of the clean images, [P, N, C]."""
    name = f"{subject.name}-clean" + ("-draws" if "draws" in on else "")

    def compute() -> dict[str, np.ndarray]:
        return {"log_probs": _predict(work, subject, on, work.dataset.x_test, name)}

    return cached_arrays(work.run, name, compute)["log_probs"]


def attack_strongly(work: Work, subject: Subject) -> dict[str, np.ndarray]:
    """Return the log of the predictions of each image's worst case, [P, N, C].

    Returns:
      By who predicts: ``"known"``, the draws that were attacked, and where there are any
      ``"fresh"`` ones.
    """
    name = f"{subject.name}-{work.config.suite}"

    def compute() -> dict[str, np.ndarray]:
        with progress(name, "image-steps") as report:
            result = run_suite(
                work.key(ATTACK),
                get_suite(work.config.suite),
                subject.known,
                work.dataset.x_test,
                work.dataset.y_test,
                threat=LInf(work.config.epsilon),
                settings=dataclasses.replace(
                    work.settings,
                    checkpoints=work.run.checkpoints(name, work.config.checkpoint_every),
                ),
                progress=lambda label, done, total: report(done, total, label=label),
            )
        images = result.adversarial["worst"]
        found = {"known": _predict(work, subject, ablation.NONE, images, name)}
        if subject.sampler is not None:
            found["fresh"] = _predict(work, subject, frozenset({"draws"}), images, name)
        return found

    return cached_arrays(work.run, name, compute)


def attack(
    work: Work, subject: Subject, kind: ablation.Kind, on: Departures, *, first: int | None = None
) -> dict[str, Any]:
    """Attack a posterior as the switches say, or read back what another row has found.

    Args:
      work: What all stages share.
      subject: Trained as the training switches in ``on`` say.
      kind: ``"fgsm"`` or ``"pgd"``.
      on: Switches that are on.
      first: Attack that many images only, the first ones; None attacks all.

    Returns:
      ``"log_probs"`` of the predictions, [P, N, C]; for FGSM ``"zero_gradient_share"``.
    """
    x, y = work.dataset.x_test[:first], work.dataset.y_test[:first]
    switches = sorted(ablation.relevant(kind, on) - ablation.TRAINING)
    name = "-".join([subject.name, kind, *switches])
    if first is not None:
        name += f"-first{first}"

    def compute() -> dict[str, np.ndarray]:
        images = ablation.attack(
            work.key(ATTACK),
            kind,
            on,
            subject.known,
            x,
            y,
            threat=LInf(work.config.epsilon),
            sampler=subject.sampler,
            settings=work.settings,
        )
        found = {"log_probs": _predict(work, subject, on, images, name)}
        if kind == "fgsm":
            share = ablation.zero_gradient_share(on, subject.known, x, y, settings=work.settings)
            found["zero_gradient_share"] = np.asarray(share)
        return found

    return cached_arrays(work.run, name, compute)


def attack_first(
    work: Work, subject: Subject, kind: ablation.Kind, on: Departures, first: int
) -> np.ndarray:
    """Return what ``attack`` leaves of the first images, [P, first, C].

    From the table if it has the row: an image's attack does not depend on the images beside it.
    """
    needed = {ablation.relevant(kind, row.on) for row in ablation.list_rows()}
    if first == len(work.dataset.y_test) or ablation.relevant(kind, on) in needed:
        found: np.ndarray = attack(work, subject, kind, on)["log_probs"][:, :first]
        return found
    alone: np.ndarray = attack(work, subject, kind, on, first=first)["log_probs"]
    return alone


def _predict(
    work: Work, subject: Subject, on: Departures, images: np.ndarray, name: str
) -> np.ndarray:
    """Return the log of the predictions that a row's defender makes, [P, N, C]."""
    if "draws" not in on:
        return predict(subject.known, images, work.settings)[None]
    assert subject.sampler is not None  # Rows with draws are those of variational inference.
    size = subject.known.num_samples
    each = draw_log_probs(
        # Every prediction of the published code sees draws of its own.
        jax.random.fold_in(work.key(_PREDICT), zlib.crc32(name.encode())),
        subject.sampler,
        images,
        num_samples=_PREDICTIONS * size,
        settings=work.settings,
    )
    return average_predictions(each, size, version="today")
