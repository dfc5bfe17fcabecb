"""Pass what a suite reports through the referee, which shares no code with attacks and metrics."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from bnn_adv.posterior import Posterior, hash_draws
from bnn_adv.threat import Threat
from bnn_adv.verification import Verification, verify_arrays
from bnn_adv.verification_arrays import SCHEMA_VERSION

UNDECIDED = 1e-3
"""Margin of log-probabilities, in nats, within which float32 may err."""


def confirm(
    posterior: Posterior,
    x: np.ndarray,
    y: np.ndarray,
    x_adv: np.ndarray,
    *,
    threat: Threat,
    clean_correct: np.ndarray,
    misclassified: np.ndarray,
) -> Verification:
    """Return the referee's findings on images, of which it found none that is not allowed.

    Args:
      posterior: The draws that predict.
      x: Clean images, [N, ...].
      y: Labels, [N].
      x_adv: Adversarial images, [N, ...].
      threat: What the attacker was allowed.
      clean_correct: Whether the clean image is classified correctly, [N].
      misclassified: Whether the adversarial one is said not to be, [N]; where float32 says so and
        the margin in float64 is too small to tell, nothing is claimed.

    Raises:
      VerificationError: An image leaves ball or box, or a claim is not confirmed.
    """
    arrays: dict[str, Any] = {
        "schema_version": np.array(SCHEMA_VERSION),
        "x": x,
        "x_adv": x_adv,
        "y": y,
        "indices": np.arange(len(x)),
        "clean_correct": clean_correct,
        "broken": misclassified,
        "norm": np.array(threat.norm),
        "epsilon": np.asarray(threat.epsilon),
        "lower": np.array(threat.lower),
        "upper": np.array(threat.upper),
        "draws_hash": np.array(hash_draws(posterior)),
        "decision_rule": np.array(posterior.decision_rule),
    }
    verdict = verify_arrays(arrays, posterior, threat=threat)
    undecided = verdict.claimed & (np.abs(verdict.margin) < UNDECIDED) & ~verdict.fooled
    verdict = dataclasses.replace(verdict, claimed=misclassified & ~undecided)
    verdict.check()
    return verdict
