"""Train every posterior of the zoo and judge it: attacks, certificates, uncertainty; by stages."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bnn_adv.attacks.threat import LInf
from bnn_adv.certification import CertificationSettings
from bnn_adv.certification.certify import certify
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.compute.progress import progress
from bnn_adv.data import Dataset, load_dataset
from bnn_adv.data.ood import load_ood
from bnn_adv.evaluation import EvaluationSettings, run_suite
from bnn_adv.evaluation import Settings as AttackSettings
from bnn_adv.evaluation.cascade import predict
from bnn_adv.evaluation.evaluate import evaluate
from bnn_adv.evaluation.records import Evaluation
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.evaluation.uncertainty import ShiftSettings, evaluate_shift
from bnn_adv.inference import InferenceResult, RunOptions
from bnn_adv.inference.densities import Data
from bnn_adv.inference.diagnostics import MIXING_KEYS, has_mixed
from bnn_adv.inference.robust import OFF
from bnn_adv.networks import MLP
from bnn_adv.networks.small_convnet import SmallConvNet
from bnn_adv.posteriors.decision import predicted_class
from bnn_adv.posteriors.posterior import Posterior, hash_draws
from experiments.launch import stages
from experiments.launch.run_directory import RunDirectory
from experiments.launch.sampled import SampledRun, find_runs
from experiments.zoo.config import Config
from experiments.zoo.methods import METHODS, make_likelihood

_KEPT = (
    *MIXING_KEYS,
    *("num_divergent", "training_seconds", "warnings", "sampled_by", "sampled_hash"),
)
_SAMPLED = "hmc", "standard"
"""Method and training whose chains another run may have sampled."""


class Subject(NamedTuple):
    """One posterior of the zoo.

    dataset: Its data set.
    method: A name in ``METHODS``.
    training: One of ``config.TRAININGS``.
    """

    dataset: str
    method: str
    training: str

    @property
    def name(self) -> str:
        """Its address, and the prefix of its stages."""
        return "_".join(self)


def list_subjects(config: Config) -> Iterator[Subject]:
    """Yield what is trained, one method after the other: cheap ones are judged first."""
    for method in config.methods:
        for training in config.trainings:
            for dataset in config.datasets:
                epsilon = config.radii(dataset)[-1]
                if make_likelihood(config, training, epsilon, METHODS[method]) is not None:
                    yield Subject(dataset, method, training)


def measure_all(config: Config, run: RunDirectory) -> list[dict[str, Any]]:
    """Return what was found of every posterior, as JSON values.

    Args:
      config: Settings of the study.
      run: Where stages are.
    """
    sets = load_all(config)
    few = _load_few(config, sets)
    for dataset in sets.values():
        stages.note_data(run, dataset)
    stages.note_suites(run, [get_suite("published"), get_suite(config.suite)])
    for name, sampled in _find_runs(config).items():
        stages.note_chains(run, name, sampled.draws_hash)
    return [
        _Judged(config, run, subject, (few if METHODS[subject.method].is_small else sets)).record()
        for subject in list_subjects(config)
    ]


def load_all(config: Config) -> dict[str, Dataset]:
    """Return the data sets by name."""
    return {name: _load(config, name, config.num_train or None) for name in config.datasets}


def check_sampled(config: Config, sets: Mapping[str, Dataset]) -> None:
    """Raise unless the runs whose chains are taken have sampled what the zoo would sample.

    Args:
      config: Settings.
      sets: See ``load_all``.

    Raises:
      ValueError: The message names what differs.
    """
    runs = _find_runs(config)
    method, few = METHODS[_SAMPLED[0]], _load_few(config, {name: sets[name] for name in runs})
    for name, run in runs.items():
        network = build(config, _SAMPLED[0], few[name].num_classes)
        run.check(network, few[name], method.configure(config, OFF, 0), config.data_dir)
        if (draws := run.row.config.num_draws) < config.num_draws:
            raise ValueError(
                f"--mixed_runs={run.path} has {draws} draws, and as many as --num_draws, "
                f"{config.num_draws}, predict: lower it, or sample more."
            )


def _find_runs(config: Config) -> Mapping[str, SampledRun]:
    subjects = list_subjects(config)
    return find_runs(config.mixed_runs, [s.dataset for s in subjects if s[1:] == _SAMPLED])


def _load_few(config: Config, sets: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Return the data sets with as many training images as HMC sees."""
    return {
        name: _load(config, name, min(config.num_train_hmc, len(dataset.y_train)))
        for name, dataset in sets.items()
    }


def _load(config: Config, name: str, num_train: int | None) -> Dataset:
    return load_dataset(
        name,
        config.data_dir or None,
        num_train=num_train,
        num_test=config.num_test,
        seed=config.seed,
    )


