"""What an evaluation says beside the number: each attack, signs of masking, curve, uncertainty."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import jax
import numpy as np

from bnn_adv.attacks.base import Settings
from bnn_adv.attacks.threat import take_rows
from bnn_adv.evaluation import masking
from bnn_adv.evaluation.cascade import (
    BROKEN,
    NOT_RUN,
    Cascade,
    RunContext,
    Subject,
    fill_outcomes,
    knows,
)
from bnn_adv.evaluation.curve import Curve, trace_curve
from bnn_adv.evaluation.masking import Check, MaskingSettings, Spared
from bnn_adv.evaluation.records import AttackRecord
from bnn_adv.evaluation.suites import MINIMAL, Suite, get_suite
from bnn_adv.evaluation.uncertainty import UncertaintyReport, evaluate_uncertainty
from bnn_adv.posteriors.decision import predicted_class


class Rows(NamedTuple):
    """Which inputs are looked at closely, drawn by key.

    probe: Indices of those on which every attack is run and signs of masking are looked for, [M].
    curve: Indices of those whose smallest radius is looked for, [K].
    """

    probe: np.ndarray
    curve: np.ndarray


class Diagnosis(NamedTuple):
    """What there is to say beside the number.

    per_attack: What each attack did.
    checks: Signs of masking, raised or not; none without probe images.
    curve: Accuracy against the radius; None where nothing was asked for.
    uncertainty: Uncertainty under attack; None likewise.
    """

    per_attack: tuple[AttackRecord, ...]
    checks: tuple[Check, ...]
    curve: Curve | None
    uncertainty: UncertaintyReport | None


def diagnose(
    suite: Suite,
    subject: Subject,
    clean: np.ndarray,
    found: Cascade,
    rows: Rows,
    context: RunContext,
    *,
    min_ess: float | None = None,
) -> Diagnosis:
    """Say of each attack what it did, and look for signs that all of them were blind.

    Args:
      suite: The suite.
      subject: Draws, inputs, labels and threat model.
      clean: Log of the posterior predictive at the clean inputs, [N, C].
      found: What the suite left, with what the referee lets stand.
      rows: Which inputs are looked at closely.
      context: Key, sizes, progress, checkpoints.
      min_ess: Effective sample size of the draws; None where it is not known.
    """
    right = rows.probe[predicted_class(clean[rows.probe]) == subject.y[rows.probe]]
    outcomes = fill_outcomes(suite.entries, found.outcomes, right, subject, context)
    spared = count_spared(found, outcomes, right)
    return Diagnosis(
        describe_attacks(suite, subject, found, outcomes),
        _look_for_masking(suite, subject, found, rows.probe, context, (min_ess, spared)),
        _trace_curve(subject, clean, found, rows.curve, context),
        _measure_uncertainty(subject, found, rows.curve, context),
    )


def describe_attacks(
    suite: Suite,
    subject: Subject,
    found: Cascade,
    outcomes: np.ndarray,
) -> tuple[AttackRecord, ...]:
    """Return what each attack did, and what it does by itself on all probe images.

    Args:
      suite: The suite.
      subject: Draws, inputs, labels and threat model.
      found: What the suite left.
      outcomes: What every attack does to M probe images, [E, M], see ``fill_outcomes``.
    """
    num_probed = outcomes.shape[1]
    breaks = outcomes == BROKEN
    records = []
    for number, entry in enumerate(suite.entries):
        others = np.delete(breaks, number, axis=0).any(axis=0)
        was_run = not num_probed or (outcomes[number] != NOT_RUN).all()
        known = knows(entry, subject.threat)
        records.append(
            AttackRecord(
                name=entry.name,
                attack=entry.attack.name,
                objective=entry.objective_name,
                surrogate=entry.surrogate,
                num_steps=entry.attack.num_steps,
                uses_gradient=entry.attack.uses_gradient,
                is_defined=known,
                tried=int(found.tried[number]),
                broke=int(found.broke[number]),
                set_aside=int(found.set_aside[number]),
                accuracy_after=found.after[entry.name],
                alone=int(breaks[number].sum()) if known and was_run else None,
                only=int((breaks[number] & ~others).sum()) if known and was_run else None,
                num_probed=num_probed,
                seconds=round(float(found.seconds[number]), 2),
            )
        )
    return tuple(records)


def count_spared(found: Cascade, outcomes: np.ndarray, rows: np.ndarray) -> Spared:
    """Return what attacks do to standing images on which the suite did not run them.

    Args:
      found: What the suite left.
      outcomes: What every attack does to the images, [E, M], see ``fill_outcomes``.
      rows: The images, [M].
    """
    was_spared = (found.outcomes[:, rows] == NOT_RUN) & (outcomes != NOT_RUN)
    was_spared &= found.standing[rows]
    broken = was_spared & (outcomes == BROKEN)
    return Spared(int(was_spared.any(axis=0).sum()), int(broken.any(axis=0).sum()))


def _look_for_masking(
    suite: Suite,
    subject: Subject,
    found: Cascade,
    probe: np.ndarray,
    context: RunContext,
    known: tuple[float | None, Spared],
) -> tuple[Check, ...]:
    if not len(probe):
        return ()
    checks = masking.inspect(
        _derive(context, "masking"),
        subject.posterior,
        subject.x[probe],
        subject.y[probe],
        threat=take_rows(subject.threat, probe),
        objectives=suite.objectives,
        standing=found.standing[probe],
        settings=MaskingSettings.extend(
            context.settings,
            attacks=tuple((entry.attack, entry.objective) for entry in suite.entries),
            min_ess=known[0],
            spared=known[1],
        ),
    )
    return tuple(checks)


def _trace_curve(
    subject: Subject, clean: np.ndarray, found: Cascade, rows: np.ndarray, context: RunContext
) -> Curve | None:
    if not len(rows):
        return None
    part = subject._replace(
        x=subject.x[rows], y=subject.y[rows], threat=take_rows(subject.threat, rows)
    )
    entries = get_suite("fast").entries
    return trace_curve(entries, MINIMAL, part, clean[rows], context, found=found.worst[rows])


def _measure_uncertainty(
    subject: Subject, found: Cascade, rows: np.ndarray, context: RunContext
) -> UncertaintyReport | None:
    if not len(rows):
        return None
    return evaluate_uncertainty(
        _derive(context, "uncertainty"),
        subject.posterior,
        subject.x[rows],
        subject.y[rows],
        found.worst[rows],
        threat=take_rows(subject.threat, rows),
        settings=Settings(context.settings.batch_size, context.settings.sample_chunk),
    )


def _derive(context: RunContext, purpose: str) -> jax.Array:
    return jax.random.fold_in(context.rng_key, zlib.crc32(purpose.encode()))
