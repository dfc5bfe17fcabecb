"""Attackers against defenders by the number of draws each of them averages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bnn_adv.attacks import inputs
from bnn_adv.attacks.base import Attack, Settings
from bnn_adv.attacks.objectives import Objective
from bnn_adv.attacks.subject import describe
from bnn_adv.attacks.threat import Threat
from bnn_adv.compute import arguments
from bnn_adv.compute.checkpoint import NoCheckpoints
from bnn_adv.compute.identity import identify
from bnn_adv.evaluation.cascade import SuiteProgress
from bnn_adv.evaluation.fresh import (
    FreshSettings,
    accuracy_interval,
    check_defender,
    defender_key,
    find_adversarial,
    predict_wrong,
)
from bnn_adv.posteriors.sampler import Sampler, check_num_samples


@dataclasses.dataclass(frozen=True)
class TableSettings(Settings):
    """How attackers and defenders are compared, beside batch and chunk sizes.

    Args:
      batch_size: Images at once.
      sample_chunk: Draws at once.
      mesh: Devices to split the work over.
      checkpoints: Where to save progress and to continue from it.
      attacker_samples: As for ``FreshSettings``, one value an attacker.
      defender_samples: Likewise, one value a defender.
      held_out_samples: As for ``FreshSettings``.
      num_predictions: Predictions an image, at least 1.
      progress: Progress callback.
    """

    attacker_samples: Sequence[int] = (1, 10, 50)
    defender_samples: Sequence[int] = (1, 10, 50)
    held_out_samples: int = 50
    num_predictions: int = 100
    progress: SuiteProgress | None = None


class AttackerDefenderTable(NamedTuple):
    """The expected adversarial accuracy by the attacker's and the defender's draws.

    attacker_samples: New draws that make the gradient of a step, A values.
    defender_samples: New draws whose mean is a prediction, D values.
    accuracies: Expected adversarial accuracy, [A, D].
    intervals: 95 % intervals, [A, D, 2].
    clean: Expected accuracy on the clean images, [D].
    clean_intervals: 95 % intervals, [D, 2].
    num_images: Images, N.
    num_predictions: Predictions an image.
    """

    attacker_samples: tuple[int, ...]
    defender_samples: tuple[int, ...]
    accuracies: np.ndarray
    intervals: np.ndarray
    clean: np.ndarray
    clean_intervals: np.ndarray
    num_images: int
    num_predictions: int

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as lists and numbers, ready for JSON."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in self._asdict().items()
        } | {
            "attacker_samples": list(self.attacker_samples),
            "defender_samples": list(self.defender_samples),
        }

    def __str__(self) -> str:
        """Return a table in plain text: a row an attacker, a column a defender, in percent."""
        # On demand, as the report brings matplotlib.
        from bnn_adv.report.fresh import pair_table
        from bnn_adv.report.table import to_text

        count = f"{self.num_images} images, {self.num_predictions} predictions an image"
        title = f"Expected accuracy in %, with 95 % intervals ({count})"
        return f"{title}\n{to_text(pair_table(self.to_dict()))}"


def attacker_defender_table(
    rng_key: jax.Array,
    sampler: Sampler,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    attack: Attack,
    objective: Objective,
    settings: Settings = TableSettings(),
) -> AttackerDefenderTable:
    """Return the expected adversarial accuracy for every pair of attacker and defender.

    The images of an attacker are judged by all defenders, and a defender's predictions use the same
    draws for all attackers and for the clean images. An entry equals that of ``attack_fresh``.

    Args:
      rng_key, sampler, x, y, threat, attack, objective: As for ``attack_fresh``.
      settings: ``TableSettings``, or batch and chunk sizes alone.

    Raises:
      ValueError: A number is below one, or as for ``run_attack``.
    """
    arguments.check_key(rng_key)
    x, y, threat = inputs.convert(x, y, threat)
    how = TableSettings.extend(settings)
    attackers, defenders = tuple(how.attacker_samples), tuple(how.defender_samples)
    num_predictions = how.num_predictions
    for name, sizes in (("attacker_samples", attackers), ("defender_samples", defenders)):
        if not sizes:
            raise ValueError(f"{name} is empty. Give one number of draws at least.")
    for size in attackers:
        check_num_samples("attacker_samples", size)
    for size in defenders:
        check_defender(size, num_predictions)

    def judge(images: Any) -> list[np.ndarray]:
        return [
            predict_wrong(
                defender_key(rng_key, size), sampler, images, y, size, num_predictions, settings
            )
            for size in defenders
        ]

    tables = [judge(x)]

    def identity() -> dict[str, str]:
        return identify(
            "attackers of a fresh predictor",
            key=rng_key,
            **describe(sampler),
            inputs=x,
            labels=np.asarray(y),
            threat=threat,
            attack=attack,
            objective=objective,
            attacker_samples=attackers,
            held_out_samples=how.held_out_samples,
            batch_size=settings.batch_size,
            sample_chunk=settings.sample_chunk,
            mesh=settings.mesh,
        )

    with (settings.checkpoints or NoCheckpoints()).session(identity):
        for size in attackers:
            found = find_adversarial(
                rng_key,
                sampler,
                x,
                y,
                threat=threat,
                attack=attack,
                objective=objective,
                settings=FreshSettings.extend(how, attacker_samples=size, defender_samples=1),
            )
            tables.append(judge(found))
    shares = np.array([[1 - wrong.mean() for wrong in row] for row in tables])
    ends = np.array([[accuracy_interval(wrong) for wrong in row] for row in tables])
    return AttackerDefenderTable(
        attacker_samples=attackers,
        defender_samples=defenders,
        accuracies=shares[1:],
        intervals=ends[1:],
        clean=shares[0],
        clean_intervals=ends[0],
        num_images=len(x),
        num_predictions=num_predictions,
    )
