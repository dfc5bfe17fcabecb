"""The whole evaluation of any posterior in one call: attack, referee, diagnose."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import zlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from bnn_adv.attacks.base import Settings
from bnn_adv.attacks.subject import describe
from bnn_adv.attacks.threat import Threat
from bnn_adv.attacks.validation import check_ess, check_model, check_settings, open_problem
from bnn_adv.compute import arguments, blocks, effort, parallel
from bnn_adv.compute.disk import DiskDraws
from bnn_adv.compute.progress import progress as show_progress
from bnn_adv.evaluation import metrics
from bnn_adv.evaluation.cascade import (
    Cascade,
    RunContext,
    Subject,
    SuiteProgress,
    predict,
    run_cascade,
)
from bnn_adv.evaluation.confirmation import settle, state_claims
from bnn_adv.evaluation.diagnosis import Rows, diagnose
from bnn_adv.evaluation.fresh_suite import (
    FreshSubject,
    FreshSuite,
    frozen_draws,
    run_fresh_suite,
)
from bnn_adv.evaluation.records import Confirmed, Evaluation, ProblemRecord, Provenance
from bnn_adv.evaluation.suite_run import identify_suite
from bnn_adv.evaluation.suites import Suite, get_suite
from bnn_adv.evaluation.verification import Verification, verify_arrays
from bnn_adv.posteriors.decision import NO_CLASS, predicted_class
from bnn_adv.posteriors.posterior import Posterior, hash_draws, one_draw, shard_posterior
from bnn_adv.posteriors.sampler import Sampler

_MOST_OTHER_PASSES = 1000
"""Passes over all inputs and draws that probe, curve and uncertainty take, about."""


@dataclasses.dataclass(frozen=True)
class EvaluationSettings(Settings):
    """How much is evaluated, beside batch and chunk sizes.

    Args:
      batch_size: Images at once.
      sample_chunk: Draws at once, 1..S; None chooses from the size of the network.
      mesh: Devices to split the work over.
      checkpoints: Where to save progress and to continue from it.
      num_samples: Of a sampler: draws whose mean is a prediction, S.
      num_predictions: Of a sampler: predictions that say how often an image fools, P.
      num_probe: Images (drawn by key) on which every attack of the suite is run, whether or not
        another one broke them before, on which signs of masking are looked for, and which the
        table of a sampler's attackers and defenders uses; 0 leaves all of it out.
      num_curve: Images (drawn by key) whose smallest radius is looked for; 0 leaves it out.
      min_ess: Effective sample size of the draws, where the sampler knows it.
    """

    num_samples: int = 50
    num_predictions: int = 100
    num_probe: int = 100
    num_curve: int = 200
    min_ess: float | None = None


class Attacked(NamedTuple):
    """What the attacks found, before anybody has confirmed it.

    clean: Log of the posterior predictive at the clean inputs, [N, C].
    cascade: What the suite left of every input.
    fresh: What it left of a predictor that draws anew; None for a posterior.
    """

    clean: np.ndarray
    cascade: Cascade
    fresh: FreshSuite | None


class Refereed(NamedTuple):
    """What is claimed once the referee has confirmed it.

    standing: Whether the input withstood all attacks, [N]; False where the clean one is wrong.
    lost: Whether an attack reached a prediction that is not finite, [N].
    verdict: What the referee found.
    arrays: The saved form, see ``verification``.
    """

    standing: np.ndarray
    lost: np.ndarray
    verdict: Verification
    arrays: dict[str, np.ndarray]


def evaluate(
    posterior: Posterior | Sampler,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    rng_key: jax.Array,
    suite: str | Suite = "strong",
    settings: Settings = EvaluationSettings(),
    progress: SuiteProgress | Literal["auto"] | None = "auto",
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
      suite: A ``Suite``; or the name of one in ``SUITES``, or ``package.module:NAME``.
      settings: How much is evaluated, and batch and chunk sizes, see ``EvaluationSettings``.
      progress: ``"auto"`` shows it on standard error, as a bar on a terminal and in a notebook and
        as lines now and then elsewhere; None is silent; or a function that is called with (name
        of the attack, image-steps done, image-steps in all).

    Raises:
      TypeError: ``posterior``, ``suite`` or ``settings`` is none; the message says how to make
        one. ``rng_key`` is no typed key.
      ValueError: Posterior, inputs or labels do not fit, see ``validation.open_problem``; an
        unknown suite; a number below one.
      VerificationError: Something found could not be confirmed; nothing is reported then.
    """
    started = time.monotonic()
    suite, how = get_suite(suite), EvaluationSettings.extend(settings)
    _check(posterior, rng_key, how)
    sampler = posterior if isinstance(posterior, Sampler) else None
    if isinstance(posterior, Sampler):
        frozen = frozen_draws(rng_key, posterior, how.num_samples)
        posterior = shard_posterior(frozen, how.mesh)
    x, y, threat, num_classes = open_problem(posterior, x, y, threat)
    subject = Subject(posterior, x, y, threat)
    rows = Rows(
        _choose(rng_key, "probe", len(x), how.num_probe),
        _choose(rng_key, "curve", len(x), how.num_curve),
    )
    brief = _is_brief(suite, subject, sampler, how)
    if brief:
        # Every batch of the one size that all inputs have.
        how = dataclasses.replace(how, batch_size=min(how.batch_size, len(x)))
    with effort.lower(brief), _reporting(progress, suite.name) as report:
        context = RunContext(rng_key, how, report, f"{suite.name}/")
        with context.keeper.session(lambda: _identity(suite, subject, sampler, context, how)):
            attacked = attack(suite, subject, sampler, rows.probe, context)
            refereed = referee(subject, attacked)
            left = attacked.cascade._replace(standing=refereed.standing)
            diagnosis = diagnose(
                suite, subject, attacked.clean, left, rows, context, min_ess=how.min_ess
            )
    took = time.monotonic() - started if how.checkpoints is None else how.checkpoints.seconds
    return Evaluation(
        suite=suite.name,
        suite_description=suite.description,
        problem=_describe_problem(subject, num_classes),
        **_describe_shares(subject, attacked, refereed),
        num_not_finite=int(refereed.lost.sum()),
        softmax_robustness=metrics.softmax_robustness(attacked.clean, attacked.cascade.log_probs),
        fresh=attacked.fresh,
        num_probe=len(rows.probe),
        **diagnosis._asdict(),
        confirmed=Confirmed(int(refereed.verdict.confirmed.sum()), bool(refereed.verdict.ok)),
        provenance=Provenance(
            np.asarray(jax.random.key_data(rng_key)).tolist(),
            hash_draws(posterior),
            f"{zlib.crc32(x.tobytes()):08x}",
            rows.probe.tolist(),
            rows.curve.tolist(),
        ),
        seconds=round(took, 1),
        arrays=refereed.arrays,
    )


