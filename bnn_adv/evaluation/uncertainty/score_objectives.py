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

import functools
from typing import Any

import jax
import jax.numpy as jnp

from bnn_adv.attacks.objectives import OBJECTIVES, Aim, Objective, margin
from bnn_adv.evaluation.uncertainty.measures import SCORES, log_doubt, log_entropy

SCORE_OBJECTIVES = (*SCORES, "mean_logit_gap", "draw_gaps")
"""Names that ``score_objective`` knows."""


@functools.lru_cache(maxsize=64)
def score_objective(name: str, sign: int) -> Objective:
    """Return an objective that raises or lowers an uncertainty, see above.

    Values are compared, so use it with ``attacks.base.by_value``; labels are the clean classes.
    Both signs share their programs.

    Args:
      name: Of ``SCORE_OBJECTIVES``.
      sign: +1: look uncertain; -1: look certain.

    Raises:
      ValueError: Another name or sign.
    """
    if name not in _PARTS or sign not in (-1, 1):
        raise ValueError(
            f"Need a name of {', '.join(SCORE_OBJECTIVES)} and a sign of -1 or 1, got {name!r} and "
            f"{sign!r}."
        )
    title = f"{'raise' if sign > 0 else 'lower'}_{name}"
    statistic, reduce, head, more = _PARTS[name]
    return Objective(title, statistic, reduce, head, numbers=(float(sign),), **more)


def _log_entropy(log_probs: jax.Array, aim: Aim, sign: jax.Array) -> jax.Array:
    return sign * log_entropy(log_probs)


def _log_doubt(log_probs: jax.Array, aim: Aim, sign: jax.Array) -> jax.Array:
    return sign * log_doubt(log_probs)


def _draws_and_entropies(logits: jax.Array, aim: Aim) -> jax.Array:
    log_probs = jax.nn.log_softmax(logits)
    return jnp.concatenate([log_probs, log_entropy(log_probs)[:, None]], axis=1)


def _log_information(reduced: jax.Array, aim: Aim, sign: jax.Array) -> jax.Array:
    whole = log_entropy(reduced[:, :-1])
    # Rounding may make the draws' mean entropy the larger one.
    ratio = jnp.minimum(reduced[:, -1] - whole, -1e-6)
    return sign * (whole + jnp.log(-jnp.expm1(ratio)))


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


_PARTS: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "entropy": (None, "log_predictive", _log_entropy, {}),
    "mutual_information": (_draws_and_entropies, "log_mean_exp", _log_information, {}),
    "max_probability": (None, "log_predictive", _log_doubt, {}),
    "mean_logit_gap": (_logits, "mean", _gap_of_mean, {}),
    "draw_gaps": (
        _gap_and_margin,
        "mean",
        _mean_of_gaps,
        {"linear_head": True, "scale": OBJECTIVES["scaled_margin"].scale},
    ),
}
