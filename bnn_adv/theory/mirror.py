r"""Weights with the same function on the manifold and the opposite normal gradient (Lemma 4).

Carbone et al. (2020), supplement section 10: for weights w and a point x* of the manifold M there
are w' with

    f(x, w') = f(x, w) for x in M (4),        grad_normal L(x*, w') = -grad_normal L(x*, w) (5).

The lemma argues that they exist; here they are constructed. Where M lies in a subspace and only
directions across that subspace matter, ``reflect`` is exact. ``mirror`` handles any manifold: from
w it solves (4) on anchor points of M, and (5), by damped Gauss-Newton steps of least norm, which
change the weights as little as the equations allow.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from bnn_adv.compute.settings import SettingError, Settings, setting
from bnn_adv.networks import ApplyFn, Params
from bnn_adv.theory.parts import input_gradient, log_odds


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """How the equations are solved.

    Args:
      num_stages: The normal gradient is turned over in so many equal parts, each solved from the
        solution of the one before.
      num_steps: Gauss-Newton steps in all, at least ``num_stages``.
      stage_error: Largest residual, in units of log-odds, at which the next part begins.
      damping: First damping, relative to the mean diagonal of J J^t.
      tolerance: A result counts as a success if no probability on held-out points of the manifold
        changes by this much, in (0, 1) ...
      cosine: ... and the cosine between the two normal gradients is below this, in (-1, 0).
    """

    num_stages: int = setting(16, least=1)
    num_steps: int = setting(64, least=1)
    stage_error: float = setting(0.2, above=0)
    damping: float = setting(1e-4, above=0)
    tolerance: float = setting(1e-2, above=0, below=1)
    cosine: float = setting(-0.95, above=-1, below=0)

    def __post_init__(self) -> None:
        """Check every field, and that every part has a step."""
        super().__post_init__()
        if self.num_stages > self.num_steps:
            problem = f"must be at most num_steps ({self.num_steps}), got {self.num_stages}."
            raise SettingError("num_stages", problem)


class Mirrored(NamedTuple):
    """Constructed weights and how well they fulfil the lemma.

    params: The weights w'.
    before: Normal part of the loss gradient at the point under w, [d].
    after: The same under w', [d].
    cosine: Between the two; -1 is the lemma.
    relative_error: ``|after + before| / |before|``; 0 is the lemma.
    max_difference: Largest change of a probability over the held-out points.
    max_log_odds: Largest change of a log-odds there: does not hide in saturation.
    weight_change: ``|w' - w| / |w|``.
    log_prior_change: ``(|w|^2 - |w'|^2) / 2``, log of the ratio of N(0, 1) prior densities, nats.
    """

    params: Params
    before: jax.Array
    after: jax.Array
    cosine: jax.Array
    relative_error: jax.Array
    max_difference: jax.Array
    max_log_odds: jax.Array
    weight_change: jax.Array
    log_prior_change: jax.Array

    def succeeds(self, config: Config) -> jax.Array:
        """Return whether function and gradient are within the tolerances."""
        return (self.max_difference < config.tolerance) & (self.cosine < config.cosine)


def reflect(params: Params, frame: jax.Array, *, first_layer: str = "hidden_0") -> Params:
    """Return the weights that are blind to a reflection across a subspace, exactly.

    With P = U U^t the projection on the subspace and R = 2 P - 1 the reflection that keeps it,
    ``W_1' = R W_1`` gives ``f(x, w') = f(R x, w)``: the same function on the subspace, and there
    the gradient ``R grad f``, whose part across the subspace has changed its sign. R is orthogonal,
    so that every isotropic Gaussian prior gives w and w' the same density.

    Args:
      params: Of a network whose first layer is dense.
      frame: Orthonormal basis U of the subspace, [d, m].
      first_layer: Name of that layer.

    Raises:
      ValueError: There is no such layer, or its kernel has another input dimension.
    """
    if first_layer not in params or params[first_layer]["kernel"].shape[0] != frame.shape[0]:
        raise ValueError(
            f"reflect needs a layer {first_layer!r} with a kernel [{frame.shape[0]}, width], got "
            f"{ {name: leaf['kernel'].shape for name, leaf in params.items()} }."
        )
    layer = params[first_layer]
    inside = frame @ (frame.T @ layer["kernel"])
    return {**params, first_layer: {**layer, "kernel": 2 * inside - layer["kernel"]}}


@functools.partial(jax.jit, static_argnames=("apply_fn", "config"))
def mirror(
    params: Params,
    x: jax.Array,
    y: jax.Array,
    normal: jax.Array,
    anchors: jax.Array,
    held_out: jax.Array,
    *,
    apply_fn: ApplyFn,
    config: Config = Config(),
) -> Mirrored:
    """Construct w' of Lemma 4 for a network and a point.

    Args:
      params: The weights w.
      x: The point, [d].
      y: Its label, a scalar.
      normal: Orthonormal basis of the normal space at the point, [d, d - k] with k < d.
      anchors: Points of the manifold on which (4) is demanded, [A, d].
      held_out: Other points of it, on which (4) is measured, [H, d].
      apply_fn: A smooth network's function.
      config: Settings.

    Returns:
      The weights and how well they fulfil the lemma; see ``Mirrored.succeeds``.

    Raises:
      ValueError: There is no normal direction.
    """
    if not normal.shape[-1]:
        raise ValueError("The manifold has full dimension: there is no normal gradient to turn.")
    flat, unravel = ravel_pytree(params)
    with jax.default_matmul_precision("highest"):
        solved = _solve(flat, flat, unravel, x, y, normal, anchors, apply_fn, config)
        return _judge(solved, flat, unravel, x, y, normal, held_out, apply_fn)


def _function(apply_fn: ApplyFn, params: Params, x: jax.Array) -> jax.Array:
    """Return the logits without the shift that softmax ignores, [B, C - 1]."""
    logits = apply_fn(params, x)
    return logits[:, 1:] - logits[:, :1]


def _normal_part(
    scalar: Any, apply_fn: ApplyFn, params: Params, x: jax.Array, y: jax.Array, normal: jax.Array
) -> jax.Array:
    """Return the gradient at one point in the basis of the normal space, [d - k]."""
    return input_gradient(scalar, apply_fn, params, x[None], y[None])[0] @ normal


def _solve(
    flat: jax.Array,
    original: jax.Array,
    unravel: Any,
    x: jax.Array,
    y: jax.Array,
    normal: jax.Array,
    anchors: jax.Array,
    apply_fn: ApplyFn,
    config: Config,
) -> jax.Array:
    function = _function(apply_fn, unravel(original), anchors)
    # (4) and (5) for the score are those for the loss: grad L = -(1 - p_y) grad m, and (4) keeps p.
    score = functools.partial(_normal_part, log_odds, apply_fn, x=x, y=y, normal=normal)
    before, first = score(params=unravel(original)), score(params=unravel(flat))
    # Both kinds of equations in units of the score: a gradient times a length, the root mean
    # square distance to the anchors.
    length = jnp.sqrt(jnp.mean(jnp.sum((anchors - x) ** 2, axis=-1)))

    def residual(weights: jax.Array, goal: jax.Array) -> jax.Array:
        params = unravel(weights)
        same = _function(apply_fn, params, anchors) - function
        turned = length * (score(params=params) - goal)
        return jnp.concatenate([same.ravel(), turned])

    def step(_: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        weights, damping, stage = carry
        share = jnp.minimum(stage / config.num_stages, 1.0)
        goal = (1 - share) * first - share * before
        values = residual(weights, goal)
        jacobian = jax.jacrev(residual)(weights, goal)
        gram = jacobian @ jacobian.T
        scale = jnp.trace(gram) / len(gram)
        shifted = gram + damping * scale * jnp.eye(len(gram))
        new = weights - jacobian.T @ jax.scipy.linalg.solve(shifted, values, assume_a="pos")
        new_values = residual(new, goal)
        better = jnp.sum(new_values**2) < jnp.sum(values**2)
        # Levenberg's rule: trust the linear model more after it held, less after it did not.
        damping = jnp.clip(jnp.where(better, damping / 3, damping * 10), 1e-7, 1e2)
        is_met = jnp.abs(jnp.where(better, new_values, values)).max() < config.stage_error
        return jnp.where(better, new, weights), damping, stage + is_met

    start = (flat, jnp.asarray(config.damping, flat.dtype), jnp.ones((), jnp.int32))
    found: jax.Array = jax.lax.fori_loop(0, config.num_steps, step, start)[0]
    return found


def _judge(
    flat: jax.Array,
    original: jax.Array,
    unravel: Any,
    x: jax.Array,
    y: jax.Array,
    normal: jax.Array,
    held_out: jax.Array,
    apply_fn: ApplyFn,
) -> Mirrored:
    old, new = unravel(original), unravel(flat)

    def loss_part(params: Params) -> jax.Array:
        # 1 - p_y from the log-odds: as a difference it loses its digits where p_y is near one.
        odds = log_odds(apply_fn(params, x[None]), y[None])[0]
        part = _normal_part(log_odds, apply_fn, params, x, y, normal)
        return -jax.nn.sigmoid(-odds) * part

    before, after = loss_part(old), loss_part(new)
    norms = jnp.linalg.norm(before) * jnp.linalg.norm(after)
    labels = jnp.full(held_out.shape[0], y)
    logits = apply_fn(old, held_out), apply_fn(new, held_out)
    probabilities = [jax.nn.softmax(z) for z in logits]
    odds = [log_odds(z, labels) for z in logits]
    return Mirrored(
        params=new,
        before=normal @ before,
        after=normal @ after,
        cosine=before @ after / norms,
        relative_error=jnp.linalg.norm(after + before) / jnp.linalg.norm(before),
        max_difference=jnp.abs(probabilities[1] - probabilities[0]).max(),
        max_log_odds=jnp.abs(odds[1] - odds[0]).max(),
        weight_change=jnp.linalg.norm(flat - original) / jnp.linalg.norm(original),
        log_prior_change=0.5 * jnp.sum((original - flat) * (original + flat)),
    )
