r"""What an attacker maximises who knows that uncertain inputs are refused."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks.objectives import Aim, Head, Objective, margin
from bnn_adv.evaluation.uncertainty.measures import (
    MEASURES,
    SCORES,
    Measure,
    Score,
    log_doubt,
    log_entropy,
)
from bnn_adv.posteriors.decision import DecisionRule

DEFAULT_WEIGHT = 3.0
"""Nats of mean-logit margin that the attacker gives for a factor e of uncertainty."""

_TINY = float(np.finfo(np.float32).tiny)


@functools.lru_cache(maxsize=64)
def evasive_objective(
    measure: Measure,
    threshold: float,
    weight: float = DEFAULT_WEIGHT,
    rule: DecisionRule = "mean_probabilities",
) -> Objective:
    """Return an objective that fools the prediction and then stays below a detector's threshold.

    With ``m = margin(zbar)``, the margin of the mean logits, which never saturates, and the
    penalty ``P = weight max(0, log U - log threshold)`` of the prediction's uncertainty U:

        not fooled:    value m,                         direction grad m
        fooled:        value m / (1 + max(m, 0)) - P,   direction grad (m - P)

    A penalty on inputs that are still classified correctly would guard the label: between a
    confident right and a confident wrong answer lies uncertainty. The logarithm keeps a gradient
    where U is small. The value of an input that fools ranks the penalty first, and falls where
    the penalty sets in: it serves attacks that prefer inputs that fool to those of larger value,
    as PGD does. Equal arguments give the same object, and all of them share their programs.

    Args:
      measure: Name in ``MEASURES``.
      threshold: Largest uncertainty that the detector accepts, in nats, at least 0.
      weight: At least 0.
      rule: How predictions are made, whose label and entropy count.

    Raises:
      ValueError: An argument is out of range.
    """
    if measure not in MEASURES:
        raise ValueError(f"Unknown measure {measure!r}. Known: {', '.join(MEASURES)}.")
    if not (0 <= threshold < math.inf and 0 <= weight < math.inf):
        raise ValueError(
            "threshold and weight must be finite and at least 0, got "
            f"threshold={threshold} and weight={weight}."
        )
    # Data of the programs: every posterior has a threshold of its own.
    numbers = math.log(max(threshold, _TINY)), float(weight), float(SCORES.index(measure))
    name = f"evade_{measure}_{threshold:.6g}_{weight:.6g}"
    return Objective(
        name if rule == "mean_probabilities" else f"{name}_{rule}",
        _statistic,
        "mean",
        _make_head(rule),
        numbers=numbers,
    )


@functools.lru_cache(maxsize=64)
def certain_objective(
    score: Score, weight: float = DEFAULT_WEIGHT, rule: DecisionRule = "mean_probabilities"
) -> Objective:
    """Return an objective that fools the prediction and then makes it as certain as can be.

    ``evasive_objective`` with no threshold, by any score; all scores share their programs.

    Args:
      score: Name in ``SCORES``.
      weight: At least 0.
      rule: How predictions are made, whose label and uncertainty count.
    """
    numbers = math.log(_TINY), float(weight), float(SCORES.index(score))
    return Objective(f"fool_certain_{score}", _statistic, "mean", _make_head(rule), numbers=numbers)


@functools.cache
def _make_head(rule: DecisionRule) -> Head:
    """Return the head of all scores, of which a last number chooses."""

    def head(
        reduced: jax.Array,
        aim: Aim,
        log_threshold: float | jax.Array,
        weight: float | jax.Array,
        number: float | jax.Array,
    ) -> jax.Array:
        logits, probs, entropy = jnp.split(reduced, [size := reduced.shape[1] // 2, 2 * size], 1)
        lost = margin(logits, aim)
        predicted = jax.nn.softmax(logits) if rule == "mean_logits" else probs

        def look(measure: Measure) -> jax.Array:
            log_uncertainty = log_entropy(_log(predicted if measure == "entropy" else probs))
            if measure == "mutual_information":
                # Rounding may make the draws' mean entropy the larger one.
                ratio = jnp.minimum(_log(entropy[:, 0]) - log_uncertainty, -1e-6)
                log_uncertainty = log_uncertainty + jnp.log(-jnp.expm1(ratio))
            return log_uncertainty

        found = look("entropy"), look("mutual_information"), log_doubt(_log(predicted))
        log_uncertainty = choose_score(found, number)
        penalty = weight * jax.nn.relu(log_uncertainty - log_threshold)
        value, follow = lost / (1 + jax.nn.relu(lost)) - penalty, lost - penalty
        evasive = jax.lax.stop_gradient(value - follow) + follow
        return jnp.where(margin(predicted, aim) > 0, evasive, lost)

    return head


def choose_score(found: Sequence[jax.Array], number: float | jax.Array) -> jax.Array:
    """Return the one of three finite scores, in the order of ``SCORES``, that has a number."""
    number = jnp.asarray(number)
    return jnp.where(number == 0, found[0], jnp.where(number == 1, found[1], found[2]))


def _statistic(logits: jax.Array, aim: Aim) -> jax.Array:
    log_probs = jax.nn.log_softmax(logits)
    entropy = jnp.exp(log_entropy(log_probs))[:, None]
    return jnp.concatenate([logits, jnp.exp(log_probs), entropy], axis=1)


def _log(values: jax.Array) -> jax.Array:
    return jnp.log(jnp.maximum(values, _TINY))
