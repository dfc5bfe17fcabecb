"""A whole suite against a predictor that draws anew, and the worst of what it found per image."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bnn_adv.attacks import run_attack
from bnn_adv.attacks.base import Attack
from bnn_adv.attacks.objectives import get_objective
from bnn_adv.attacks.threat import Threat, take_rows
from bnn_adv.evaluation.cascade import RunContext, knows
from bnn_adv.evaluation.fresh import accuracy_interval, check_defender, predict_wrong
from bnn_adv.evaluation.fresh_table import (
    AttackerDefenderTable,
    TableSettings,
    attacker_defender_table,
)
from bnn_adv.evaluation.suites import Entry
from bnn_adv.posteriors.posterior import Posterior, shard_posterior
from bnn_adv.posteriors.sampler import FreshDraws, Sampler

MIN_HELD_OUT = 50
"""Draws by which an attack chooses its best iterate, at least."""

FROZEN, CLEAN = "frozen suite", "clean"
"""Names of the candidates that no attack on the fresh predictor found."""

TABLE_SAMPLES = (1, 10)
"""Draws of attackers and defenders in the table, beside the evaluation's own number."""


class FreshSubject(NamedTuple):
    """What is attacked.

    sampler: The predictor; the attacker knows how it draws ("fresh").
    x: Clean images, [N, ...].
    y: Labels, [N].
    threat: Norm, radius and box.
    num_samples: New draws of a gradient and of a prediction, S, at least 1.
    num_predictions: Predictions an image, P, at least 1.
    """

    sampler: Sampler
    x: np.ndarray
    y: np.ndarray
    threat: Threat
    num_samples: int
    num_predictions: int