def build(config: Config, method: str, num_classes: int) -> nn.Module:
    """Return a method's network."""
    if METHODS[method].is_small:
        return MLP((config.hmc_hidden,), num_classes, "relu")
    return SmallConvNet((config.width, 2 * config.width), config.hidden, num_classes, "relu")


def split_draws(
    posterior: Posterior, method: str, num_draws: int
) -> tuple[Posterior, Posterior | None]:
    """Return the draws that predict, and those that no attacker knows.

    Args:
      posterior: All draws of a training.
      method: A name in ``METHODS``.
      num_draws: Most draws of chains that predict.
    """
    if METHODS[method].has_chains:
        kept = posterior.num_samples
        places = np.linspace(0, kept - 1, min(num_draws, kept)).round().astype(int)
        return posterior.take(places), None
    if not METHODS[method].is_redrawn:
        return posterior, None
    half = posterior.num_samples // 2
    return posterior.take(np.arange(half)), posterior.take(np.arange(half, 2 * half))


def describe_network(config: Config, method: str) -> str:
    """Return a method's network in a few words."""
    if METHODS[method].is_small:
        return f"fc, {config.hmc_hidden} units, relu"
    channels = f"{config.width}-{2 * config.width}"
    return f"small conv, {channels} channels, {config.hidden} units, relu"


