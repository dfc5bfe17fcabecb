"""Run one method on one posterior, and judge its chains at growing numbers of gradients."""

from __future__ import annotations

import functools
import json
import math
import time
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.compute.progress import Report, progress
from bnn_adv.compute.streaming import map_samples
from bnn_adv.data import Dataset, load_dataset
from bnn_adv.data.dataset import subset
from bnn_adv.inference import Data
from bnn_adv.inference.base import RunOptions
from bnn_adv.inference.densities import Prior, logdensity_fn
from bnn_adv.networks import ApplyFn
from bnn_adv.posteriors.posterior import Posterior, log_probs
from experiments.launch import stages
from experiments.launch.run_directory import RunDirectory
from experiments.samplers.config import (
    MCLMC,
    Config,
    build_posterior,
)
from experiments.samplers.plans import Plan, build_plan
from experiments.samplers.prefixes import Draws, keep_half, list_prefixes, summarise

_FACTS = "facts"
"""Name of the array that holds what JSON says of a run."""
_SHOWN = ("acceptance_rate", "num_divergent", "step_size", "length")


class Clock:
    """Measure how long a transition takes, without what is compiled before the first ones."""

    def __init__(self, report: Report, label: str, num_warmup: int) -> None:
        self._report, self._label, self._num_warmup = report, label, num_warmup
        self._started = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._last = (0, self._started)

    def __call__(self, done: int, total: int, metrics: dict[str, float]) -> None:
        """Note that ``done`` of ``total`` transitions are done."""
        self._report(done, total, metrics, label=self._label)
        self._last = done, time.monotonic()
        if self._first is None and done > self._num_warmup:
            self._first = self._last

    def seconds(self) -> float:
        """Return the seconds of a transition of all chains after the warm-up."""
        first = self._first or (0, self._started)
        if first[0] == self._last[0]:
            # All of them in one device call: compiling is within.
            first = (0, self._started)
        return (self._last[1] - first[1]) / max(self._last[0] - first[0], 1)


class Cell(NamedTuple):
    """One method on one posterior.

    target: Name of the posterior.
    method: Name of the row.
    """

    target: str
    method: str

    def __str__(self) -> str:
        """Return its name."""
        return self.name

    @property
    def name(self) -> str:
        """Name of its stages."""
        return f"{self.target}-{self.method}"

    def key(self, seed: int) -> jax.Array:
        """Return the key of its chains."""
        return jax.random.fold_in(jax.random.key(seed), zlib.crc32(self.name.encode()))


def load(config: Config, name: str) -> Dataset:
    """Return the data of a posterior.

    Raises:
      ValueError: There are fewer examples than are asked for.
    """
    posterior = build_posterior(config, name)
    dataset = load_dataset(
        posterior.dataset,
        config.data_dir or None,
        num_train=posterior.num_train or None,
        seed=config.seed,
    )
    if config.num_held_out > (most := len(dataset.y_test)):
        raise ValueError(
            f"--num_held_out must be at most {most}, the test examples of {dataset.name}, got "
            f"{config.num_held_out}."
        )
    return subset(dataset, num_test=config.num_held_out)


def fill(config: Config, run: RunDirectory, cell: Cell) -> None:
    """Compute the stages of one method on one posterior in a process of its own."""
    measure(config, cell, stages.note_data(run, load(config, cell.target)), run)


def measure(config: Config, cell: Cell, dataset: Dataset, run: RunDirectory) -> dict[str, Any]:
    """Return the record of one method on one posterior; sampling and judging are stages.

    A method whose chains fail is a record with the reason in ``"error"``, and no points.
    """
    held_out = _held_out(config, dataset)
    plan = build_plan(config, cell.target, cell.method, len(dataset.x_train))
    checkpoints = run.checkpoints(cell.name, config.checkpoint_every)

    def train() -> dict[str, np.ndarray]:
        with progress(cell.name, plan.module.UNIT) as report:
            try:
                arrays = sample(config, cell, plan, dataset, report, checkpoints)
            except FloatingPointError as error:
                return {_FACTS: _to_bytes({"error": str(error)})}
        return arrays

    arrays = stages.cached_arrays(run, cell.name, train)
    if checkpoints is not None:
        checkpoints.remove()
    facts = json.loads(arrays.pop(_FACTS).tobytes())
    common = {"target": cell.target, "method": cell.method, "error": "", "points": []}
    if "error" in facts:
        return common | facts
    draws = Draws(labels=np.asarray(held_out.y), **arrays)

    def judge() -> dict[str, Any]:
        return {"points": list_points(draws, config.num_points)}

    return common | facts | stages.cached(run, f"{cell.name}-points", judge)


