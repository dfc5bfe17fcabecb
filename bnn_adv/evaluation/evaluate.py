"""The whole evaluation of any posterior in one call."""

from __future__ import annotations

import dataclasses
import json
import os
import time
import zlib
from typing import Any

import jax
import numpy as np

from bnn_adv.attacks.subject import describe
from bnn_adv.attacks.threat import Threat, take_rows
from bnn_adv.attacks.validation import check_ess, check_model, check_settings, open_problem
from bnn_adv.compute import arguments, files
from bnn_adv.compute.checkpoint import Checkpoints, NoCheckpoints
from bnn_adv.evaluation import masking, metrics
from bnn_adv.evaluation.cascade import (
    BROKEN,
    NOT_RUN,
    Cascade,
    RunContext,
    Settings,
    Subject,
    SuiteProgress,
    fill_outcomes,
    knows,
    predict,
    run_cascade,
)
from bnn_adv.evaluation.confirmation import settle, state_claims
from bnn_adv.evaluation.curve import trace_curve
from bnn_adv.evaluation.fresh_suite import (
    FreshSubject,
    FreshSuite,
    frozen_draws,
    run_fresh_suite,
)
from bnn_adv.evaluation.suite_run import identify_suite
from bnn_adv.evaluation.suites import MINIMAL, Suite, get_suite
from bnn_adv.evaluation.uncertainty import evaluate_uncertainty
from bnn_adv.evaluation.verification import verify_arrays
from bnn_adv.posteriors.decision import NO_CLASS, predicted_class
from bnn_adv.posteriors.posterior import Posterior, hash_draws, shard_posterior
from bnn_adv.posteriors.sampler import Sampler

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found; print it for a table.

    Args:
      record: Every number, as JSON values.
      arrays: What ``save_adversarial`` writes, by name.
    """

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def accuracy(self) -> float:
        """Share of clean inputs that are classified correctly, in [0, 1]."""
        return float(self.record["accuracy"])

    @property
    def adversarial_accuracy(self) -> float:
        """Share of inputs that withstand every attack (per-image worst case), in [0, 1].

        An input at which an attack reached a prediction that is not finite does not withstand it;
        the record's ``num_not_finite`` counts those, where there are any.

        An upper bound of the truth, like every number that attacks give. Threat model: frozen, the
        attacker knows the very draws that predict.
        """
        return float(self.record["adversarial_accuracy"])

    @property
    def fresh(self) -> dict[str, Any] | None:
        """What is left of a ``Sampler`` whose next draws no attacker knows; None for a posterior.

        See ``evaluation.fresh_suite.FreshSuite`` for the names of its numbers.
        """
        return self.record.get("fresh")

    @property
    def per_attack(self) -> list[dict[str, Any]]:
        """Every attack in order: what it was run on, what it broke, what only it broke."""
        return list(self.record["per_attack"])

    @property
    def checks(self) -> list[dict[str, Any]]:
        """Every sign of masking that was looked for, raised or not."""
        return list(self.record["checks"])

    @property
    def flags(self) -> list[str]:
        """Names of the signs of masking that were raised."""
        return [check["name"] for check in self.checks if check["raised"]]

    def __str__(self) -> str:
        """Return the table."""
        # The report room brings matplotlib, which nobody needs who only imports the package.
        from bnn_adv.report.evaluation import format_evaluation

        return format_evaluation(self.record)

    def to_json(self) -> str:
        """Return every number as JSON text."""
        return json.dumps(self.record, indent=2, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """Return one self-contained HTML page."""
        from bnn_adv.report.evaluation_page import render_evaluation

        return render_evaluation(self.record)

    def save_adversarial(self, path: str | os.PathLike[str]) -> None:
        """Write the worst input of every image to an ``.npz`` file, atomically.

        ``bnn_adv.verify_adversarial(path, posterior)`` confirms it without any of the attacks.
        """
        files.write_arrays(path, self.arrays)


def evaluate(
    posterior: Posterior | Sampler,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    rng_key: jax.Array,
    suite: str | Suite = "strong",
    num_samples: int = 50,
    num_predictions: int = 100,
    num_probe: int = 100,
    num_curve: int = 200,
    min_ess: float | None = None,
    settings: Settings | None = None,
    progress: SuiteProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> Evaluation:
    """Attack a posterior by a suite, look for signs of masking, and confirm what was found.

    Every attack runs on the images that still stand; an image counts as robust only if it
    withstands all. What is reported was confirmed by ``verification``, which shares no code with
    the attacks.

    A predictor that draws anew is evaluated under both threat models. Frozen: the attacker knows
    the very draws that predict; all of the above, on ``fresh_suite.frozen_draws``. Fresh: it knows
    how parameters are drawn, see ``fresh_suite.run_fresh_suite``.

    Args:
      posterior: S draws, which the attacker knows; or a ``Sampler``.
      x: Clean inputs in the threat model's box, [N, ...].
      y: Integer labels, [N].
      threat: ``LInf``, ``L2`` or ``L1`` with radius (one, or one an input, [N]) and box.
      rng_key: Typed key; everything follows from it.
      suite: Name of a suite, or one of your own.
      num_samples: Of a sampler: draws whose mean is a prediction, S.
      num_predictions: Of a sampler: predictions that say how often an image fools, P.
      num_probe: Images (drawn by key) on which every attack of the suite is run, whether or not
        another one broke them before, on which signs of masking are looked for, and which the
        table of a sampler's attackers and defenders uses; 0 leaves all of it out.
      num_curve: Images (drawn by key) whose smallest radius is looked for; 0 leaves it out.
      min_ess: Effective sample size of the draws, where the sampler knows it.
      settings: Batch and chunk sizes.
      progress: Progress callback.
      checkpoints: Where to save progress and to continue from it.

    Raises:
      TypeError: ``posterior`` is neither; the message says how to make one of it. ``rng_key`` is
        no typed key.
      ValueError: Posterior, inputs or labels do not fit, see ``validation.open_problem``; an
        unknown suite; a number below one.
      VerificationError: Something found could not be confirmed; nothing is reported then.
    """
    started = time.monotonic()
    protocol = get_suite(suite) if isinstance(suite, str) else suite
    arguments.check_key(rng_key)
    arguments.check_count("num_probe", num_probe, 0)
    arguments.check_count("num_curve", num_curve, 0)
    check_settings(settings or Settings())
    check_ess(min_ess)
    check_model(posterior, num_samples, num_predictions)
    settings, sampler = settings or Settings(), None
    if isinstance(posterior, Sampler):
        sampler = posterior
        frozen = frozen_draws(rng_key, sampler, num_samples)
        posterior = shard_posterior(frozen, settings.mesh)
    x, y, threat, num_classes = open_problem(posterior, x, y, threat)
    subject = Subject(posterior, x, y, threat)
    context = RunContext(rng_key, settings, progress, checkpoints, f"{protocol.name}/")
    draws_hash = hash_draws(posterior)
    more: dict[str, Any] = {"num_probe": num_probe, "num_curve": num_curve}
    if sampler is not None:
        predictor = f"{num_predictions} predictions of {num_samples} new draws"
        more |= {"predictor": predictor, **describe(sampler, "fresh ")}

    def identity() -> dict[str, str]:
        return identify_suite("evaluate", protocol, subject, context, **more)

    with (checkpoints or NoCheckpoints()).session(identity):
        clean = predict(posterior, x, settings)
        found = run_cascade(protocol.entries, protocol.restarts, subject, clean, context)
        arrays = _arrays(subject, clean, found, draws_hash)
        # A prediction that is not finite is no class: the image is lost, and nothing is claimed.
        lost = arrays["broken"] & (predicted_class(found.log_probs) == NO_CLASS)
        arrays["broken"] &= ~lost
        verdict = settle(arrays, posterior, threat)
        arrays["broken"] = verdict.claimed
        found = found._replace(standing=arrays["clean_correct"] & ~arrays["broken"] & ~lost)
        probe = _choose(rng_key, "probe", len(x), num_probe)
        curve_rows = _choose(rng_key, "curve", len(x), num_curve)
        table = _describe_attacks(protocol, subject, clean, found, probe, context)
        fresh = None
        if sampler is not None:
            fresh = run_fresh_suite(
                protocol.entries,
                FreshSubject(sampler, x, y, threat, num_samples, num_predictions),
                context,
                frozen=found.worst,
                probe=probe,
            )
            arrays |= _confirm_fresh(fresh, arrays, posterior, threat)
        record = {
            "schema_version": SCHEMA_VERSION,
            "experiment": "attack",
            "suite": protocol.name,
            "suite_description": protocol.description,
            "norm": threat.norm,
            **_describe_radius(threat),
            "box": [threat.lower, threat.upper],
            "num_test": len(x),
            "num_samples": posterior.num_samples,
            "num_classes": num_classes,
            "precision": posterior.precision,
            "decision_rule": posterior.decision_rule,
            **_share("accuracy", predicted_class(clean) == y),
            **_share("adversarial_accuracy", found.standing),
            **({"num_not_finite": int(num_lost)} if (num_lost := lost.sum()) else {}),
            "softmax_robustness": metrics.softmax_robustness(clean, found.log_probs),
            "per_attack": table,
            "fresh": None if fresh is None else fresh.to_dict(),
            "num_probe": len(probe),
            "checks": _look_for_masking(protocol, subject, found, probe, context, min_ess),
            "curve": _trace_curve(subject, clean, found, curve_rows, context),
            "uncertainty": evaluate_uncertainty(
                jax.random.fold_in(rng_key, zlib.crc32(b"uncertainty")),
                posterior,
                x[curve_rows],
                y[curve_rows],
                found.worst[curve_rows],
                threat=take_rows(threat, curve_rows),
                batch_size=settings.batch_size,
                sample_chunk=settings.sample_chunk,
            ).to_dict()
            if len(curve_rows)
            else None,
            "confirmed": {"num_confirmed": int(verdict.confirmed.sum()), "ok": bool(verdict.ok)},
            "provenance": {
                "rng_key": np.asarray(jax.random.key_data(rng_key)).tolist(),
                "draws_hash": draws_hash,
                "inputs_hash": f"{zlib.crc32(x.tobytes()):08x}",
                "probe_indices": probe.tolist(),
                "curve_indices": curve_rows.tolist(),
            },
            "seconds": round(time.monotonic() - started, 1),
        }
    return Evaluation(record, arrays)


def _choose(rng_key: jax.Array, purpose: str, size: int, count: int) -> np.ndarray:
    """Return indices of images, ascending: drawn by key, never by what happened to them."""
    if count >= size:
        return np.arange(size)
    key = jax.random.fold_in(rng_key, zlib.crc32(purpose.encode()))
    return np.sort(np.asarray(jax.random.permutation(key, size))[:count])


def _describe_radius(threat: Any) -> dict[str, Any]:
    """Return the radius, or of radii that differ by input the largest and their range."""
    if isinstance(threat.epsilon, float):
        return {"epsilon": threat.epsilon}
    ends = [float(threat.epsilon.min()), float(threat.epsilon.max())]
    return {"epsilon": ends[1], "epsilon_range": ends}


def _share(name: str, hits: np.ndarray) -> dict[str, Any]:
    share = float(np.mean(hits))
    return {name: share, f"{name}_interval": list(metrics.wilson_interval(share, len(hits)))}


def _describe_attacks(
    protocol: Suite,
    subject: Subject,
    clean: np.ndarray,
    found: Cascade,
    probe: np.ndarray,
    context: RunContext,
) -> list[dict[str, Any]]:
    right = probe[predicted_class(clean[probe]) == subject.y[probe]]
    outcomes = fill_outcomes(protocol.entries, found.outcomes, right, subject, context)
    breaks = outcomes == BROKEN
    rows = []
    for number, entry in enumerate(protocol.entries):
        others = np.delete(breaks, number, axis=0).any(axis=0)
        was_run = not len(right) or (outcomes[number] != NOT_RUN).all()
        known = knows(entry, subject.threat)
        rows.append(
            {
                "name": entry.name,
                "attack": entry.attack.name,
                "objective": entry.objective,
                "surrogate": entry.surrogate,
                "num_steps": entry.attack.num_steps,
                "uses_gradient": entry.attack.uses_gradient,
                "is_defined": known,
                "tried": int(found.tried[number]),
                "broke": int(found.broke[number]),
                "accuracy_after": found.after[entry.name],
                "alone": int(breaks[number].sum()) if known and was_run else None,
                "only": int((breaks[number] & ~others).sum()) if known and was_run else None,
                "num_probed": len(right),
                "seconds": round(float(found.seconds[number]), 2),
            }
        )
    return rows


def _look_for_masking(
    protocol: Suite,
    subject: Subject,
    found: Cascade,
    probe: np.ndarray,
    context: RunContext,
    min_ess: float | None,
) -> list[dict[str, Any]]:
    if not len(probe):
        return []
    checks = masking.inspect(
        jax.random.fold_in(context.rng_key, zlib.crc32(b"masking")),
        subject.posterior,
        subject.x[probe],
        subject.y[probe],
        threat=take_rows(subject.threat, probe),
        objectives=protocol.objectives,
        attacks=tuple((entry.attack, entry.objective) for entry in protocol.entries),
        standing=found.standing[probe],
        min_ess=min_ess,
        batch_size=context.settings.batch_size,
        sample_chunk=context.settings.sample_chunk,
    )
    return [check._asdict() for check in checks]


def _trace_curve(
    subject: Subject, clean: np.ndarray, found: Cascade, rows: np.ndarray, context: RunContext
) -> dict[str, Any] | None:
    if not len(rows):
        return None
    part = subject._replace(
        x=subject.x[rows], y=subject.y[rows], threat=take_rows(subject.threat, rows)
    )
    entries = get_suite("fast").entries
    return trace_curve(
        entries, MINIMAL, part, clean[rows], context, found=found.worst[rows]
    ).to_dict()


def _arrays(
    subject: Subject, clean: np.ndarray, found: Cascade, draws_hash: str
) -> dict[str, np.ndarray]:
    """Return the saved form, see ``verification``."""
    claims = state_claims(
        *subject,
        found.worst,
        clean_correct=predicted_class(clean) == subject.y,
        broken=predicted_class(found.log_probs) != subject.y,
        draws_hash=draws_hash,
    )
    return {**claims, "attack_of": found.attack_of}


def _confirm_fresh(
    fresh: FreshSuite, arrays: dict[str, np.ndarray], posterior: Posterior, threat: Threat
) -> dict[str, np.ndarray]:
    """Return what is saved of a fresh predictor's images, all confirmed to lie in ball and box."""
    nothing = np.zeros(len(fresh.x_adv), bool)
    claimless = {**arrays, "x_adv": fresh.x_adv, "broken": nothing}
    verify_arrays(claimless, posterior, threat=threat).check()
    return {"x_adv_fresh": fresh.x_adv, "success_rate_fresh": fresh.success_rate}
