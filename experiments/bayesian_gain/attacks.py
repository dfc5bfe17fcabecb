"""Attack one posterior within growing radii, with known draws and with draws that nobody knows."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from bnn_adv.attacks.threat import LInf, with_radius
from bnn_adv.evaluation import FreshSubject, masking, run_fresh_suite
from bnn_adv.evaluation.cascade import RunContext, Subject, predict, run_cascade
from bnn_adv.evaluation.confirmation import confirm
from bnn_adv.evaluation.fresh import predict_wrong
from bnn_adv.evaluation.masking import MaskingSettings
from bnn_adv.evaluation.suites import Suite
from bnn_adv.posteriors.decision import NO_CLASS, predicted_class
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.posteriors.sampler import Sampler

CLEAN_WRONG = -1
"""In place of the number of radii that an image withstood."""


class Problem(NamedTuple):
    """What is attacked, and how.

    posterior: S draws.
    x: Clean images, [N, ...].
    y: Labels, [N].
    suite: Attacks, of which the worst counts.
    context: Key, sizes, progress.
    """

    posterior: Posterior
    x: np.ndarray
    y: np.ndarray
    suite: Suite
    context: RunContext


class Left(NamedTuple):
    """What attacks within G ascending radii left of N images.

    withstood: Number of the radii that an image withstood, 0 to G; -1 where the clean one is wrong.
    worst: The worst image found within each radius or a smaller one, [G, N, ...].
    """

    withstood: np.ndarray
    worst: np.ndarray


def attack_radii(problem: Problem, epsilons: tuple[float, ...]) -> Left:
    """Attack within growing radii; what is broken within one is broken within every larger one.

    Each radius sees only the images that stood within the last, so that what is easily broken costs
    little. The referee confirms every image within the radius at which it broke.

    Args:
      problem: The attacker knows all draws.
      epsilons: Radii, ascending.

    Raises:
      VerificationError: A broken image is not confirmed.
    """
    posterior, x, y, suite, context = problem
    clean = predict(posterior, x, context.settings)
    correct = predicted_class(clean) == y
    standing, withstood = correct, np.where(correct, 0, CLEAN_WRONG)
    image, log_probs, radius, worst = np.array(x), np.array(clean), np.zeros(len(x), x.dtype), []
    for number, epsilon in enumerate(epsilons):
        if standing.any():
            found = run_cascade(
                suite.entries,
                suite.restarts,
                Subject(posterior, x, y, LInf(epsilon)),
                clean,
                context._replace(prefix=f"{context.prefix}{number}/"),
                standing=standing,
            )
            image[standing] = found.worst[standing]
            log_probs[standing] = found.log_probs[standing]
            radius[standing] = epsilon
            standing = found.standing
            withstood[standing] = number + 1
        worst.append(image.copy())
    confirm(
        posterior,
        x,
        y,
        image,
        threat=with_radius(LInf(epsilons[-1]), radius),
        clean_correct=correct,
        misclassified=correct & ~standing & (predicted_class(log_probs) != NO_CLASS),
    )
    return Left(withstood, np.stack(worst))


def find_signs(
    problem: Problem, epsilon: float, standing: np.ndarray, min_ess: float | None
) -> list[dict[str, Any]]:
    """Return every sign of masking that was looked for on probe images: name, raised, sentence.

    Args:
      problem: Of the probe images.
      epsilon: Radius.
      standing: Whether an image stands within it, [N].
      min_ess: Effective sample size, where it is known.
    """
    posterior, x, y, suite, context = problem
    checks = masking.inspect(
        context.rng_key,
        posterior,
        x,
        y,
        threat=LInf(epsilon),
        objectives=suite.objectives,
        standing=standing,
        settings=MaskingSettings.extend(
            context.settings,
            attacks=tuple((entry.attack, entry.objective) for entry in suite.entries),
            min_ess=min_ess,
        ),
    )
    return [{"name": c.name, "raised": c.raised, "sentence": c.sentence} for c in checks]


def attack_unknown(
    problem: Problem,
    epsilon: float,
    *,
    known: np.ndarray,
    num_samples: int,
    num_predictions: int,
) -> dict[str, np.ndarray]:
    """Attack a predictor that picks its draws anew from a half that the attacker does not know.

    The attacker picks draws anew at every step, from the other half, as it would draw from the
    distribution itself; chains, whose draws are all there is, thus stand beside methods that could
    draw for ever.

    Args:
      problem: Of all draws: the attacker's half, then the defender's.
      epsilon: Radius.
      known: The worst images of ``num_samples`` known draws, [N, ...].
      num_samples: Draws of a step and of a prediction.
      num_predictions: Predictions of an image.

    Returns:
      Whether predictions of adversarial and of clean images are wrong, ``"adversarial"`` and
      ``"clean"``, [P, N].
    """
    posterior, x, y, suite, context = problem
    half = posterior.num_samples // 2
    attacker, defender = (
        pick_from(posterior.take(np.arange(first, first + half))) for first in (0, half)
    )
    subject = FreshSubject(attacker, x, y, LInf(epsilon), num_samples, num_predictions)
    nothing = np.array([], int)
    found = run_fresh_suite(suite.entries, subject, context, frozen=known, probe=nothing)
    key = jax.random.fold_in(context.rng_key, 1)
    return {
        name: predict_wrong(
            key, defender, images, y, num_samples, num_predictions, context.settings
        )
        for name, images in (("adversarial", found.x_adv), ("clean", x))
    }


def pick_from(posterior: Posterior) -> Sampler:
    """Return what draws by picking one of a posterior's draws, each as likely as another."""
    return Sampler(
        posterior.apply_fn,
        Partial(_pick, posterior.samples),
        precision=posterior.precision,
        decision_rule=posterior.decision_rule,
    )


def _pick(samples: Any, rng_key: jax.Array) -> Any:
    count = len(jax.tree.leaves(samples)[0])
    place = jax.random.randint(rng_key, (), 0, count)
    return jax.tree.map(lambda leaf: jnp.take(leaf, place, axis=0), samples)
