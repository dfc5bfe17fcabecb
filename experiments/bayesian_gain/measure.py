"""What the study computes, stage by stage: draws, attacks on them, signs of masking."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bnn_adv.attacks.base import Settings
from bnn_adv.compute.progress import progress
from bnn_adv.data import Dataset, load_dataset
from bnn_adv.evaluation.cascade import RunContext
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.inference import InferenceResult, RunOptions
from bnn_adv.inference.densities import Data
from bnn_adv.inference.diagnostics import MIXING_KEYS
from bnn_adv.posteriors.posterior import Posterior
from experiments.bayesian_gain.architectures import ARCHITECTURES
from experiments.bayesian_gain.attacks import (
    Problem,
    attack_radii,
    attack_unknown,
    find_signs,
)
from experiments.bayesian_gain.config import Case, Config
from experiments.bayesian_gain.trainings import TRAININGS, list_sizes
from experiments.launch import stages
from experiments.launch.apart import work_apart
from experiments.launch.run_directory import RunDirectory
from experiments.launch.sampled import SampledRun, find_runs

_SAMPLED = "hmc"
"""The training whose chains another run may have sampled."""
_KEPT = (
    *(*MIXING_KEYS, "num_divergent", "held_out_log_likelihood", "training_seconds", "warnings"),
    *("energy_error_variance", "sampled_by", "sampled_hash"),
)


class Work(NamedTuple):
    """What all stages share.

    config: Settings.
    run: The run directory.
    datasets: By name; their test images are attacked.
    """

    config: Config
    run: RunDirectory
    datasets: dict[str, Dataset]


class Part(NamedTuple):
    """What one process works on.

    case: Data, network and repetition.
    training: Name of the training.
    draws: Number of draws that are attacked; 0: they are made.
    """

    case: Case
    training: str
    draws: int

    def __str__(self) -> str:
        """Return what its stages are called after."""
        return f"{self.case.name}-{self.training}" + (f"-{self.draws}" if self.draws else "")


def open_work(config: Config, run: RunDirectory) -> Work:
    """Return what all stages share, and note what they are computed from.

    Raises:
      ValueError: The data do not hold what is asked for.
    """
    datasets = {name: stages.note_data(run, found) for name, found in load(config).items()}
    stages.note_suites(run, [get_suite(config.suite)])
    for name, sampled in _find_runs(config).items():
        stages.note_chains(run, name, sampled.draws_hash)
    return Work(config, run, datasets)


def load(config: Config) -> dict[str, Dataset]:
    """Return the data sets by name.

    Raises:
      ValueError: They do not hold what is asked for.
    """
    return {
        name: load_dataset(
            name,
            config.data_dir or None,
            num_train=config.num_train or None,
            num_test=config.num_test,
            seed=config.seed,
        )
        for name in config.datasets
    }


def check_sampled(config: Config, datasets: Mapping[str, Dataset]) -> None:
    """Raise unless the runs whose chains are taken have sampled what the study would sample.

    Args:
      config: Settings.
      datasets: By name.

    Raises:
      ValueError: The message names what differs.
    """
    for name, run in _find_runs(config).items():
        dataset = datasets[name]
        settings = TRAININGS[_SAMPLED].configure(config, len(dataset.y_train))
        for case in config.cases:
            if case.dataset == name and not case.repeat:
                network = _build_network(case, dataset, config)
                run.check(network, dataset, settings, config.data_dir)
        run.check_shares(config.num_repeats, config.hmc_draws, flag="--hmc_draws")


def measure_all(work: Work) -> Iterator[dict[str, Any]]:
    """Yield a row for every posterior that is attacked, and one for every predictor of fresh draws.

    The first repetition of everything comes before the second. Where several processes are allowed,
    they fill the stages before: draws, then attacks on them.
    """
    if work.config.jobs > 1:
        for parts in list_parts(work.config):
            work_apart(functools.partial(_fill, work.config), work.run, parts, work.config.jobs)
    for case in work.config.cases:
        for name in work.config.methods:
            yield from _measure(work, case, name)


def list_parts(config: Config) -> tuple[list[Part], list[Part]]:
    """Return all trainings, then all attacks on what they made; in each those first that last."""
    cells = [(case, name) for case in config.cases for name in config.methods]
    made = [Part(case, name, 0) for case, name in cells]
    attacked = [
        Part(case, name, size)
        for case, name in cells
        for sizes in list_sizes(config, name)
        for size in sizes
    ]
    first = (config.num_fresh, config.num_draws)
    return (
        sorted(made, key=lambda part: not TRAININGS[part.training].has_chains),
        sorted(attacked, key=lambda part: first.index(part.draws) if part.draws in first else 2),
    )


def _fill(config: Config, run: RunDirectory, part: Part) -> None:
    """Compute the stages of a part in a process of its own."""
    draws = _Draws(open_work(config, run), part.case, part.training)
    if part.draws:
        list(_attack(draws, config, part.draws))
    else:
        draws.describe()


def _measure(work: Work, case: Case, name: str) -> Iterator[dict[str, Any]]:
    config = work.config
    draws = _Draws(work, case, name)
    full, few = list_sizes(config, name)
    rows = [row for size in sorted([*full, *few]) for row in _attack(draws, config, size)]
    yield from sorted(rows, key=lambda row: row["kind"] == "fresh")


def _attack(draws: _Draws, config: Config, size: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of one number of draws: known ones, and fresh ones where it is theirs."""
    is_full = size in list_sizes(config, draws.training)[0]
    epsilons = config.epsilons if is_full else config.close_epsilons
    left = draws.attack(size, epsilons)
    yield {
        **draws.describe(),
        "kind": "known",
        "draws": size,
        "epsilons": list(epsilons),
        "withstood": left["withstood"].tolist(),
        "signs": draws.find_signs(size, epsilons, left) if is_full else [],
    }
    if size != config.num_fresh:
        return
    for epsilon in config.close_epsilons:
        wrong = draws.attack_unknown(epsilon, left)
        yield {
            **draws.describe(),
            "kind": "fresh",
            "draws": config.num_fresh,
            "epsilons": [epsilon],
            "num_predictions": config.num_predictions,
            "right": (1 - wrong["adversarial"].mean(axis=0)).tolist(),
            "clean_right": (1 - wrong["clean"].mean(axis=0)).tolist(),
        }


