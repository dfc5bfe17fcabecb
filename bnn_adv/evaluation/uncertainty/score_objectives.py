r"""What an attacker maximises who wants a posterior to look certain, or uncertain, of an input.

With ``pbar`` the prediction by the decision rule, ``z_s`` the logits of draw s, ``gap(z)`` the
largest less the second largest logit, and sign +1 to look uncertain, -1 to look certain:

    entropy              sign log H(pbar)
    mutual_information   sign log( H(pbar) - (1/S) sum_s H(p_s) )
    max_probability      sign log(1 - max_k pbar_k)
    mean_logit_gap       -sign gap( (1/S) sum_s z_s )
    draw_gaps            +1: -(1/S) sum_s gap(z_s) / spread_s;
                         -1: (1/S) sum_s (z_sc - max_{k != c} z_sk) / spread_s, c the clean class

The first three are scores in log space, whose gradient lives where that of the score itself
underflows. But the log of a mean over draws follows those of the largest terms: a draw that is
already unsure silences the others. The last two never saturate; ``spread_s`` is a draw's standard
deviation of logits at the clean input, fixed, so that draws of large logits do not drown others.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks.objectives import (
    OBJECTIVES,
    Aim,
    Objective,
    margin,
    value_and_gradient,
)
from bnn_adv.compute import parallel, programs
from bnn_adv.compute.singular import finite_gradient
from bnn_adv.evaluation.uncertainty.evasion import choose_score
from bnn_adv.evaluation.uncertainty.measures import SCORES, log_doubt, log_entropy
from bnn_adv.posteriors.decision import DecisionRule
from bnn_adv.posteriors.posterior import Posterior, check_sample_chunk

SCORE_OBJECTIVES = (*SCORES, "mean_logit_gap", "draw_gaps")
"""Names that ``score_objective`` knows."""


@functools.lru_cache(maxsize=64)
def score_objective(name: str, sign: int, rule: DecisionRule = "mean_probabilities") -> Objective:
    """Return an objective that raises or lowers an uncertainty, see above.

    Values are compared, so use it with ``attacks.base.by_value``; labels are the clean classes.
    Signs, and where the rule allows scores, share their programs.

    Args:
      name: Of ``SCORE_OBJECTIVES``.
      sign: +1: look uncertain; -1: look certain.
      rule: How the posterior predicts.

    Raises:
      ValueError: Another name or sign.
    """
    if name not in SCORE_OBJECTIVES or sign not in (-1, 1):
        raise ValueError(
            f"Need a name of {', '.join(SCORE_OBJECTIVES)} and a sign of -1 or 1, got {name!r} and "
            f"{sign!r}."
        )
    title, signed = f"{'raise' if sign > 0 else 'lower'}_{name}", (float(sign),)
    if name == "mean_logit_gap":
        return Objective(title, _logits, "mean", _gap_of_mean, numbers=signed)
    if name == "draw_gaps":
        scale = OBJECTIVES["scaled_margin"].scale
        parts: dict[str, Any] = {"linear_head": True, "scale": scale, "numbers": signed}
        return Objective(title, _gap_and_margin, "mean", _mean_of_gaps, **parts)
    numbers = (float(sign), float(SCORES.index(name)))
    if rule == "mean_logits" and name != "mutual_information":
        return Objective(title, None, "log_predictive", _of_prediction, numbers=numbers)
    return Objective(title, _draws_and_entropies, "log_mean_exp", _of_draws, numbers=numbers)


def _draws_and_entropies(logits: jax.Array, aim: Aim) -> jax.Array:
    log_probs = jax.nn.log_softmax(logits)
    return jnp.concatenate([log_probs, log_entropy(log_probs)[:, None]], axis=1)


def _of_draws(reduced: jax.Array, aim: Aim, sign: jax.Array, number: jax.Array) -> jax.Array:
    log_probs = reduced[:, :-1]
    whole = log_entropy(log_probs)
    # Rounding may make the draws' mean entropy the larger one.
    ratio = jnp.minimum(reduced[:, -1] - whole, -1e-6)
    information = whole + jnp.log(-jnp.expm1(ratio))
    return sign * choose_score((whole, information, log_doubt(log_probs)), number)


def _of_prediction(log_probs: jax.Array, aim: Aim, sign: jax.Array, number: jax.Array) -> jax.Array:
    whole = log_entropy(log_probs)
    return sign * choose_score((whole, whole, log_doubt(log_probs)), number)


def _gap(logits: jax.Array) -> jax.Array:
    top, _ = jax.lax.top_k(logits, 2)
    return top[:, 0] - top[:, 1]


def _logits(logits: jax.Array, aim: Aim) -> jax.Array:
    return logits


def _gap_of_mean(logits: jax.Array, aim: Aim, sign: jax.Array) -> jax.Array:
    return -sign * _gap(logits)


def _gap_and_margin(logits: jax.Array, aim: Aim) -> jax.Array:
    return jnp.stack([_gap(logits), margin(logits, aim)], axis=1)


def _mean_of_gaps(reduced: jax.Array, aim: Aim, sign: jax.Array) -> jax.Array:
    return -jnp.where(jnp.asarray(sign) > 0, reduced[:, 0], reduced[:, 1])


def no_gradient(
    objective: Objective,
    posterior: Posterior,
    x: np.ndarray,
    y: np.ndarray,
    *,
    batch_size: int,
    sample_chunk: int | None,
) -> np.ndarray:
    """Return at which inputs the objective's gradient is exactly zero, NaN taken for zero, [N].

    As ``masking.gradients``, with an objective's numbers as data.
    """
    size = min(batch_size, len(x))
    chunk = check_sample_chunk(posterior, sample_chunk, x[:size])
    plain = dataclasses.replace(objective, name="", numbers=())
    found = np.zeros(len(x), bool)
    # The last batch overlaps the one before it, so that only one shape compiles.
    for start in range(0, len(x), size):
        rows = slice(min(start, len(x) - size), min(start, len(x) - size) + size)
        own = _is_zero(posterior, x[rows], y[rows], objective.numbers, plain, chunk)
        found[rows] = parallel.to_host(own)
    return found


@functools.partial(programs.jit, static_argnames=("objective", "chunk"))
def _is_zero(
    posterior: Posterior, x: jax.Array, y: jax.Array, numbers: Any, objective: Objective, chunk: int
) -> jax.Array:
    objective = dataclasses.replace(objective, numbers=numbers)
    found = value_and_gradient(objective, posterior, x, y, sample_chunk=chunk)
    gradient = finite_gradient(found.gradient).reshape(x.shape[0], -1)
    return jnp.all(gradient == 0, axis=-1)
