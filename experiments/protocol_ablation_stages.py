"""What the ablation computes, stage by stage: posteriors, what each is like, attacks on it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv import ablation
from bnn_adv.ablation import Departures
from bnn_adv.data import Dataset
from bnn_adv.densities import Data
from bnn_adv.evaluation import Settings, run_protocol
from bnn_adv.evaluation.cascade import predict
from bnn_adv.inference import METHODS, InferenceResult, hmc, svi
from bnn_adv.inference.diagnostics import count_distinct
from bnn_adv.inference.subsampling import last_minibatch, resample
from bnn_adv.networks import build_network
from bnn_adv.posterior import Posterior
from bnn_adv.protocols import get_protocol
from bnn_adv.saturation import measure_logits
from bnn_adv.threat import LInf
from experiments.progress import progress
from experiments.protocol_ablation_config import Config
from experiments.run_directory import RunDirectory
from experiments.stages import cached, cached_arrays, cached_posterior

_HELD_OUT = 200
"""Test images on which chains are diagnosed."""

_TRAIN, _ATTACK, _SHUFFLE, _RESAMPLE = range(4)
"""What keys are for. All rows share them: they differ in their switches alone."""


class Subject(NamedTuple):
    """Hold a trained posterior.

    name: Prefix of its stages.
    known: Draws that are attacked, and predict the clean images.
    fresh: Other draws of the same posterior, which predict attacked images with ``seeds``; None
      where none can be drawn.
    diagnostics: The method's record.
    """

    name: str
    known: Posterior
    fresh: Posterior | None
    diagnostics: dict[str, Any]


class Work(NamedTuple):
    """Hold what all stages share.

    config: Settings.
    run: The run directory.
    dataset: Its test images are attacked.
    """

    config: Config
    run: RunDirectory
    dataset: Dataset

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
        # The first half is attacked; the other half are fresh draws.
        num_samples=2 * config.num_draws,
        num_epochs=config.vi_epochs,
        learning_rate=config.vi_learning_rate,
        minibatch_size=config.vi_minibatch_size,
        kl_weight="published" if "kl_weight" in training else "corrected",
        init="published" if "vi_init" in training else "network",
    )
    name = "-".join(["vi", *sorted(training)]) if training else "vi-corrected"
    data = Data(jnp.asarray(work.dataset.x_train), jnp.asarray(work.dataset.y_train))
    both, diagnostics = _train(work, name, "svi", settings, data)
    halves = np.arange(2 * config.num_draws).reshape(2, -1)
    return Subject(name, both.take(halves[0]), both.take(halves[1]), diagnostics)


def train_hmc(work: Work) -> tuple[Subject, Subject]:
    """Sample with HMC on all the data, and as published; or read both back."""
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
    size = min(config.hmc_minibatch_size, len(data.y))
    part = last_minibatch(work.key(_SHUFFLE), data, size)
    full, diagnostics = _train(work, "hmc-full", "hmc", settings, data)
    first = Subject("hmc-full", full, None, {**diagnostics, "num_train": len(data.y)})
    name = "hmc-minibatch"
    last, diagnostics = _train(work, name, "hmc", settings, part)
    last, _ = resample(work.key(_RESAMPLE), last)
    diagnostics = {
        **diagnostics,
        "num_train": size,
        "num_distinct_draws": count_distinct(last),
    }
    return first, Subject(name, last, None, diagnostics)


def _train(
    work: Work, name: str, method: str, settings: Any, data: Data
) -> tuple[Posterior, dict[str, Any]]:
    config, dataset, is_hmc = work.config, work.dataset, method == "hmc"
    network = build_network(
        "fc" if is_hmc else config.architecture,
        hidden=config.hmc_hidden if is_hmc else config.hidden,
        num_classes=dataset.num_classes,
        activation=config.hmc_activation if is_hmc else config.activation,
    )
    held_out = Data(
        jnp.asarray(dataset.x_test[:_HELD_OUT]), jnp.asarray(dataset.y_test[:_HELD_OUT])
    )

    def train() -> InferenceResult:
        checkpoints = work.run.checkpoints(f"{name}-training", config.checkpoint_every)
        with progress(f"{name}: training", "transitions" if is_hmc else "minibatches") as report:
            return METHODS[method].run(
                work.key(_TRAIN),
                network,
                data,
                settings,
                held_out=held_out,
                progress=report,
                checkpoints=checkpoints,
            )

    return cached_posterior(work.run, name, network, dataset.input_shape, train)


def describe(work: Work, subject: Subject) -> dict[str, Any]:
    """Return how large a posterior's logits are at the test images."""

    def compute() -> dict[str, Any]:
        scale = measure_logits(
            subject.known, work.dataset.x_test, batch_size=work.config.batch_size
        )
        return scale._asdict()

    return cached(work.run, f"{subject.name}-logits", compute)


