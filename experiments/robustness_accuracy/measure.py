"""What the clouds compute, network by network: training, attacks, a row of numbers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bnn_adv.attacks.threat import LInf
from bnn_adv.compute import files, parallel
from bnn_adv.compute.identity import OtherWorkError
from bnn_adv.compute.progress import progress
from bnn_adv.data import Dataset
from bnn_adv.evaluation import Settings, metrics, run_suite
from bnn_adv.evaluation.cascade import predict
from bnn_adv.evaluation.suites import list_compared
from bnn_adv.evaluation.worst import worst_log_probs
from bnn_adv.inference import METHODS, InferenceResult, RunOptions
from bnn_adv.inference.densities import Data
from bnn_adv.inference.diagnostics import MIXING_KEYS
from bnn_adv.networks import build_network
from bnn_adv.posteriors.decision import predicted_class
from bnn_adv.posteriors.posterior import Posterior, one_draw
from experiments.launch import stages
from experiments.launch.run_directory import RunDirectory, identify_run
from experiments.launch.sampled import SampledRun
from experiments.robustness_accuracy.config import Config, Task, find_sampled, method_config
from experiments.robustness_accuracy.grids import GridNetwork

_HELD_OUT = 200
_METHODS = {"vi": "svi", "ensemble": "sgd"}
"""Methods that the library calls otherwise."""
_LOGITS = ("sgd", "ensemble")
"""The output of a deterministic network are its logits, that of an ensemble their mean."""
_HARMLESS = {"data_dir", "checkpoint_every"}
_KEPT = (*MIXING_KEYS, "num_divergent", "training_seconds", "sampled_by", "sampled_hash")
_FAILURES = (FloatingPointError, ValueError, RuntimeError, MemoryError)
"""What makes a network a row with a reason: numbers, settings, and devices out of memory. What is
stored and is not this run's ends the run: it says nothing of a network."""


class Work(NamedTuple):
    """What all networks share.

    config: Settings.
    run: The run directory.
    datasets: By name, see ``Task.data``; their test images are attacked.
    """

    config: Config
    run: RunDirectory
    datasets: dict[str, Dataset]


def measure_all(work: Work, tasks: list[Task]) -> Iterator[dict[str, Any]]:
    """Yield a row for every network, in order; networks past the time budget are not run."""
    for task in tasks:
        trainer = _Trainer(work, task)
        for place, network in enumerate(task.members):
            yield _measure(work, task, place, network, trainer)
        trainer.forget()


def is_spent(work: Work) -> bool:
    """Return whether the time budget is used up."""
    budget = work.config.time_budget
    return parallel.agree(bool(budget) and stages.spent(work.run) >= budget)


def row_path(stage: str) -> str:
    """Return where a finished network's row waits, within the run directory."""
    return f"partial/row-{stage}.json"


def _measure(
    work: Work, task: Task, place: int, network: GridNetwork, trainer: _Trainer
) -> dict[str, Any]:
    stage = task.stage(network)
    about = {
        "name": network.name,
        "dataset": task.dataset,
        "method": network.method,
        "source": network.source,
        "starred": network.is_starred,
        "settings": dict(network.settings),
    }
    if parallel.agree((work.run.path / row_path(stage)).exists()):
        return stages.cached(work.run, f"row-{stage}", _stored)
    if is_spent(work):
        return {**about, "status": "not run", "reason": "the time budget was spent"}
    try:
        posterior, diagnostics = trainer.train(place)
    except OtherWorkError:
        raise
    except _FAILURES as error:
        failed = _failed(about, error)
        return stages.cached(work.run, f"row-{stage}", lambda: failed)

    def compute() -> dict[str, Any]:
        try:
            return {**about, **_attack(work, task, stage, posterior, diagnostics)}
        except OtherWorkError:
            raise
        except _FAILURES as error:
            return _failed(about, error)

    return stages.cached(work.run, f"row-{stage}", compute)


def _stored() -> dict[str, Any]:
    raise FileNotFoundError("A stored row vanished while the run was reading it.")


def _failed(about: dict[str, Any], error: BaseException) -> dict[str, Any]:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return {**about, "status": "failed", "reason": reason}


class _Trainer:
    """Train the members of a task when the first of them is asked for; alone where that fails."""

    def __init__(self, work: Work, task: Task) -> None:
        self._work, self._task = work, task
        self._names: list[str] = []
        self._failed = False

    def train(self, place: int) -> tuple[Posterior, dict[str, Any]]:
        """Return the posterior and the diagnostics of a member."""
        members = self._task.members
        if len(members) > 1 and not self._failed:
            try:
                both, diagnostics = self._fit(f"together-{self._task.stage(members[0])}", members)
                return both.take([place]), diagnostics
            except FloatingPointError:
                # One of them spoils the loss of all.
                self._failed = True
        return self._fit(self._task.stage(members[place]), (members[place],))

    def forget(self) -> None:
        """Delete draws whose rows are all finished: thousands of networks would fill a disk."""
        done = [row_path(self._task.stage(member)) for member in self._task.members]
        folder = self._work.run.path
        if parallel.is_writer() and all((folder / path).exists() for path in done):
            for name in self._names:
                for end in (".json", ".npz"):
                    (folder / "posterior" / f"{name}{end}").unlink(missing_ok=True)

    def _fit(self, name: str, members: tuple[GridNetwork, ...]) -> tuple[Posterior, dict[str, Any]]:
        work, dataset = self._work, self._work.datasets[self._task.data]
        self._names.append(name)
        first = members[0]
        network = build(first, dataset.num_classes)
        checkpoints = work.run.checkpoints(name, work.config.checkpoint_every)

        held_out = Data(
            jnp.asarray(dataset.x_test[:_HELD_OUT]), jnp.asarray(dataset.y_test[:_HELD_OUT])
        )

        def train() -> InferenceResult:
            if self._task.is_sampled and (sampled := _find(work.config, self._task.dataset)):
                return sampled.read(network, dataset.input_shape)
            with progress(name, "steps") as report:
                return METHODS[_METHODS.get(first.method, first.method)].run(
                    _key(work.config, name, 0),
                    network,
                    Data(jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train)),
                    method_config(work.config, members, len(dataset.y_train)),
                    RunOptions(held_out=held_out, progress=report, checkpoints=checkpoints),
                )

        posterior, diagnostics = stages.cached_posterior(
            work.run,
            name,
            network,
            dataset.input_shape,
            train,
            decision_rule="mean_logits" if first.method in _LOGITS else "mean_probabilities",
        )
        if checkpoints is not None:
            checkpoints.remove()
        return posterior, diagnostics


