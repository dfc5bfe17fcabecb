"""Train the networks of half moons one by one, measure them, and attack them."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks.threat import THREATS
from bnn_adv.compute.progress import Report, progress
from bnn_adv.data import Dataset, load_dataset
from bnn_adv.evaluation import Settings, run_suite
from bnn_adv.evaluation.suites import Suite, list_compared
from bnn_adv.inference import InferenceResult, RunOptions, hmc
from bnn_adv.inference.densities import Data
from bnn_adv.networks import build_network
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from bnn_adv.theory.gradient_decay import typical_norm, zero_share
from bnn_adv.theory.gradients import (
    GradientSettings,
    expected_loss_gradients,
    prior_control,
    shuffle_draws,
)
from experiments.half_moons.config import (
    Cell,
    Config,
    hmc_config,
    list_cells,
    list_counts,
)
from experiments.half_moons.figures import Attacked, Gradients, Network
from experiments.half_moons.truth import Search, classify_plane, compare, search
from experiments.launch import stages
from experiments.launch.run_directory import RunDirectory

_NUM_ORDERS = 5


class _Context(NamedTuple):
    """What all networks share: settings, run, all points, and those that are measured."""

    config: Config
    run: RunDirectory
    dataset: Dataset
    x: np.ndarray
    y: np.ndarray

    def key(self, cell: Cell, purpose: int) -> jax.Array:
        """Return a network's key for one purpose."""
        key = jax.random.key(self.config.seed)
        for number in (*cell.streams, purpose):
            key = jax.random.fold_in(key, number)
        return key


def measure_all(config: Config, run: RunDirectory) -> list[Network]:
    """Return all networks of a run; each step of each is a stage.

    Args:
      config: Settings of the study.
      run: Where stages are.
    """
    whole = stages.note_data(run, load_dataset("half_moons", seed=config.seed))
    stages.note_suites(run, list_compared(config.suite).values())
    rows = np.random.default_rng(config.seed).permutation(len(whole.x_test))[: config.num_points]
    context = _Context(config, run, whole, whole.x_test[rows], whole.y_test[rows])
    with progress("half moons", "steps") as report:
        return [_measure(context, cell, report) for cell in list_cells(config)]


def _measure(context: _Context, cell: Cell, report: Report) -> Network:
    """Train one network of the grid and measure it; one that fails is a row with its reason."""
    try:
        posterior, diagnostics = _train(context, cell, report)
    except FloatingPointError as error:
        return Network(*cell[:3], {}, str(error), None, {}, (), cell.kind)
    if not diagnostics["held_out_accuracy"] >= context.config.least_accuracy:
        reason = f"accuracy below {100 * context.config.least_accuracy:g} %"
        return Network(*cell[:3], diagnostics, reason, None, {}, (), cell.kind)
    gradients = _gradients(context, cell, posterior)
    judged = _choose(context, cell, posterior)
    found = _search(context, cell, judged, report)
    attacked = _attack(context, cell, judged, found, report)
    distances = {norm: result.distance for norm, result in found.items()}
    return Network(*cell[:3], diagnostics, "", gradients, distances, attacked, cell.kind)


def _train(context: _Context, cell: Cell, report: Report) -> tuple[Posterior, dict[str, Any]]:
    config = context.config
    network = build_network("fc2", hidden=cell.hidden, num_classes=2, activation="leaky_relu")
    points = load_dataset("half_moons", num_train=cell.num_train, seed=config.seed)
    kept = slice(config.num_held_out)
    name = f"hmc-{cell.name}"
    checkpoints = context.run.checkpoints(name, config.checkpoint_every)

    def train() -> InferenceResult:
        return hmc.run(
            context.key(cell, 0),
            network,
            Data(jnp.asarray(points.x_train), jnp.asarray(points.y_train)),
            hmc_config(config, cell),
            RunOptions(
                held_out=Data(jnp.asarray(points.x_test[kept]), jnp.asarray(points.y_test[kept])),
                progress=lambda done, total, numbers: report(done, total, numbers, label=name),
                checkpoints=checkpoints,
            ),
        )

    posterior, diagnostics = stages.cached_posterior(context.run, name, network, (2,), train)
    if checkpoints is not None:
        checkpoints.remove()
    return posterior, diagnostics