def predict_clean(work: Work, subject: Subject) -> np.ndarray:
    """Return the log of the posterior predictive at the clean images, [N, C]."""

    def compute() -> dict[str, np.ndarray]:
        return {"log_probs": predict(subject.known, work.dataset.x_test, work.settings)}

    return cached_arrays(work.run, f"{subject.name}-clean", compute)["log_probs"]


def attack_strongly(work: Work, subject: Subject) -> dict[str, np.ndarray]:
    """Return the log of the posterior predictive at each image's worst case, [N, C].

    Returns:
      By who predicts: ``"known"``, the draws that were attacked, and where there are any
      ``"fresh"`` ones.
    """
    name = f"{subject.name}-{work.config.suite}"

    def compute() -> dict[str, np.ndarray]:
        with progress(name, "image-steps") as report:
            found = run_protocol(
                work.key(_ATTACK),
                get_protocol(work.config.suite),
                subject.known,
                work.dataset.x_test,
                work.dataset.y_test,
                threat=LInf(work.config.epsilon),
                settings=work.settings,
                progress=lambda label, done, total: report(done, total, label=label),
                checkpoints=work.run.checkpoints(name, work.config.checkpoint_every),
            )
        return _predict_all(work, subject, found.adversarial["worst"])

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
      ``"log_probs"`` of the draws that predict, [N, C]; for FGSM ``"zero_gradient_share"``.
    """
    x, y = work.dataset.x_test[:first], work.dataset.y_test[:first]
    switches = sorted(ablation.relevant(kind, on) - ablation.TRAINING)
    name = "-".join([subject.name, kind, *switches])
    if first is not None:
        name += f"-first{first}"

    def compute() -> dict[str, np.ndarray]:
        images = ablation.attack(
            work.key(_ATTACK),
            kind,
            on,
            subject.known,
            x,
            y,
            threat=LInf(work.config.epsilon),
            settings=work.settings,
        )
        predicts = "fresh" if "seeds" in on else "known"
        found = {"log_probs": _predict_all(work, subject, images)[predicts]}
        if kind == "fgsm":
            share = ablation.zero_gradient_share(on, subject.known, x, y, settings=work.settings)
            found["zero_gradient_share"] = np.asarray(share)
        return found

    return cached_arrays(work.run, name, compute)


def attack_first(
    work: Work, subject: Subject, kind: ablation.Kind, on: Departures, first: int
) -> np.ndarray:
    """Return what ``attack`` leaves of the first images, [first, C], from the table if it has it.

    An image's attack does not depend on the images beside it.
    """
    needed = {ablation.relevant(kind, row.on) for row in ablation.list_rows()}
    if first == len(work.dataset.y_test) or ablation.relevant(kind, on) in needed:
        return attack(work, subject, kind, on)["log_probs"][:first]
    return attack(work, subject, kind, on, first=first)["log_probs"]


def _predict_all(work: Work, subject: Subject, images: np.ndarray) -> dict[str, np.ndarray]:
    found = {"known": predict(subject.known, images, work.settings)}
    if subject.fresh is not None:
        found["fresh"] = predict(subject.fresh, images, work.settings)
    return found