def _find(config: Config, dataset: str) -> SampledRun | None:
    """Return the run whose chains are taken; one that has gone since the start ends the study."""
    try:
        return find_sampled(config).get(dataset)
    except ValueError as error:
        raise OtherWorkError(str(error)) from None


def _attack(
    work: Work, task: Task, stage: str, posterior: Posterior, diagnostics: dict[str, Any]
) -> dict[str, Any]:
    """Return a network's numbers under the published, the corrected and the strong suite."""
    config, dataset = work.config, work.datasets[task.data]
    x, y, settings = dataset.x_test, dataset.y_test, Settings(config.batch_size)
    num_draws = posterior.num_samples
    most = config.matched_num_draws if task.is_matched else config.num_attacked
    if most and most < num_draws:
        places = np.linspace(0, num_draws - 1, most).round().astype(int)
        posterior = posterior.take(places)
    clean = predict(posterior, x, settings)
    share = metrics.accuracy(clean, y)
    suites: dict[str, Any] = {}
    seen = []

    def describe(log_probs: np.ndarray) -> dict[str, float]:
        return {
            "accuracy": metrics.accuracy(log_probs, y),
            "published_metric": metrics.published_softmax_robustness(
                clean, log_probs, decision_rule=posterior.decision_rule
            ),
            "corrected_metric": metrics.softmax_robustness(clean, log_probs),
        }

    for key, suite in list_compared(config.suite).items():
        with progress(f"{stage}: {key}", "image-steps") as report:
            found = run_suite(
                _key(config, stage, 1),
                suite,
                posterior,
                x,
                y,
                threat=LInf(config.epsilon),
                settings=settings,
                progress=_labelled(report),
            )
        suites[key] = {"zero_gradient_share": found.zero_gradient_share}
        for attack, images in found.adversarial.items():
            seen.append(predict(posterior, images, settings))
            suites[key][attack] = describe(seen[-1])
    # An image that any attack breaks is not robust.
    worst = worst_log_probs(seen, y)
    suites["strong"]["worst"] = describe(worst)
    # Image by image, so that methods on the same images can be compared in pairs.
    standing = (predicted_class(worst) == y).astype(int).tolist() if task.is_matched else None
    return {
        "status": "done",
        "reason": "",
        "num_draws": num_draws,
        "num_attacked": posterior.num_samples,
        "num_params": sum(
            int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(one_draw(posterior))
        ),
        "num_test": len(y),
        "accuracy": share,
        "accuracy_interval": list(metrics.wilson_interval(share, len(y))),
        "protocols": suites,
        **({"standing": standing} if task.is_matched else {}),
        "diagnostics": {key: diagnostics[key] for key in _KEPT if key in diagnostics},
    }


def _labelled(report: Any) -> Callable[[str, int, int], None]:
    return lambda attack, done, total: report(done, total, label=attack)


def _key(config: Config, name: str, purpose: int) -> jax.Array:
    """Return a key that depends on the name alone: other networks do not change a network's."""
    key = jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(key, purpose)


def build(network: GridNetwork, num_classes: int) -> nn.Module:
    """Return a network of the grids, untrained."""
    return build_network(
        network.get("architecture"),
        hidden=network.get("hidden"),
        num_classes=num_classes,
        activation=network.get("activation"),
    )


def reopen(path: Any, config: dict[str, Any]) -> bool:
    """Let a run that ended on its time budget go on with a larger one.

    Its rows go back to where the run looks for them, and its results are removed.

    Args:
      path: The run directory.
      config: All settings, as the run directory holds them.

    Returns:
      Whether there was such a run.
    """
    stored, results = path / "config.json", path / "results.json"
    if not parallel.agree(stored.exists()):
        return False
    before, after = files.read_json(stored), config["time_budget"]
    changes = {name for name in {**before, **config} if before.get(name) != config.get(name)}
    grows = before.get("time_budget") and (not after or after > before["time_budget"])
    if not grows or not {"time_budget"} <= changes <= {"time_budget", *_HARMLESS}:
        return False
    if parallel.is_writer():
        found = files.read_json(results) if results.exists() else {}
        rows = found.get("data", {}).get("networks", [])
        origin = {"settings": identify_run(before), **found.get("sources", {})}
        for row in rows:
            if row["status"] != "not run":
                waits = path / row_path(f"{row['dataset']}-{row['name']}")
                files.write_json(waits, stages.wrap(row, origin))
        results.unlink(missing_ok=True)
        # Last: a run of the old budget without results is reopened again.
        files.write_json(stored, {**before, "time_budget": after})
    parallel.barrier("reopen")
    return True