class _Draws:
    """The draws of one training, made or read when somebody first needs them.

    Attributes:
      training: Its name.
    """

    def __init__(self, work: Work, case: Case, name: str) -> None:
        self._work, self._case, self.training = work, case, name
        self._stage = f"{case.name}-{name}"
        self._data = work.datasets[case.dataset]
        self._found: tuple[Posterior, dict[str, Any]] | None = None

    def describe(self) -> dict[str, Any]:
        """Return what and how it was trained, and what diagnostics say."""

        def compute() -> dict[str, Any]:
            diagnostics = self._train()[1]
            return {key: diagnostics[key] for key in _KEPT if key in diagnostics}

        return {
            **self._case._asdict(),
            "training": self.training,
            "diagnostics": stages.cached(self._work.run, f"about-{self._stage}", compute),
        }

    def attack(self, size: int, epsilons: tuple[float, ...]) -> dict[str, np.ndarray]:
        """Return ``withstood``, and for fresh draws the images found within the close radii."""
        config, stage = self._work.config, f"attack-{self._stage}-{size}"

        def compute() -> dict[str, np.ndarray]:
            with progress(stage, "image-steps") as report:
                found = attack_radii(self._pose(stage, size, report), epsilons)
            arrays = {"withstood": found.withstood}
            if size == config.num_fresh:
                close = [epsilons.index(epsilon) for epsilon in config.close_epsilons]
                arrays["worst"] = found.worst[close]
            return arrays

        return stages.cached_arrays(self._work.run, stage, compute)

    def find_signs(
        self, size: int, epsilons: tuple[float, ...], left: dict[str, np.ndarray]
    ) -> list[dict[str, Any]]:
        """Return the signs of masking within each of the close radii."""
        config = self._work.config
        if not config.num_probe:
            return []
        found = []
        for number, epsilon in enumerate(config.close_epsilons):
            stage = f"signs-{self._stage}-{size}-{number}"

            def compute(stage: str = stage, epsilon: float = epsilon) -> dict[str, Any]:
                count, whole = config.num_probe, self._pose(stage, size)
                standing = left["withstood"][:count] > epsilons.index(epsilon)
                probe = whole._replace(x=whole.x[:count], y=whole.y[:count])
                checks = find_signs(probe, epsilon, standing, self._min_ess(size))
                return {"epsilon": epsilon, "checks": checks}

            found.append(stages.cached(self._work.run, stage, compute))
        return found

    def attack_unknown(self, epsilon: float, known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return which predictions by fresh draws are wrong, see ``attacks.attack_unknown``."""
        config = self._work.config
        number = config.close_epsilons.index(epsilon)
        stage = f"fresh-{self._stage}-{number}"

        def compute() -> dict[str, np.ndarray]:
            with progress(stage, "image-steps") as report:
                return attack_unknown(
                    self._pose(stage, 0, report),
                    epsilon,
                    known=known["worst"][number],
                    num_samples=config.num_fresh,
                    num_predictions=config.num_predictions,
                )

        return stages.cached_arrays(self._work.run, stage, compute)

    def _take(self, size: int) -> Posterior:
        """Return the first draws in a fixed random order: of all chains alike; 0: all of them."""
        posterior = self._train()[0]
        order = np.random.default_rng(self._case.repeat).permutation(posterior.num_samples)
        return posterior.take(order[:size] if size else order)

    def _min_ess(self, size: int) -> float | None:
        posterior, diagnostics = self._train()
        least = diagnostics.get("min_ess")
        return None if least is None else float(least) * size / posterior.num_samples

    def _pose(self, stage: str, size: int, report: Any = None) -> Problem:
        labelled = None
        if report is not None:

            def labelled(attack: str, done: int, total: int) -> None:
                report(done, total, label=attack)

        config, data = self._work.config, self._data
        # The key does not depend on the number of draws: random starts of all correspond.
        key = _derive(config, f"{self._case.name} {stage.partition('-')[0]}")
        context = RunContext(key, Settings(config.batch_size), labelled)
        suite = get_suite(config.suite)
        return Problem(self._take(size), data.x_test, data.y_test, suite, context)

    def _train(self) -> tuple[Posterior, dict[str, Any]]:
        if self._found is None:
            self._found = self._fit()
        return self._found

    def _fit(self) -> tuple[Posterior, dict[str, Any]]:
        work, dataset, training = self._work, self._data, TRAININGS[self.training]
        network = _build_network(self._case, dataset, work.config)
        held_out = Data(jnp.asarray(dataset.x_test), jnp.asarray(dataset.y_test))
        checkpoints = work.run.checkpoints(self._stage, work.config.checkpoint_every)

        def train() -> InferenceResult:
            if sampled := self._find_sampled():
                share = {"number": self._case.repeat, "count": work.config.num_repeats}
                return sampled.read_share(network, dataset.input_shape, held_out, **share)
            with progress(self._stage, training.module.UNIT) as report:
                result: InferenceResult = training.module.run(
                    _derive(work.config, self._stage),
                    network,
                    Data(jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train)),
                    training.configure(work.config, len(dataset.y_train)),
                    RunOptions(
                        held_out=held_out,
                        progress=report,
                        checkpoints=checkpoints,
                    ),
                )
            return result

        posterior, diagnostics = stages.cached_posterior(
            work.run, self._stage, network, dataset.input_shape, train
        )
        if checkpoints is not None:
            checkpoints.remove()
        return posterior, diagnostics

    def _find_sampled(self) -> SampledRun | None:
        """Return the run that has sampled its chains, if one has."""
        config = self._work.config
        if self.training != _SAMPLED:
            return None
        return _find_runs(config).get(self._case.dataset)


def _find_runs(config: Config) -> Mapping[str, SampledRun]:
    """Return the runs whose chains are taken, by their data."""
    return find_runs(config.mixed_runs, config.datasets if _SAMPLED in config.methods else ())


def _build_network(case: Case, dataset: Dataset, config: Config) -> nn.Module:
    return ARCHITECTURES[case.network].build(config, case.hidden, dataset.num_classes)


def _derive(config: Config, name: str) -> jax.Array:
    """Return a key that depends on a name alone: other stages do not change a stage's."""
    return jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(name.encode()))
