r"""What an attack maximises over a posterior, and its gradient, streamed over the draws.

Every objective has the form ``head( reduce_s( statistic(f(x, w_s)) ), y )``. Write
``l_s = log softmax f(x, w_s)``, ``lbar = log (1/S) sum_s exp l_s`` (the log of the posterior
predictive), ``z_s = f(x, w_s)`` and ``margin(z) = max_{k != y} z_k - z_y``. No single objective is
right for every posterior: on saturated ones the gradient of most of them is exactly zero.

Objectives of the prediction itself follow the posterior's decision rule: where predictions are made
of mean logits, ``lbar = log softmax (1/S) sum_s z_s``.

Every objective can also aim at a class t: margins become ``z_t - z_y``, losses minus the target's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from bnn_adv.attacks.objective_checks import check_head, check_parts
from bnn_adv.attacks.passes import Aim, ObjectiveValue, Problem, differentiate
from bnn_adv.compute import blocks, registry
from bnn_adv.compute.streaming import map_samples
from bnn_adv.networks import Params
from bnn_adv.posteriors.decision import DecisionRule
from bnn_adv.posteriors.posterior import Posterior, check_sample_chunk, one_draw

__all__ = ["OBJECTIVES", "Aim", "Objective", "ObjectiveValue", "dlr", "get_objective", "margin"]

Statistic = Callable[[jax.Array, Aim], jax.Array]
Head = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """Define an objective; larger values are better for the attacker.

    Args:
      name: Key in ``OBJECTIVES``, or any of one's own; reports show it.
      statistic: ``(logits [B, C], aim) -> [B, K]``, of one draw; None where the decision rule says
        what it is.
      reduce: ``"mean"`` or ``"log_mean_exp"`` over the draws. Or what the posterior's decision rule
        makes of them, [B, C]: ``"log_predictive"``, the log of the prediction; ``"output"``, what
        the published code calls a network's output: mean probabilities or mean logits.
      head: ``(reduced [B, K], aim, *numbers) -> [B]``.
      linear_head: True where ``head`` is linear and ``reduce`` the mean. Then the gradient is the
        mean of the draws' gradients and one pass over the draws is enough.
      scale: ``logits [B, C] -> [B]``, positive; a draw's statistic is divided by its scale at the
        clean input, which stays fixed during the attack. None leaves the statistic as it is.
      normalise: Divide each draw's gradient by its norm before the mean, so that every draw has
        one vote. Needs ``linear_head``.
      numbers: Further arguments of ``head``. Compiled programs take them as data: one program
        serves all their values, where numbers that ``head`` closes over make a new one each.
    """

    name: str
    statistic: Statistic | None
    reduce: Literal["mean", "log_mean_exp", "log_predictive", "output"]
    head: Head
    linear_head: bool = False
    scale: Callable[[jax.Array], jax.Array] | None = None
    normalise: bool = False
    numbers: tuple[float | jax.Array, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError where the parts do not fit."""
        check_parts(self)

    def value(self, reduced: jax.Array, aim: Aim) -> jax.Array:
        """Return the head of what was reduced over the draws, [B]."""
        return check_head(self.name, self.head(reduced, aim, *self.numbers), aim.y.shape)


def margin(scores: jax.Array, aim: Aim) -> jax.Array:
    """Return how far the label has lost, [B]: positive where another class has more.

    ``max_{k != y} scores_k - scores_y``, with a target ``scores_t - scores_y``.
    """
    own = _pick(scores, aim.y)
    if aim.target is not None:
        return _pick(scores, aim.target) - own
    is_label = jnp.arange(scores.shape[-1]) == aim.y[:, None]
    return jnp.where(is_label, -jnp.inf, scores).max(axis=-1) - own


