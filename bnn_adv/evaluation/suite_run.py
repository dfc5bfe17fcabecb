"""Attack a posterior by a suite and say what is left, per image and in numbers."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from bnn_adv.attacks.base import Settings
from bnn_adv.attacks.subject import describe
from bnn_adv.attacks.threat import Threat
from bnn_adv.attacks.validation import check_settings, open_problem
from bnn_adv.compute import arguments
from bnn_adv.compute.identity import identify
from bnn_adv.evaluation import masking, metrics
from bnn_adv.evaluation.cascade import (
    RunContext,
    Subject,
    SuiteProgress,
    predict,
    run_cascade,
    run_entry,
)
from bnn_adv.evaluation.confirmation import confirm
from bnn_adv.evaluation.suites import Suite, get_suite
from bnn_adv.posteriors.decision import NO_CLASS, predicted_class
from bnn_adv.posteriors.posterior import Posterior


class SuiteResult(NamedTuple):
    """What one suite found on N images.

    adversarial: Adversarial images by name of the attack, each [N, ...]; for a worst-case
      suite the one key ``"worst"``.
    accuracies: Accuracy by name, in [0, 1]. Worst-case suites: the share that still stands
      after the attack, in the order in which they ran, then ``"worst"``.
    softmax_robustness: Of the last name in ``adversarial``, in [0, 1].
    zero_gradient_share: Share of images at which every objective of the suite has an exactly
      zero gradient at the clean input.
    attack_of: Worst-case suites: name of the attack that broke each image, [N] text; empty
      where the clean image is misclassified or the image stands.
    not_finite: By name of ``adversarial``, and ``"clean"``, the share of images whose prediction
      is NaN or infinite, for those where there are any; None without any. Such a prediction is no
      class: accuracies count it as wrong.
    """

    adversarial: dict[str, np.ndarray]
    accuracies: dict[str, float]
    softmax_robustness: float
    zero_gradient_share: float
    attack_of: np.ndarray | None
    not_finite: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers with 95 % Wilson intervals, ready for JSON."""
        count = len(next(iter(self.adversarial.values())))
        return {
            **self.accuracies,
            "softmax_robustness": self.softmax_robustness,
            "zero_gradient_share": self.zero_gradient_share,
            "intervals": intervals(self.accuracies, count),
            **({"not_finite": self.not_finite} if self.not_finite else {}),
        }


def run_suite(
    rng_key: jax.Array,
    suite: str | Suite,
    posterior: Posterior,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    settings: Settings = Settings(),
    progress: SuiteProgress | None = None,
) -> SuiteResult:
    """Attack every image by every attack of a suite.

    What is returned was confirmed by ``verification``, which shares no code with the attacks. The
    attacker knows the very draws that predict ("frozen").

    Args:
      rng_key: Typed key; each attack derives its own from its name and restart.
      suite: A ``Suite``; or the name of one in ``SUITES``, or ``package.module:NAME``.
      posterior: S draws.
      x: Clean images, [N, ...].
      y: Labels, [N].
      threat: Norm, radius and box.
      settings: Batch and chunk sizes, checkpoints.
      progress: Progress callback.

    Raises:
      TypeError: ``rng_key`` is no typed key; ``suite`` is neither a suite nor a name.
      ValueError: Posterior, images, labels or radii do not fit, see ``validation.open_problem``; a
        bad size; checkpoints of something else.
      VerificationError: Something found could not be confirmed; nothing is returned then.
    """
    suite = get_suite(suite)
    arguments.check_key(rng_key)
    check_settings(settings)
    x, y, threat, _ = open_problem(posterior, x, y, threat)
    subject = Subject(posterior, x, y, threat)
    context = RunContext(rng_key, settings, progress, f"{suite.name}/")
    clean = predict(posterior, x, settings)
    with context.keeper.session(lambda: identify_suite("suite", suite, subject, context)):
        run = _run_worst_case if suite.worst_case else _run_each
        adversarial, accuracies, attack_of = run(suite, subject, clean, context)
    last = clean
    lost = {"clean": _share_not_finite(clean)}
    for name, images in adversarial.items():
        last = predict(posterior, images, settings)
        classes = predicted_class(last)
        lost[name] = _share_not_finite(last)
        confirm(
            posterior,
            x,
            y,
            images,
            threat=threat,
            clean_correct=predicted_class(clean) == y,
            misclassified=(classes != y) & (classes != NO_CLASS),
        )
    blind = np.ones(len(x), bool)
    for objective in suite.objectives:
        blind &= masking.zero_gradients(
            objective,
            posterior,
            x,
            y,
            batch_size=settings.batch_size,
            sample_chunk=settings.sample_chunk,
        )
    if suite.published_metric:
        rule = posterior.decision_rule
        robustness = metrics.published_softmax_robustness(clean, last, decision_rule=rule)
    else:
        robustness = metrics.softmax_robustness(clean, last)
    not_finite = {name: share for name, share in lost.items() if share > 0}
    return SuiteResult(
        adversarial, accuracies, robustness, float(blind.mean()), attack_of, not_finite or None
    )


def _share_not_finite(log_probs: np.ndarray) -> float:
    return float((predicted_class(log_probs) == NO_CLASS).mean())


def intervals(accuracies: dict[str, float], count: int) -> dict[str, list[float]]:
    """Return the 95 % Wilson interval of every accuracy over ``count`` images."""
    return {name: list(metrics.wilson_interval(share, count)) for name, share in accuracies.items()}


def _run_each(
    suite: Suite, subject: Subject, clean: np.ndarray, context: RunContext
) -> tuple[dict[str, np.ndarray], dict[str, float], None]:
    adversarial, accuracies = {}, {}
    for entry in suite.entries:
        images = run_entry(entry, 0, np.arange(len(subject.x)), subject, context)
        adversarial[entry.name] = images
        log_probs = predict(subject.posterior, images, context.settings)
        accuracies[entry.name] = metrics.accuracy(log_probs, subject.y)
    return adversarial, accuracies, None


def _run_worst_case(
    suite: Suite, subject: Subject, clean: np.ndarray, context: RunContext
) -> tuple[dict[str, np.ndarray], dict[str, float], np.ndarray]:
    found = run_cascade(suite.entries, suite.restarts, subject, clean, context)
    accuracies = {**found.after, "worst": float(found.standing.mean())}
    return {"worst": found.worst}, accuracies, found.attack_of


def define(suite: Suite) -> dict[str, Any]:
    """Return all that a suite is: its entries, and the definitions of their objectives."""
    return {
        "suite": dataclasses.replace(suite, description=""),
        "objectives": {objective.name: objective for objective in suite.objectives},
    }


def identify_suite(
    what: str, suite: Suite, subject: Subject, context: RunContext, **more: Any
) -> dict[str, str]:
    """Return what a suite computes: a checkpoint of anything else is refused.

    Args:
      what: Kind of computation.
      suite: The suite, see ``define``.
      subject: What is attacked.
      context: Key and sizes.
      more: What else the result follows from.
    """
    return identify(
        f"{what} {suite.name}",
        key=context.rng_key,
        **define(suite),
        **describe(subject.posterior),
        inputs=subject.x,
        labels=subject.y,
        threat=subject.threat,
        batch_size=context.settings.batch_size,
        sample_chunk=context.settings.sample_chunk,
        mesh=context.settings.mesh,
        **more,
    )
