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
from bnn_adv.evaluation.masking import Check, MaskingSettings
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
    return Diagnosis(
        describe_attacks(suite, subject, clean, found, rows.probe, context),
        _look_for_masking(suite, subject, found, rows.probe, context, min_ess),
        _trace_curve(subject, clean, found, rows.curve, context),
        _measure_uncertainty(subject, found, rows.curve, context),
    )


def describe_attacks(
    suite: Suite,
    subject: Subject,
    clean: np.ndarray,
    found: Cascade,
    probe: np.ndarray,
    context: RunContext,
) -> tuple[AttackRecord, ...]:
    """Return what each attack did, and what it does by itself on all probe images."""
    right = probe[predicted_class(clean[probe]) == subject.y[probe]]
    outcomes = fill_outcomes(suite.entries, found.outcomes, right, subject, context)
    breaks = outcomes == BROKEN
    records = []
    for number, entry in enumerate(suite.entries):
        others = np.delete(breaks, number, axis=0).any(axis=0)
        was_run = not len(right) or (outcomes[number] != NOT_RUN).all()
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
                accuracy_after=found.after[entry.name],
                alone=int(breaks[number].sum()) if known and was_run else None,
                only=int((breaks[number] & ~others).sum()) if known and was_run else None,
                num_probed=len(right),
                seconds=round(float(found.seconds[number]), 2),
            )
        )
    return tuple(records)


def _look_for_masking(
    suite: Suite,
    subject: Subject,
    found: Cascade,
    probe: np.ndarray,
    context: RunContext,
    min_ess: float | None,
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
            min_ess=min_ess,
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
