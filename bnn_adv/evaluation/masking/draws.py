"""Draws that are not what their number promises, and a classifier that does not classify."""

from __future__ import annotations

import math

from bnn_adv.evaluation.masking.base import Check, Draws, Evidence, finite, percent
from bnn_adv.posteriors.distinct import count_distinct
from bnn_adv.posteriors.posterior import Posterior

_LEAST_ESS = 10.0


def measure_draws(posterior: Posterior, min_ess: float | None) -> Draws:
    """Return how many draws are distinct, beside the effective sample size that is known."""
    return Draws(count_distinct(posterior), min_ess)


def check_duplicate_draws(evidence: Evidence) -> Check:
    """Judge whether draws repeat: one seed for several members, or a chain that hardly moves.

    A Metropolis sampler repeats a draw where it rejects a transition, as it should: up to half of
    the draws may be such repetitions.
    """
    distinct, total = evidence.draws.distinct, evidence.probe.num_draws
    threshold = total / 2
    raised = total > 1 and distinct <= threshold
    sentence = f"{distinct} of {total} draws are distinct (more than {threshold:g} are asked for)"
    if raised:
        sentence += ": the posterior is narrower than its number of draws says"
    found = {"distinct": distinct, "draws": total}
    return Check("duplicate_draws", raised, float(distinct), threshold, found, sentence + ".")


def check_low_ess(evidence: Evidence) -> Check:
    """Judge the effective sample size (Gelman et al. 2013, Bayesian Data Analysis, section 11.5).

    The Monte Carlo error of a mean over draws is its posterior deviation divided by the root of
    the effective size: with fewer than 10 that is a third.
    """
    ess, total = evidence.draws.min_ess, evidence.probe.num_draws
    threshold = _LEAST_ESS
    if ess is None:
        sentence = "Not measured: no effective sample size is known for these draws."
        return Check("low_ess", False, None, threshold, {}, sentence)
    # Written so that NaN, of chains that never moved, counts as low.
    raised = not ess >= threshold
    sentence = (
        f"The smallest effective sample size of the predictions is {ess:.1f} of {total} draws "
        f"(at least {threshold:.0f} are asked for)"
    )
    if raised:
        sentence += ": these draws stand for a corner of the posterior; sample longer"
    found = {"min_ess": finite(ess), "draws": total}
    return Check("low_ess", raised, finite(ess), threshold, found, sentence + ".")


def check_low_accuracy(evidence: Evidence) -> Check:
    """Judge clean accuracy (Carlini et al. 2019, arXiv 1902.06705, section 4.2).

    Raised below chance plus two standard errors, or below one and a half times chance; never where
    every image is classified correctly.
    """
    probe = evidence.probe
    chance = 1 / probe.num_classes
    error = math.sqrt(chance * (1 - chance) / probe.num_images)
    # Of few images all may have to be right, and no more than all.
    most = 1 - 0.5 / probe.num_images
    threshold = min(max(chance + 2 * error, 1.5 * chance), most)
    accuracy = float(probe.correct.mean())
    raised = accuracy < threshold
    sentence = (
        f"Clean accuracy on the {probe.num_images} probe images is {percent(accuracy)}, with "
        f"{probe.num_classes} classes chance is {percent(chance)} (at least {percent(threshold)} "
        "is asked for)"
    )
    if raised:
        sentence += ": what does not classify cannot be robust"
    found = {"accuracy": accuracy, "chance": chance, "images": probe.num_images}
    return Check("low_accuracy", raised, accuracy, threshold, found, sentence + ".")
