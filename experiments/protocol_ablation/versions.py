"""Stages of the table of versions: the published attack as each version of its code runs it."""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks.objectives import get_objective
from bnn_adv.attacks.threat import LInf
from bnn_adv.compute import parallel
from bnn_adv.compute.progress import progress
from bnn_adv.evaluation.redrawn import draw_log_probs
from bnn_adv.posteriors.decision import predicted_class
from bnn_adv.posteriors.posterior import Posterior, log_probs
from bnn_adv.posteriors.sampler import FreshDraws
from experiments.launch.stages import cached_arrays
from experiments.protocol_ablation import measure as stages
from experiments.protocol_ablation import switches as ablation
from experiments.protocol_ablation.config import list_draws
from experiments.protocol_ablation.measure import Subject, Work
from experiments.protocol_ablation.published_versions import (
    Setting,
    Version,
    average_predictions,
    build_pgd,
    list_settings,
    miss,
)

_LIST, _REDRAW = 100, 101
"""What keys are for, beside those of ``protocol_ablation_stages``."""


def measure_versions(work: Work, subject: Subject) -> list[dict[str, Any]]:
    """Return the lines of the table of versions.

    Args:
      work: What all stages share; all its images are attacked.
      subject: VI as published.
    """
    attackers, defenders = (
        list_draws(work.config, name) for name in ("attacker_draws", "defender_draws")
    )
    settings = list_settings(attackers, defenders)
    y, rows = work.dataset.y_test, []
    with progress("versions", "lines") as report:
        for number, setting in enumerate(settings):
            size = setting.defender_samples
            numbers: dict[str, Any] = {"intervals": {}}
            for name in ("accuracy", "fgsm", "pgd"):
                each = _log_probs(work, subject, setting, name, defenders[-1])
                predicted = average_predictions(each, size, version=setting.version)
                right = predicted_class(predicted) == y
                numbers[name] = float(right.mean())
                numbers["intervals"][name] = list(ablation.interval(right))
            rows.append(
                {
                    "version": setting.version,
                    "constants": setting.constants._asdict(),
                    "attacker_draws": setting.attacker_samples,
                    "defender_draws": size,
                    "num_predictions": len(predicted),
                    **numbers,
                    "miss": miss(numbers["fgsm"], numbers["pgd"]),
                }
            )
            report(number + 1, len(settings))
    return rows


def _log_probs(work: Work, subject: Subject, setting: Setting, name: str, most: int) -> np.ndarray:
    """Return every draw's log-probabilities at the images of one attack, [M, N, C].

    Args:
      work: What all stages share.
      subject: The posterior.
      setting: Of the line; its defender does not matter.
      name: ``"accuracy"``: at the clean images; ``"fgsm"``; ``"pgd"``.
      most: Draws, M.
    """
    stage = f"version-{setting.version}-{name}"
    if name != "accuracy":
        stage += f"-{setting.attacker_samples}"
    if name == "pgd":
        stage += f"-{setting.constants.name}"

    def compute() -> dict[str, np.ndarray]:
        images = work.dataset.x_test
        if name != "accuracy":
            images = _attack(work, subject, setting, "fgsm" if name == "fgsm" else "pgd")
        return {"log_probs": _predict_each(work, subject, setting.version, images, most, stage)}

    return cached_arrays(work.run, stage, compute)["log_probs"]


def _attack(work: Work, subject: Subject, setting: Setting, kind: ablation.Kind) -> np.ndarray:
    known = subject.known.take(np.arange(setting.attacker_samples))
    attacked: Posterior | FreshDraws = known
    if setting.version == "today":
        assert subject.sampler is not None  # Variational inference has one.
        attacked = FreshDraws(subject.sampler, setting.attacker_samples, known)
    chosen = ablation.attack_of("fgsm", ablation.IN_2020)
    epsilon = work.config.epsilon
    if kind == "pgd":
        chosen = build_pgd(setting.constants)
        # The radii are the paper's on MNIST; elsewhere the given one scales them.
        epsilon *= setting.constants.epsilon / 0.3
    return ablation.run_published(
        work.key(stages.ATTACK),
        kind,
        chosen,
        get_objective("published"),
        attacked,
        work.dataset.x_test,
        work.dataset.y_test,
        threat=LInf(epsilon),
        settings=work.settings,
    )


def _predict_each(
    work: Work, subject: Subject, version: Version, images: np.ndarray, most: int, stage: str
) -> np.ndarray:
    assert subject.sampler is not None  # Variational inference has one.
    if version == "today":
        # Every prediction sees draws of its own.
        key = jax.random.fold_in(work.key(_REDRAW), zlib.crc32(stage.encode()))
        return draw_log_probs(
            key, subject.sampler, images, num_samples=most, settings=work.settings
        )
    size = work.settings.batch_size
    first = np.asarray(
        parallel.to_host(log_probs(subject.known, jnp.asarray(images), batch_size=size))
    )
    if most <= len(first):
        return first[:most]
    # The list of draws goes on: the same ones for all images.
    rest = draw_log_probs(
        work.key(_LIST),
        subject.sampler,
        images,
        num_samples=most - len(first),
        settings=work.settings,
    )
    return np.concatenate([first, rest])