def dlr(scores: jax.Array, aim: Aim) -> jax.Array:
    """Return the difference of logits ratio, [B] (Croce, Hein 2020, arXiv 2003.01690).

    ``margin / (z_(1) - z_(3))`` (eq. 6); with a target ``margin / (z_(1) - (z_(3) + z_(4)) / 2)``
    (eq. 7). With fewer than four classes, or where the ratio is meaningless or constant (the label
    ranks third or lower), the plain margin.
    """
    plain = margin(scores, aim)
    if scores.shape[-1] < 4:
        return plain
    top, _ = jax.lax.top_k(scores, 4)
    low = top[:, 2] if aim.target is None else (top[:, 2] + top[:, 3]) / 2
    spread = top[:, 0] - low
    usable = (_pick(scores, aim.y) > top[:, 2]) & (spread > 0)
    return jnp.where(usable, plain / jnp.where(usable, spread, 1.0), plain)


def _pick(scores: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.take_along_axis(scores, y[:, None], axis=-1)[:, 0]


def _loss(log_probs: jax.Array, aim: Aim) -> jax.Array:
    """Return the label's loss, or minus the target's, [B]."""
    return -_pick(log_probs, aim.y) if aim.target is None else _pick(log_probs, aim.target)


def _cross_entropy(logits: jax.Array, aim: Aim) -> jax.Array:
    return _loss(jax.nn.log_softmax(logits), aim)[:, None]


def _logits(logits: jax.Array, aim: Aim) -> jax.Array:
    return logits


def _log_softmax(logits: jax.Array, aim: Aim) -> jax.Array:
    return jax.nn.log_softmax(logits)


def _softmax(logits: jax.Array, aim: Aim) -> jax.Array:
    return jax.nn.softmax(logits)


def _margin_statistic(logits: jax.Array, aim: Aim) -> jax.Array:
    return margin(logits, aim)[:, None]


def _only(reduced: jax.Array, aim: Aim) -> jax.Array:
    return reduced[:, 0]


def _cross_entropy_of_output(reduced: jax.Array, aim: Aim) -> jax.Array:
    return _cross_entropy(reduced, aim)[:, 0]


def _spread(logits: jax.Array) -> jax.Array:
    spread = jnp.std(logits, axis=-1)
    # A draw whose logits are all equal says nothing, at any scale.
    return jnp.where(spread > 0, spread, 1.0)


_ALL = (
    # -(1/S) sum_s l_{s,y}: the theorem's E_w L (Carbone et al. 2020, eq. 2).
    Objective("expected_loss", _cross_entropy, "mean", _only, linear_head=True),
    # -lbar_y: weighs draws by responsibility, and so ignores those that are already fooled.
    Objective("loss_of_mean", None, "log_predictive", _loss),
    # margin((1/S) sum_s z_s): never saturates.
    Objective("mean_logit_margin", _logits, "mean", margin),
    # (1/S) sum_s margin(z_s) / spread_s: immune to draws of different scales.
    Objective("scaled_margin", _margin_statistic, "mean", _only, linear_head=True, scale=_spread),
    # Follows (1/S) sum_s g_s / |g_s| with g_s the gradient of margin(z_s).
    Objective(
        "normalised_vote", _margin_statistic, "mean", _only, linear_head=True, normalise=True
    ),
    # margin(lbar): the decision function of the prediction itself.
    Objective("log_predictive_margin", None, "log_predictive", margin),
    # DLR with lbar as logits, which is valid since softmax(lbar) is the prediction.
    Objective("dlr", None, "log_predictive", dlr),
    # As published: cross-entropy of the network's output, which applies one softmax. A Bayesian
    # network's output are mean probabilities: with ten classes the value lies in [1.461, 2.461] and
    # its gradient dies with saturation. A deterministic network's and an ensemble's are logits.
    Objective("published", None, "output", _cross_entropy_of_output),
)

OBJECTIVES = {objective.name: objective for objective in _ALL}


def get_objective(objective: str | Objective) -> Objective:
    """Return an objective: itself, or by a name of ``OBJECTIVES`` or ``package.module:NAME``.

    Raises:
      TypeError: It is neither an objective nor a name.
      ValueError: There is none of that name, or what has it is none.
    """
    if isinstance(objective, Objective):
        return objective
    if not isinstance(objective, str):
        kind = type(objective).__name__
        raise TypeError(f"Need an Objective or the name of one, got {kind}: {objective!r}.")
    found = registry.find("objective", objective, OBJECTIVES)
    if not isinstance(found, Objective):
        raise ValueError(
            f"{objective} is no objective: it is a {type(found).__name__}, not an Objective. Name "
            "one as package.module:NAME."
        )
    return found


@dataclasses.dataclass(frozen=True)
class _OfLogProbs:
    """A head of log predictives as one of logits; equal where the heads are."""

    head: Callable[..., jax.Array]

    def __call__(self, reduced: jax.Array, aim: Aim, *numbers: Any) -> jax.Array:
        return self.head(jax.nn.log_softmax(reduced), aim, *numbers)


def follow_rule(objective: Objective, rule: DecisionRule) -> Objective:
    """Return an objective with the statistic and the reduction that a decision rule gives it.

    Raises:
      ValueError: The objective has no statistic although its reduction needs one.
    """
    if objective.reduce not in ("log_predictive", "output"):
        if objective.statistic is None:
            raise ValueError(
                f"Objective {objective.name!r} reduces by {objective.reduce!r} and needs a "
                "statistic of a draw's logits; only log_predictive and output bring their own."
            )
        return objective
    if rule == "mean_probabilities":
        if objective.reduce == "output":
            return dataclasses.replace(objective, statistic=_softmax, reduce="mean")
        return dataclasses.replace(objective, statistic=_log_softmax, reduce="log_mean_exp")
    head = objective.head
    if objective.reduce == "log_predictive":
        head = _OfLogProbs(head)
    return dataclasses.replace(objective, statistic=_logits, reduce="mean", head=head)


def compute_scales(
    objective: Objective, posterior: Posterior, x: jax.Array, *, sample_chunk: int | None = None
) -> jax.Array:
    """Return every draw's fixed scale at the clean inputs, [S, B]; ones where none is used."""
    if objective.scale is None:
        return jnp.ones((posterior.num_samples, x.shape[0]), x.dtype)
    scale = objective.scale
    chunk, shards = check_sample_chunk(posterior, sample_chunk, x), posterior.shards

    def one(params: Params) -> jax.Array:
        return scale(posterior.logits(params, x))

    return jnp.asarray(map_samples(one, posterior.samples, chunk=chunk, shards=shards))


def value_and_gradient(
    objective: Objective,
    posterior: Posterior,
    x: jax.Array,
    y: jax.Array,
    *,
    target: jax.Array | None = None,
    scales: jax.Array | None = None,
    sample_chunk: int | None = None,
    finite_steps: bool = True,
) -> ObjectiveValue:
    """Evaluate an objective and its input gradient, streaming over the draws.

    One pass where the head is linear in the mean; else two: forward to reduce, then each draw's
    vector-Jacobian product with the cotangent that all draws share, see ``passes``. Matrix products
    run at the posterior's precision.

    Args:
      objective: What the attacker maximises.
      posterior: S draws.
      x: Inputs, [B, ...].
      y: int32 labels, [B].
      target: Classes to aim at, int32 [B]; None: any but the label.
      scales: ``compute_scales`` at the clean inputs, [S, B]; None computes them at ``x``.
      sample_chunk: Draws at once, 1..S; None chooses from the size of the network.
      finite_steps: Take steps of the chain rule that are NaN for zero, see ``singular``; False
        leaves the gradient as it is.

    Returns:
      Value, gradient and log posterior predictive.
    """
    objective = follow_rule(objective, posterior.decision_rule)
    chunk = check_sample_chunk(posterior, sample_chunk, x)
    each = blocks.bytes_per_input(posterior.apply_fn, one_draw(posterior), x)
    with jax.default_matmul_precision(posterior.precision):
        if scales is None:
            scales = compute_scales(objective, posterior, x, sample_chunk=chunk)

        def one_block(rows: tuple[jax.Array, Aim, jax.Array]) -> ObjectiveValue:
            return differentiate(
                Problem(objective, posterior, *rows[:2], rows[2].T, chunk, finite_steps)
            )

        rows = (x, Aim(y, target), scales.T)
        size = blocks.choose_block(each, x.shape[0])
        return ObjectiveValue(*blocks.map_blocks(one_block, rows, size))