class _Judged:
    """One posterior, trained or read when somebody first needs it."""

    def __init__(
        self, config: Config, run: RunDirectory, subject: Subject, sets: dict[str, Dataset]
    ) -> None:
        self._config, self._run, self._subject = config, run, subject
        self._data = sets[subject.dataset]
        self._found: tuple[Posterior, dict[str, Any]] | None = None

    def record(self) -> dict[str, Any]:
        """Return all that is measured."""
        config, run, subject = self._config, self._run, self._subject
        parts = self._by_radius("radius", self._radius)
        means = None
        if METHODS[subject.method].is_redrawn:
            means = self._by_radius("mean", self._mean)
        about = stages.cached(run, f"{subject.name}-about", self._about)
        shift = None
        if config.num_shift:
            shift = stages.cached(run, f"{subject.name}-shift", self._shift)
        outside = config.outside(subject.dataset) if config.num_shift else ""
        found = {"radii": parts, "means": means, "shift": shift, "outside": outside}
        return {**subject._asdict(), **about, **found}

    def _by_radius(self, part: str, measure: Callable[[float], dict[str, Any]]) -> list[Any]:
        """Return a part's stages, one a radius."""
        run, name, radii = self._run, self._subject.name, self._config.radii(self._subject.dataset)
        return [
            stages.cached(run, f"{name}-{part}-{number}", functools.partial(measure, epsilon))
            for number, epsilon in enumerate(radii)
        ]

    def _about(self) -> dict[str, Any]:
        posterior, diagnostics = self._train()
        config, (known, _) = self._config, self._split()
        draw = jax.tree.map(lambda leaf: leaf[0], posterior.samples)
        mixed = has_mixed(diagnostics) if METHODS[self._subject.method].has_chains else None
        return {
            "network": describe_network(config, self._subject.method),
            "num_draws": known.num_samples,
            "num_parameters": sum(int(np.size(leaf)) for leaf in jax.tree.leaves(draw)),
            "num_train": len(self._data.y_train),
            "draws_hash": hash_draws(known),
            "mixed": mixed,
            "diagnostics": {key: diagnostics[key] for key in _KEPT if key in diagnostics},
        }

    def _radius(self, epsilon: float) -> dict[str, Any]:
        """Return what attacks leave and what is certified of the very same images."""
        config, (known, held) = self._config, self._split()
        found, shared = self._attack(known, epsilon, "radius", config.num_curve)
        certificate = certify(
            known,
            self._data.x_test,
            self._data.y_test,
            threat=LInf(epsilon),
            settings=CertificationSettings(
                method="crown" if METHODS[self._subject.method].is_small else config.certify
            ),
        )
        fresh = None
        if held is not None:
            fresh = self._is_right(held, found.arrays["x_adv"]).tolist()
        uncertainty = found.uncertainty
        return {
            **shared,
            "certified": certificate.certified.tolist(),
            "certified_real": (certificate.margin > 0).tolist(),
            "fresh": fresh,
            "detection": None if uncertainty is None else uncertainty.to_dict(),
            "certify_seconds": certificate.seconds,
        }

    def _mean(self, epsilon: float) -> dict[str, Any]:
        """Return what attacks leave of one network, whose weights are the draws' mean."""
        known, _ = self._split()
        mean = jax.tree.map(lambda leaf: leaf.mean(axis=0, keepdims=True), known.samples)
        return self._attack(dataclasses.replace(known, samples=mean), epsilon, "mean", 0)[1]

    def _attack(
        self, posterior: Posterior, epsilon: float, part: str, num_curve: int
    ) -> tuple[Evaluation, dict[str, Any]]:
        """Return a strong evaluation, and of each image what it and the published attack leave.

        Args:
          posterior: What is attacked.
          epsilon: Radius.
          part: Name of its checkpoints.
          num_curve: Images on which detection is looked at.
        """
        config, x, y, threat = self._config, self._data.x_test, self._data.y_test, LInf(epsilon)
        settings = EvaluationSettings(
            batch_size=config.batch_size,
            checkpoints=self._checkpoints(f"{part}-{epsilon:g}"),
            num_probe=config.num_probe,
            num_curve=num_curve,
        )
        found = evaluate(
            posterior,
            x,
            y,
            threat=threat,
            rng_key=self._key("attack"),
            suite=config.suite,
            settings=settings,
        )
        standing = found.arrays["clean_correct"] & ~found.arrays["broken"]
        published = run_suite(
            self._key("published"),
            get_suite("published"),
            posterior,
            x,
            y,
            threat=threat,
            settings=AttackSettings(config.batch_size),
        )
        weakest = np.logical_and.reduce(
            [self._is_right(posterior, images) for images in published.adversarial.values()]
        )
        return found, {
            "epsilon": epsilon,
            "clean": found.arrays["clean_correct"].tolist(),
            "published": weakest.tolist(),
            "standing": (standing & weakest).tolist(),
            "flags": found.flags if config.num_probe else None,
            "attack_seconds": found.seconds,
        }

    def _shift(self) -> dict[str, Any]:
        config, data = self._config, self._data
        count = min(config.num_shift, len(data.y_test))
        outside = load_ood(
            config.outside(self._subject.dataset),
            data,
            config.data_dir or None,
            count=count,
            seed=config.seed,
        )
        found = evaluate_shift(
            self._split()[0],
            data.x_test[:count],
            data.y_test[:count],
            outside,
            threat=LInf(config.radii(self._subject.dataset)[0]),
            rng_key=self._key("shift"),
            settings=ShiftSettings(config.batch_size, checkpoints=self._checkpoints("shift")),
        )
        return found.to_dict()

    def _is_right(self, posterior: Posterior, images: np.ndarray) -> np.ndarray:
        log_probs = predict(posterior, images, AttackSettings(self._config.batch_size))
        right: np.ndarray = predicted_class(log_probs) == self._data.y_test
        return right

    def _split(self) -> tuple[Posterior, Posterior | None]:
        """Return the draws that predict, and those that no attacker knows."""
        posterior, _ = self._train()
        return split_draws(posterior, self._subject.method, self._config.num_draws)

    def _train(self) -> tuple[Posterior, dict[str, Any]]:
        if self._found is None:
            self._found = self._fit()
        return self._found

    def _fit(self) -> tuple[Posterior, dict[str, Any]]:
        config, run, subject, data = self._config, self._run, self._subject, self._data
        method, network = METHODS[subject.method], build(config, subject.method, data.num_classes)
        epsilon = config.radii(subject.dataset)[-1]
        robust = make_likelihood(config, subject.training, epsilon, method)
        assert robust is not None
        epochs = config.num_epochs if robust.is_off else config.num_robust_epochs
        checkpoints = run.checkpoints(subject.name, config.checkpoint_every)

        def train() -> InferenceResult:
            if sampled := self._find_sampled():
                return sampled.read(network, data.input_shape)
            with progress(subject.name, method.module.UNIT) as report:
                result: InferenceResult = method.module.run(
                    self._key("train"),
                    network,
                    Data(jnp.asarray(data.x_train), jnp.asarray(data.y_train)),
                    method.configure(config, robust, epochs),
                    RunOptions(
                        held_out=Data(jnp.asarray(data.x_test), jnp.asarray(data.y_test)),
                        progress=report,
                        checkpoints=checkpoints,
                    ),
                )
            return result

        found = stages.cached_posterior(run, subject.name, network, data.input_shape, train)
        if checkpoints is not None:
            checkpoints.remove()
        return found

    def _find_sampled(self) -> SampledRun | None:
        """Return the run that has sampled its chains, if one has."""
        if self._subject[1:] != _SAMPLED:
            return None
        return _find_runs(self._config).get(self._subject.dataset)

    def _checkpoints(self, purpose: str) -> Checkpoints | None:
        """Return where a part that takes long saves its progress; a finished run removes it."""
        name = f"{self._subject.name}-{purpose}"
        return self._run.checkpoints(name, self._config.checkpoint_every)

    def _key(self, purpose: str) -> jax.Array:
        """Return a key that depends on names alone."""
        name = f"{self._subject.name} {purpose}"
        return jax.random.fold_in(jax.random.key(self._config.seed), zlib.crc32(name.encode()))