def _gradients(context: _Context, cell: Cell, posterior: Posterior) -> Gradients:
    """Measure posterior and prior alike, draws in random order, so that the first is any one."""
    counts = list_counts(posterior.num_samples)
    num_chains = hmc_config(context.config, cell).num_chains

    def compute() -> dict[str, np.ndarray]:
        arrays = {}
        for number, (name, draws) in enumerate(
            (
                ("posterior", shuffle_draws(context.key(cell, 1), posterior)),
                ("prior", prior_control(context.key(cell, 2), posterior, posterior.num_samples)),
            )
        ):
            found = expected_loss_gradients(
                context.key(cell, 3 + number),
                draws,
                context.x,
                context.y,
                counts=counts,
                settings=GradientSettings(num_orders=_NUM_ORDERS),
            )
            arrays[name], arrays[f"{name}_single"] = found.means[-1], found.means[0]
            arrays[f"{name}_norms"] = typical_norm(found.mean_l2, "rms")
            arrays[f"{name}_zeros"] = zero_share(found).mean()
        own = [
            expected_loss_gradients(
                context.key(cell, 3), chain, context.x, context.y, counts=(chain.num_samples,)
            ).means[-1]
            for chain in _split(posterior, num_chains)
        ]
        return arrays | {"chains": np.stack(own)}

    stored = stages.cached_arrays(context.run, f"gradients-{cell.name}", compute)
    return Gradients(
        stored["posterior"],
        stored["chains"],
        stored["posterior_single"],
        stored["prior"],
        np.asarray(counts),
        stored["posterior_norms"],
        stored["prior_norms"],
        float(stored["posterior_zeros"]),
    )


def _split(posterior: Posterior, num_chains: int) -> list[Posterior]:
    """Return each chain's draws; they follow one another."""
    return [posterior.take(rows) for rows in np.split(np.arange(posterior.num_samples), num_chains)]


def _choose(context: _Context, cell: Cell, posterior: Posterior) -> Posterior:
    """Return the draws that predict, and that the attacker knows."""
    size = context.config.num_attacked
    if not size or size == posterior.num_samples:
        return posterior
    order = jax.random.permutation(context.key(cell, 5), posterior.num_samples)
    return posterior.take(order[:size])


def _search(
    context: _Context, cell: Cell, posterior: Posterior, report: Report
) -> dict[str, Search]:
    """Search the plane: one grid serves every norm and radius."""
    name, norms = f"truth-{cell.name}", context.config.norms

    def compute() -> dict[str, np.ndarray]:
        plane = classify_plane(
            posterior,
            context.config.num_ticks,
            progress=lambda done, total: report(done, total, label=name),
        )
        predicted = _classes(posterior, context.x)
        arrays: dict[str, np.ndarray] = {}
        for norm in norms:
            found = search(plane, context.x, context.y, predicted, norm=norm)
            fields = found._asdict().items()
            arrays |= {f"{norm}_{field}": np.asarray(value) for field, value in fields}
        return arrays

    stored = stages.cached_arrays(context.run, name, compute)
    return {
        norm: Search(
            stored[f"{norm}_distance"], stored[f"{norm}_witness"], float(stored[f"{norm}_reach"])
        )
        for norm in norms
    }


def _attack(
    context: _Context,
    cell: Cell,
    posterior: Posterior,
    found: dict[str, Search],
    report: Report,
) -> tuple[Attacked, ...]:
    """Run every suite in every ball, and hold what each attack left against the grid."""
    rows = []
    for norm in context.config.norms:
        for index, epsilon in enumerate(context.config.epsilons):
            for role, suite in list_compared(context.config.suite).items():
                name = f"attack-{cell.name}-{norm}-{index}-{role}"
                threat = THREATS[norm](epsilon)
                compute = functools.partial(
                    _standing, context, cell, posterior, threat, suite, name, report
                )
                stored = stages.cached_arrays(context.run, name, compute)
                for attack, standing in stored.items():
                    comparison = compare(found[norm], standing, epsilon)
                    rows.append(Attacked(norm, epsilon, role, attack, comparison))
    return tuple(rows)


def _standing(
    context: _Context,
    cell: Cell,
    posterior: Posterior,
    threat: Any,
    suite: Suite,
    name: str,
    report: Report,
) -> dict[str, np.ndarray]:
    """Return which points every attack of a suite leaves standing, by the attack's name."""
    result = run_suite(
        context.key(cell, 6),
        suite,
        posterior,
        context.x,
        context.y,
        threat=threat,
        settings=Settings(
            batch_size=len(context.x),
            checkpoints=context.run.checkpoints(name, context.config.checkpoint_every),
        ),
        progress=lambda attack, done, total: report(done, total, label=f"{name} {attack}"),
    )
    return {
        attack: _classes(posterior, inputs) == context.y
        for attack, inputs in result.adversarial.items()
    }


def _classes(posterior: Posterior, x: np.ndarray) -> np.ndarray:
    return np.asarray(predict_log_probs(posterior, jnp.asarray(x))).argmax(axis=-1)
