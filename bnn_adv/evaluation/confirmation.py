"""Pass what a suite reports through the referee, which shares no code with attacks and metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from bnn_adv.attacks.threat import Threat
from bnn_adv.compute.types import HostClasses, HostFlags, HostImages
from bnn_adv.evaluation.verification import Verification, verify_arrays
from bnn_adv.evaluation.verification_arrays import SCHEMA_VERSION
from bnn_adv.posteriors.posterior import Posterior, hash_draws, logit_rounding

_UNDECIDED = 1e-3
"""Margin of log-probabilities, in nats, within which float32 may err."""


def state_claims(
    posterior: Posterior,
    x: HostImages,
    y: HostClasses,
    threat: Threat,
    x_adv: HostImages,
    *,
    clean_correct: HostFlags,
    broken: HostFlags,
    draws_hash: str,
) -> dict[str, np.ndarray]:
    """Return what the referee reads, by name, see ``verification.verify_arrays``.

    Args:
      posterior: The draws that predict.
      x: Clean images, [N, ...].
      y: Labels, [N].
      threat: What the attacker was allowed.
      x_adv: Adversarial images, [N, ...].
      clean_correct: Whether the clean image is classified correctly, [N].
      broken: Whether the adversarial one is claimed to be of another class, [N].
      draws_hash: Of the posterior, from ``posterior.hash_draws``.
    """
    return {
        "schema_version": np.array(SCHEMA_VERSION),
        "x": x,
        "x_adv": x_adv,
        "y": y,
        "indices": np.arange(len(x)),
        "clean_correct": clean_correct,
        "broken": broken,
        "norm": np.array(threat.norm),
        "epsilon": np.array(threat.epsilon),
        "lower": np.array(threat.lower),
        "upper": np.array(threat.upper),
        "draws_hash": np.array(draws_hash),
        "decision_rule": np.array(posterior.decision_rule),
    }


def close_margin(posterior: Posterior, x: HostImages) -> float:
    """Return the margin of log-probabilities, in nats, within which rounding may decide."""
    return max(_UNDECIDED, 64 * logit_rounding(posterior, x))


def least_margin(posterior: Posterior, x: HostImages, largest: np.ndarray) -> np.ndarray:
    """Return the margin in nats above which a claim holds in every program, [N].

    Zero for networks in float32 throughout. What computes in half precision gives other logits for
    other sizes of a batch: two of them, each off by one unit in the last place of the largest.

    Args:
      posterior: The draws that predict.
      x: Images, [N, ...]; their values do not matter.
      largest: Largest absolute logit of any draw at the images that are asked about, [K].
    """
    rounding = logit_rounding(posterior, x)
    if rounding <= np.finfo(np.float32).eps / 2:
        return np.zeros(len(largest))
    margin: np.ndarray = 4 * rounding * np.maximum(1.0, largest)
    return margin


def settle(arrays: Mapping[str, np.ndarray], posterior: Posterior, threat: Threat) -> Verification:
    """Return the referee's findings on claims, without those that rounding cannot tell.

    Minimum-norm attacks end on the boundary, and what rounding alone calls fooled is not claimed.
    Half precision errs by more than float32, and differently in every program: nothing is claimed
    that ``least_margin`` does not tell from it.

    Args:
      arrays: From ``state_claims``.
      posterior: The draws that predict.
      threat: What the attacker was allowed.

    Raises:
      VerificationError: An image leaves ball or box, or a claim is not confirmed.
    """
    verdict = verify_arrays(arrays, posterior, threat=threat)
    least = least_margin(posterior, arrays["x"], verdict.largest)
    close = np.maximum(close_margin(posterior, arrays["x"]), 4 * least)
    undecided = (np.abs(verdict.margin) < close) & ~verdict.fooled
    undecided |= verdict.fooled & (verdict.margin <= least)
    verdict = dataclasses.replace(verdict, claimed=verdict.claimed & ~undecided)
    verdict.check()
    return verdict


def confirm(
    posterior: Posterior,
    x: HostImages,
    y: HostClasses,
    x_adv: HostImages,
    *,
    threat: Threat,
    clean_correct: HostFlags,
    misclassified: HostFlags,
) -> Verification:
    """Return the referee's findings on images, of which it found none that is not allowed.

    Args:
      posterior: The draws that predict.
      x: Clean images, [N, ...].
      y: Labels, [N].
      x_adv: Adversarial images, [N, ...].
      threat: What the attacker was allowed.
      clean_correct: Whether the clean image is classified correctly, [N].
      misclassified: Whether the adversarial one is said to be of another class, [N] (a prediction
        that is not finite is of none); where the margin in float64 is too small to tell, nothing is
        claimed.

    Raises:
      VerificationError: An image leaves ball or box, or a claim is not confirmed.
    """
    arrays = state_claims(
        posterior,
        x,
        y,
        threat,
        x_adv,
        clean_correct=clean_correct,
        broken=misclassified,
        draws_hash=hash_draws(posterior),
    )
    return settle(arrays, posterior, threat)
