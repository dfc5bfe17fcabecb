r"""Certify a predictor that draws anew, from i.i.d. draws, at a stated confidence.

Nothing holds for certain of draws that nobody has seen. With ``g_k(x, w) = p_y - p_k`` of one draw
w at x, and per draw and input a lower bound ``m_k(w) <= min_{x in ball} g_k(x, w)``:

*The predictive in expectation*, ``argmax_k E_w p_k(x, w)``. Whatever x the attacker takes,

    min_x E_w g_k(x, w) >= E_w min_x g_k(x, w) >= E_w m_k(w),

and the mean of n i.i.d. numbers in [-1, 1] bounds the last one from below by empirical Bernstein,
each of the C - 1 other classes at ``delta / (C - 1)``. What float32 may add to a draw's
probabilities is taken off ``m_k(w)`` before the mean.

*A new draw by itself.* Whether a draw's own logits are right on the whole ball is yes or no; the
lower bound of its probability is Clopper's and Pearson's.

*Its accuracy over the N inputs*, ``mean_i 1(S_i)``, is a number in [0, 1] a draw: empirical
Bernstein again, once, whatever the number of inputs.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks.subject import describe
from bnn_adv.attacks.validation import open_problem
from bnn_adv.bounds.affine import AFFINE
from bnn_adv.bounds.graph import CertificationError
from bnn_adv.bounds.relaxations import RELAXATIONS
from bnn_adv.certification.certify import check_norm, open_network
from bnn_adv.certification.concentration import bernstein_lower, clopper_pearson_lower
from bnn_adv.certification.fresh_certificate import FreshCertificate
from bnn_adv.certification.fresh_draws import Counted, Work, count_draws
from bnn_adv.certification.journal import Journal
from bnn_adv.certification.settings import FreshCertificationSettings
from bnn_adv.compute import arguments
from bnn_adv.compute.checkpoint import NoCheckpoints
from bnn_adv.compute.identity import identify
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.posteriors.sampler import Sampler


def certify_fresh(
    sampler: Sampler,
    x: Any,
    y: Any,
    *,
    threat: Any,
    num_samples: int = 1000,
    confidence: float = 0.95,
    rng_key: jax.Array,
    settings: FreshCertificationSettings = FreshCertificationSettings(),
) -> FreshCertificate:
    """Certify a predictor that draws anew, at a confidence, from i.i.d. draws.

    The draws must be independent of everything that chose the sampler, the inputs or the radius:
    take a key that nothing else has used, and do not try several keys, radii or numbers of draws to
    report the best. One draw at a time is in memory, whatever their number.

    What is claimed of what, with equations, is said field by field in ``FreshCertificate``. The
    predictive is that of infinitely many draws: one of S new draws varies around it.

    Args:
      sampler: The predictor; ``draw`` of independent keys must be independent draws.
      x: Clean inputs in the threat model's box, [N, ...].
      y: Labels, [N].
      threat: ``LInf``, ``L2`` or ``L1`` with radius (one, or one an input, [N]) and box.
      num_samples: Draws, n, at least 2. The predictive's margin is certified up to about
        ``5 log(2 N C / delta) / n`` and the draws' own spread.
      confidence: ``1 - delta``, in (0, 1).
      rng_key: Typed key; draw s follows from ``fold_in(rng_key, s)``.
      settings: How bounds are made.

    Raises:
      TypeError: ``sampler`` is none: draws of a ``Posterior`` are certified by ``certify``.
      CertificationError: A network through which bounds do not pass or that computes below
        float32, or the rule of mean logits.
      ValueError: A number out of range; inputs or labels that do not fit; checkpoints of something
        else.
    """
    started = time.monotonic()
    check_sampler(sampler)
    arguments.check_key(rng_key)
    arguments.check_count("num_samples", num_samples, 2)
    _check_confidence(confidence)
    first = sampler.sample_each(jax.vmap(jax.random.fold_in, (None, 0))(rng_key, jnp.arange(2)))
    problem = open_problem(first, x, y, threat)
    check_norm(problem.threat.norm)
    network = open_network(first, problem.x.shape[1:])
    work = Work(sampler, network, problem, rng_key, num_samples, settings)
    keeper = settings.checkpoints or NoCheckpoints()
    with keeper.session(lambda: _identify(work)) as saved:
        counted = count_draws(work, Journal(keeper, saved))
    ours = time.monotonic() - started
    epsilon = np.broadcast_to(np.asarray(problem.threat.epsilon, np.float32), (len(problem.x),))
    return FreshCertificate(
        x=problem.x,
        y=problem.y,
        norm=problem.threat.norm,
        epsilon=epsilon,
        box=(float(problem.threat.lower), float(problem.threat.upper)),
        confidence=float(confidence),
        num_samples=num_samples,
        rng_key=np.asarray(jax.random.key_data(rng_key)).tolist(),
        settings=settings.to_json(),
        **conclude_counts(counted, problem.y, num_samples, confidence),
        seconds=ours if settings.checkpoints is None else settings.checkpoints.seconds,
    )


def _identify(work: Work) -> dict[str, str]:
    """Return what a certificate follows from: a checkpoint of anything else is refused."""
    settings, problem = work.settings, work.problem
    return identify(
        "certify_fresh",
        key=work.rng_key,
        **describe(work.sampler),
        inputs=problem.x,
        labels=problem.y,
        threat=problem.threat,
        num_samples=work.num_samples,
        rules=(AFFINE, RELAXATIONS),
        mesh=settings.mesh,
        **settings.to_json(),
    )


def check_sampler(sampler: Any) -> None:
    """Raise unless draws of something say, at a confidence, what a new one does.

    Raises:
      TypeError: It is no sampler.
      CertificationError: It averages logits, or rounds below float32.
    """
    if isinstance(sampler, Posterior):
        raise TypeError(
            "certify_fresh needs a bnn_adv.Sampler, whose draws are i.i.d. The draws of a "
            "Posterior are what they are: those of a Markov chain depend on each other and those "
            "of an ensemble are all there are, so that no confidence in a further draw follows "
            "from them. bnn_adv.certify certifies their mean, for certain."
        )
    if not isinstance(sampler, Sampler):
        raise TypeError(
            f"certify_fresh needs a bnn_adv.Sampler, got {type(sampler).__name__}. Make one by "
            "bnn_adv.Sampler(apply_fn, draw) with draw(rng_key) -> params."
        )
    if sampler.decision_rule == "mean_logits":
        raise CertificationError(
            "The sampler averages logits, which have no bounds: however many draws were seen, one "
            "that is not could outweigh them. Certify the rule mean_probabilities "
            '(decision_rule="mean_probabilities"), or a fixed set of draws: '
            "bnn_adv.certify(sampler.sample(key, S), ...)."
        )
    if sampler.precision != "highest":
        raise CertificationError(
            f"The sampler computes in {sampler.precision}, which rounds more than a certificate "
            'allows for: give it precision="highest".'
        )


def _check_confidence(confidence: Any) -> None:
    is_number = isinstance(confidence, int | float | np.number) and not isinstance(confidence, bool)
    if not is_number or not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, as 0.95; got {confidence!r}.")


def conclude_counts(
    counted: Counted, y: np.ndarray, num_samples: int, confidence: float
) -> dict[str, Any]:
    """Return the bounds that sums and counts over draws give; fields of ``FreshCertificate``.

    Args:
      counted: Of n draws and N inputs.
      y: Labels, [N].
      num_samples: Draws, n.
      confidence: ``1 - delta``.
    """
    count, num_classes = counted.totals.gaps.shape
    delta = 1 - float(confidence)

    def margins(delta: float) -> np.ndarray:
        found = bernstein_lower(
            *counted.totals, num_samples, delta=delta / (num_classes - 1), width=2.0
        )
        found[np.arange(count), y] = np.inf
        return found

    alone, together = margins(delta), margins(delta / count)
    shares = counted.per_draw / count
    accuracy = bernstein_lower(shares.sum(), (shares**2).sum(), num_samples, delta=delta, width=1.0)
    return {
        "margin": np.maximum(alone.min(axis=1), -1.0),
        "margin_together": np.maximum(together.min(axis=1), -1.0),
        "nearest": alone.argmin(axis=1),
        "safe": clopper_pearson_lower(counted.num_safe, num_samples, delta=delta),
        "safe_together": clopper_pearson_lower(counted.num_safe, num_samples, delta=delta / count),
        "num_safe": counted.num_safe,
        "num_right": counted.num_right,
        "draw_accuracy": max(float(accuracy), 0.0),
    }