def attack(
    suite: Suite,
    subject: Subject,
    sampler: Sampler | None,
    probe: np.ndarray,
    context: RunContext,
) -> Attacked:
    """Run the attacks of a suite, on draws that they know and on a sampler's that they do not.

    Args:
      suite: The suite.
      subject: Draws, inputs, labels and threat model.
      sampler: Where the draws come from; None for a posterior.
      probe: Indices of the inputs of the table of attackers and defenders, [M].
      context: Key, sizes, progress, checkpoints.
    """
    clean = predict(subject.posterior, subject.x, context.settings)
    found = run_cascade(suite.entries, suite.restarts, subject, clean, context)
    if sampler is None:
        return Attacked(clean, found, None)
    how = EvaluationSettings.extend(context.settings)
    fresh = FreshSubject(
        sampler, subject.x, subject.y, subject.threat, how.num_samples, how.num_predictions
    )
    return Attacked(
        clean,
        found,
        run_fresh_suite(suite.entries, fresh, context, frozen=found.worst, probe=probe),
    )


def referee(subject: Subject, attacked: Attacked) -> Refereed:
    """Confirm what the attacks found, by plain NumPy and the network alone.

    Raises:
      VerificationError: An input leaves ball or box, or a claim is not confirmed.
    """
    posterior, found = subject.posterior, attacked.cascade
    claims = state_claims(
        *subject,
        found.worst,
        clean_correct=predicted_class(attacked.clean) == subject.y,
        broken=predicted_class(found.log_probs) != subject.y,
        draws_hash=hash_draws(posterior),
    )
    arrays = {**claims, "attack_of": found.attack_of}
    # A prediction that is not finite is no class: the image is lost, and nothing is claimed.
    lost = arrays["broken"] & (predicted_class(found.log_probs) == NO_CLASS)
    arrays["broken"] &= ~lost
    verdict = settle(arrays, posterior, subject.threat)
    arrays["broken"] = verdict.claimed
    standing = arrays["clean_correct"] & ~arrays["broken"] & ~lost
    if attacked.fresh is not None:
        # How often images fool is no claim of one prediction; that they lie in ball and box is.
        images = attacked.fresh.x_adv
        nothing = np.zeros(len(images), bool)
        claimless = {**arrays, "x_adv": images, "broken": nothing}
        verify_arrays(claimless, posterior, threat=subject.threat).check()
        rates = attacked.fresh.success_rate
        arrays |= {"x_adv_fresh": images, "success_rate_fresh": rates}
    return Refereed(standing, lost, verdict, arrays)