def list_points(draws: Draws, number: int) -> list[dict[str, Any]]:
    """Return the numbers of growing prefixes of a run that have enough draws."""
    found = []
    for upto in list_prefixes(draws.total, number):
        kept = keep_half(draws, upto)
        if kept is not None:
            found.append(summarise(kept, upto))
    return found


def sample(
    config: Config, cell: Cell, plan: Plan, dataset: Dataset, report: Report, checkpoints: Any
) -> dict[str, np.ndarray]:
    """Run the chains, and return what is kept of their draws, see ``Draws``, and the facts."""
    posterior = build_posterior(config, cell.target)
    network = posterior.network(dataset.num_classes)
    data = Data(jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train))
    settings = plan.settings
    clock = Clock(report, cell.name, settings.num_warmup)
    options = RunOptions(progress=clock, checkpoints=checkpoints)
    key = cell.key(config.seed)
    result = plan.module.run(key, network, data, settings, options)
    assert result.chains is not None
    found, stats, num_chains = result.diagnostics, result.chains.sample_stats, settings.num_chains
    gradients = _count(plan, found, stats)
    share = gradients[:, -1] - gradients[:, 0]
    each = share.mean() / max(_end(plan, settings.num_samples - 1) - _end(plan, 0), 1)
    num_params = sum(leaf[0].size for leaf in jax.tree.leaves(result.posterior.samples))
    facts = {
        "num_params": num_params,
        # Of one chain: a CPU runs them one after the other.
        "seconds_per_gradient": clock.seconds() / num_chains / each if each > 0 else None,
        **{name: found[name] for name in _SHOWN if name in found},
    }
    if cell.method == MCLMC:
        facts["energy_variance"] = late_variance(stats["energy_error"]) / num_params
    held_out = _held_out(config, dataset)
    probabilities = log_probs(result.posterior, held_out.x)
    density = densities(result.posterior, data, settings.prior)
    shape = (num_chains, settings.num_samples)
    return {
        "log_probs": np.asarray(probabilities, np.float32).reshape(*shape, len(held_out.y), -1),
        "log_density": np.asarray(density, np.float64).reshape(shape),
        "gradients": gradients,
        _FACTS: _to_bytes(facts),
    }


def densities(posterior: Posterior, data: Data, prior: Prior) -> jax.Array:
    """Return the log density of every draw on all training data, [S], in nats up to a constant."""
    with jax.default_matmul_precision(posterior.precision):
        found: jax.Array = _densities(posterior.samples, data, posterior.apply_fn, prior)
    return found


@functools.partial(jax.jit, static_argnames=("apply_fn", "prior"))
def _densities(samples: Any, data: Data, apply_fn: ApplyFn, prior: Prior) -> jax.Array:
    def one_draw(params: Any) -> jax.Array:
        return logdensity_fn(params, data, apply_fn=apply_fn, prior=prior, centred=True)

    found: jax.Array = map_samples(one_draw, samples, chunk=1)
    return found


def late_variance(errors: np.ndarray) -> float:
    """Return the variance of the finite energy errors of the later half of draws, all chains'."""
    late = errors[:, errors.shape[1] // 2 :].astype(np.float64)
    return float(late[np.isfinite(late)].var()) if np.isfinite(late).any() else math.nan


def _count(plan: Plan, found: Mapping[str, Any], stats: Mapping[str, Any]) -> np.ndarray:
    """Return the gradients of all data that each chain had taken by each draw, [chains, draws].

    Those before the first draw are equal shares of what all chains took; of minibatches, those
    between draws too.
    """
    settings = plan.settings
    # Those of where they start count too: methods are compared that start in different ways.
    before = found.get("num_starting_gradients", 0) + found.get("num_tuning_gradients", 0)
    before += found["num_warmup_gradients"]
    if (each := stats.get("num_gradients")) is not None:
        taken = np.cumsum(each, axis=1, dtype=np.float64)
    else:
        ends = np.array([_end(plan, draw) for draw in range(settings.num_samples)], np.float64)
        share = found["num_gradients"] / settings.num_chains / ends[-1]
        taken = np.tile(share * ends, (settings.num_chains, 1))
    counted: np.ndarray = before / settings.num_chains + taken
    return counted


def _end(plan: Plan, draw: int) -> int:
    """Return how many transitions after the warm-up it takes to draw number ``draw``."""
    cycle = getattr(plan.settings, "cycle", None)
    ends: int = (draw + 1) * plan.settings.thinning if cycle is None else cycle.end(draw)
    return ends


def _held_out(config: Config, dataset: Dataset) -> Data:
    kept = slice(config.num_held_out)
    return Data(jnp.asarray(dataset.x_test[kept]), jnp.asarray(dataset.y_test[kept]))


def _to_bytes(values: dict[str, Any]) -> np.ndarray:
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    return np.frombuffer(json.dumps(finite).encode(), np.uint8)