class FreshSuite(NamedTuple):
    """What a suite found on N images of a predictor that draws anew.

    x_adv: The worst candidate of every image, [N, ...].
    success_rate: Share of the reported predictions that are wrong there, [N].
    accuracy: Expected adversarial accuracy: the mean of ``1 - success_rate``.
    interval: Its 95 % interval, over images and predictions.
    mostly_fooled: Share of images that more than half of the predictions get wrong.
    clean: Expected accuracy on the clean images, by the same draws.
    clean_interval: Its 95 % interval.
    per_entry: By candidate: name, objective, expected accuracy with interval, and the share of
      images for which it was chosen. The accuracies are those of the predictions that chose.
    attacker_samples: New draws that made the gradient of a step.
    held_out_samples: Draws by which an attack chose its best iterate.
    defender_samples: New draws whose mean is a prediction.
    num_predictions: Predictions an image; as many others chose.
    table: Attackers against defenders by their draws; None where it was left out.
    """

    x_adv: np.ndarray
    success_rate: np.ndarray
    accuracy: float
    interval: tuple[float, float]
    mostly_fooled: float
    clean: float
    clean_interval: tuple[float, float]
    per_entry: tuple[dict[str, Any], ...]
    attacker_samples: int
    held_out_samples: int
    defender_samples: int
    num_predictions: int
    table: AttackerDefenderTable | None

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON."""
        numbers = {name: value for name, value in self._asdict().items() if name != "x_adv"}
        return {
            **numbers,
            "success_rate": self.success_rate.tolist(),
            "interval": list(self.interval),
            "clean_interval": list(self.clean_interval),
            "per_entry": list(self.per_entry),
            "table": None if self.table is None else self.table.to_dict(),
        }


def frozen_draws(rng_key: jax.Array, sampler: Sampler, num_samples: int) -> Posterior:
    """Return the draws that ``evaluate`` freezes and attacks.

    Args:
      rng_key: The evaluation's key.
      sampler: The predictor.
      num_samples: Draws, S, at least 1.
    """
    return sampler.sample(_derive(rng_key, "frozen draws"), num_samples)


def run_fresh_suite(
    entries: Sequence[Entry],
    subject: FreshSubject,
    context: RunContext,
    *,
    frozen: np.ndarray,
    probe: np.ndarray,
) -> FreshSuite:
    """Run the gradient attacks of a suite on a fresh predictor, and keep the worst of each image.

    Gradients are those of S new draws at every step; an attack's best iterate is the one that
    held-out draws call best. Candidates of an image are what the attacks return, the frozen
    evaluation's worst image, and the clean image. The one that most of P predictions get wrong is
    kept (of equals the first), and P others say what it is worth: no draw that made or chose an
    image reports on it.

    Args:
      entries: The suite's attacks; those that follow no gradient, that attack a stand-in, or that
        do not know the norm are left out.
      subject: What is attacked.
      context: Key, sizes, progress, checkpoints.
      frozen: The worst images of the frozen evaluation, [N, ...].
      probe: Indices of the images of the table, [M]; empty leaves it out.

    Raises:
      ValueError: A number is below one.
    """
    check_defender(subject.num_samples, subject.num_predictions)
    context = context._replace(rng_key=_derive(context.rng_key, "fresh suite"))
    useful = [entry for entry in entries if _is_useful(entry, subject.threat)]
    candidates = {entry.name: _attack(entry, subject, context) for entry in useful}
    candidates |= {FROZEN: frozen, CLEAN: subject.x}

    def judge(purpose: str, images: np.ndarray) -> np.ndarray:
        return predict_wrong(
            _derive(context.rng_key, purpose),
            subject.sampler,
            images,
            subject.y,
            subject.num_samples,
            subject.num_predictions,
            context.settings,
        )

    wrong = {name: judge("choice", images) for name, images in candidates.items()}
    rates = np.stack([table.mean(axis=0) for table in wrong.values()])
    chosen = np.argmax(rates, axis=0)
    worst = np.stack(list(candidates.values()))[chosen, np.arange(len(chosen))]
    reported, clean = judge("report", worst), judge("report", subject.x)
    success_rate = reported.mean(axis=0)
    return FreshSuite(
        x_adv=worst,
        success_rate=success_rate,
        accuracy=float(1 - success_rate.mean()),
        interval=accuracy_interval(reported),
        mostly_fooled=float((success_rate > 0.5).mean()),
        clean=float(1 - clean.mean()),
        clean_interval=accuracy_interval(clean),
        per_entry=tuple(_describe(useful, wrong, chosen)),
        attacker_samples=subject.num_samples,
        held_out_samples=_held_out(subject),
        defender_samples=subject.num_samples,
        num_predictions=subject.num_predictions,
        table=_table(useful, subject, probe, context),
    )


def _is_useful(entry: Entry, threat: Threat) -> bool:
    return entry.attack.uses_gradient and entry.surrogate == "posterior" and knows(entry, threat)


def _attack(entry: Entry, subject: FreshSubject, context: RunContext) -> np.ndarray:
    key = _derive(context.rng_key, entry.name)
    held_out = subject.sampler.sample(_derive(key, "held out"), _held_out(subject))
    held_out = shard_posterior(held_out, context.settings.mesh)
    return run_attack(
        _derive(key, "attack"),
        _to_the_end(entry),
        get_objective(entry.objective),
        FreshDraws(subject.sampler, subject.num_samples, held_out),
        subject.x,
        subject.y,
        threat=subject.threat,
        settings=context.attack_settings(f"{entry.name}, fresh", f"fresh/{entry.name}"),
    )


def _to_the_end(entry: Entry) -> Attack:
    # An image that the held-out draws get wrong goes on: others may still get it right.
    return dataclasses.replace(entry.attack, stop_on_success=False)


def _describe(
    entries: Sequence[Entry], wrong: Mapping[str, np.ndarray], chosen: np.ndarray
) -> list[dict[str, Any]]:
    objectives = {entry.name: entry.objective_name for entry in entries}
    return [
        {
            "name": name,
            "objective": objectives.get(name),
            "accuracy": float(1 - table.mean()),
            "interval": list(accuracy_interval(table)),
            "chosen": float((chosen == number).mean()),
        }
        for number, (name, table) in enumerate(wrong.items())
    ]


def _table(
    entries: Sequence[Entry], subject: FreshSubject, probe: np.ndarray, context: RunContext
) -> AttackerDefenderTable | None:
    if not entries or not len(probe):
        return None
    sizes = tuple(sorted({*TABLE_SAMPLES, subject.num_samples}))
    return attacker_defender_table(
        _derive(context.rng_key, "table"),
        subject.sampler,
        subject.x[probe],
        subject.y[probe],
        threat=take_rows(subject.threat, probe),
        attack=_to_the_end(entries[0]),
        objective=get_objective(entries[0].objective),
        settings=TableSettings.extend(
            context.settings,
            attacker_samples=sizes,
            defender_samples=sizes,
            held_out_samples=_held_out(subject),
            num_predictions=subject.num_predictions,
            progress=context.progress,
        ),
    )


def _held_out(subject: FreshSubject) -> int:
    # A multiple, so that a mesh which splits the frozen draws evenly splits these as well.
    return -(-MIN_HELD_OUT // subject.num_samples) * subject.num_samples


def _derive(rng_key: jax.Array, what: str) -> jax.Array:
    return jax.random.fold_in(rng_key, zlib.crc32(what.encode()))