def _check(posterior: Any, rng_key: Any, how: EvaluationSettings) -> None:
    arguments.check_key(rng_key)
    arguments.check_count("num_probe", how.num_probe, 0)
    arguments.check_count("num_curve", how.num_curve, 0)
    check_settings(how)
    check_ess(how.min_ess)
    check_model(posterior, how.num_samples, how.num_predictions)


def _is_brief(
    suite: Suite, subject: Subject, sampler: Sampler | None, how: EvaluationSettings
) -> bool:
    """Return whether compiling would take longer than all that is computed.

    By what is evaluated alone, never by how it goes: resumed, it is compiled as before.
    """
    posterior, x = subject.posterior, subject.x
    if how.mesh is not None or posterior.shards > 1 or isinstance(posterior.samples, DiskDraws):
        return False
    passes = _MOST_OTHER_PASSES + suite.restarts * sum(e.attack.num_steps for e in suite.entries)
    if sampler is not None:
        passes += 4 * how.num_predictions
    each = blocks.bytes_per_input(posterior.apply_fn, one_draw(posterior), x)
    return passes * len(x) * posterior.num_samples * each <= effort.MOST_BYTES


@contextlib.contextmanager
def _reporting(
    progress: SuiteProgress | Literal["auto"] | None, label: str
) -> Iterator[SuiteProgress | None]:
    if progress is not None and progress != "auto" and not callable(progress):
        raise TypeError(f"progress must be 'auto', None or a function, got {progress!r}.")
    if progress != "auto":
        yield progress
        return
    if not parallel.is_writer():
        # Of several processes one is enough.
        yield None
        return
    with show_progress(label, "image-steps") as report:
        yield lambda name, done, total: report(done, total, label=name)


def _identity(
    suite: Suite,
    subject: Subject,
    sampler: Sampler | None,
    context: RunContext,
    how: EvaluationSettings,
) -> dict[str, str]:
    more: dict[str, Any] = {"num_probe": how.num_probe, "num_curve": how.num_curve}
    if sampler is not None:
        predictor = f"{how.num_predictions} predictions of {how.num_samples} new draws"
        more |= {"predictor": predictor, **describe(sampler, "fresh ")}
    return identify_suite("evaluate", suite, subject, context, **more)


def _choose(rng_key: jax.Array, purpose: str, size: int, count: int) -> np.ndarray:
    """Return indices of images, ascending: drawn by key, never by what happened to them."""
    if count >= size:
        return np.arange(size)
    key = jax.random.fold_in(rng_key, zlib.crc32(purpose.encode()))
    return np.sort(np.asarray(jax.random.permutation(key, size))[:count])


def _describe_shares(subject: Subject, attacked: Attacked, refereed: Refereed) -> dict[str, Any]:
    """Return accuracy and adversarial accuracy, with their intervals."""
    right = predicted_class(attacked.clean) == subject.y
    shares = {"accuracy": right, "adversarial_accuracy": refereed.standing}
    found: dict[str, Any] = {}
    for name, hits in shares.items():
        found[name] = float(np.mean(hits))
        found[f"{name}_interval"] = metrics.wilson_interval(found[name], len(hits))
    return found


def _describe_problem(subject: Subject, num_classes: int) -> ProblemRecord:
    posterior, x, _, threat = subject
    radii = np.asarray(threat.epsilon)
    ends = (float(radii.min()), float(radii.max()))
    has_one = isinstance(threat.epsilon, float)
    return ProblemRecord(
        norm=threat.norm,
        epsilon=ends[1],
        epsilon_range=None if has_one else ends,
        box=(threat.lower, threat.upper),
        num_test=len(x),
        num_samples=posterior.num_samples,
        num_classes=num_classes,
        precision=posterior.precision,
        decision_rule=posterior.decision_rule,
    )
