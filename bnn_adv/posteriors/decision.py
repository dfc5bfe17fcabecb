r"""Decision rules: how the draws of a posterior make one prediction.

With ``z_s = f(x, w_s)`` the logits of draw s:

    mean_probabilities    pbar = (1/S) sum_s softmax(z_s)       the posterior predictive
    mean_logits           pbar = softmax( (1/S) sum_s z_s )     the published code's ensembles

The first is Carbone et al. 2020, section 3, and the deep ensemble of Lakshminarayanan et al. 2017
(arXiv 1612.01474, eq. 2). Of one draw both are its softmax; only what a further softmax would be
applied to differs: probabilities of a Bayesian network, logits of a deterministic one.

The predicted class is the argmax of pbar. A prediction that holds a NaN or an infinity is no class,
whatever the label (``predicted_class``): never correct, clean or attacked; an attack that reaches
one has succeeded, though another that fools by a finite prediction is preferred; the referee does
not confirm it as misclassified, and evaluations count and name such images apart.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from bnn_adv.compute.types import AnyArray, Logits

DecisionRule = Literal["mean_probabilities", "mean_logits"]
DECISION_RULES: tuple[DecisionRule, ...] = ("mean_probabilities", "mean_logits")

NO_CLASS = -1
"""What ``predicted_class`` calls a prediction that is not finite: no label equals it."""

_ROUNDING = 2.0**-20
"""Relative error of the float32 log of a mean over draws: a few units in the last place."""


def check_rule(rule: str) -> None:
    """Raise unless a decision rule is known.

    Raises:
      ValueError: It is not; the message lists the known.
    """
    if rule not in DECISION_RULES:
        raise ValueError(f"Unknown decision_rule {rule!r}. Known: {', '.join(DECISION_RULES)}.")


def predicted_class(log_probs: Float[AnyArray, "*B C"]) -> Int[AnyArray, "*B"]:
    """Return the most probable class of every row, ``NO_CLASS`` where a prediction is not finite.

    argmax alone would name the class of the first NaN, and results would depend on how classes are
    numbered.

    Args:
      log_probs: Log of the prediction, or its sum over draws, [..., C]; NumPy or JAX. A probability
        may be zero (minus infinity).

    Returns:
      Integers, [...], of the same library.
    """
    array: Any = np if isinstance(log_probs, np.ndarray) else jnp
    # The maximum of numbers with a NaN is NaN.
    is_class = array.isfinite(log_probs.max(axis=-1))
    found: AnyArray = array.where(is_class, array.argmax(log_probs, axis=-1), NO_CLASS)
    return found


def is_fooled(log_probs: Float[AnyArray, "B C"], y: Int[AnyArray, " B"]) -> Bool[AnyArray, " B"]:
    """Return whether another class beats the label by more than rounding; a tie fools nobody.

    Args:
      log_probs: Log of the prediction in float32, [B, C]; NumPy or JAX.
      y: Labels, [B].

    Returns:
      Booleans, [B], of the same library; True where a prediction is not finite, which is no class.
    """
    array: Any = np if isinstance(log_probs, np.ndarray) else jnp
    own = array.take_along_axis(log_probs, y[:, None], axis=-1)[:, 0]
    largest = log_probs.max(axis=-1)
    # Of votes of 2 : 2 the mean over draws differs in the last digit. An own probability of zero
    # is beaten by whatever is not zero.
    scale = array.where(array.isfinite(own), array.abs(own), 0.0)
    beats = largest - own > _ROUNDING * (1 + scale)
    fooled: AnyArray = beats | (predicted_class(log_probs) == NO_CLASS)
    return fooled


def folding(rule: DecisionRule) -> str:
    """Return how ``streaming.fold_samples`` adds up what ``contribution`` makes of the draws."""
    return "sum" if rule == "mean_logits" else "log_sum_exp"


def contribution(rule: DecisionRule, logits: Logits) -> Logits:
    """Return what one draw adds to the prediction, [B, C]: its logits or its log-probabilities."""
    return logits if rule == "mean_logits" else jax.nn.log_softmax(logits)


def log_predictive(rule: DecisionRule, total: Logits, num_samples: int) -> Logits:
    """Return ``log pbar`` of all draws' folded contributions, both [B, C]."""
    if rule == "mean_logits":
        return jax.nn.log_softmax(total / num_samples)
    return total - jnp.log(num_samples)
