r"""Gradients along and across a data manifold.

At a point x of a k-dimensional manifold in R^d with orthonormal bases T [d, k] of the tangent space
and N [d, d - k] of its complement, a gradient g splits into ``T T^t g + N N^t g`` (Carbone et al.
2020, supplement section 10: "the ambient space metric and the decomposition it induces").

Two gradients matter. That of the loss L, which attacks follow, and that of the score m, the
function that is learnt:

    cross-entropy:  L = -log p_y,              m = log p_y / (1 - p_y),   grad L = -(1 - p_y) grad m
    squared:        L = |f - onehot(y)|^2 / 2, m = f_y

Zero is the least value of L, so that where L is zero its gradient is zero too, in every direction
of R^d and on any manifold. What distinguishes directions there is the gradient of m.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.compute.streaming import map_samples
from bnn_adv.inference.densities import categorical
from bnn_adv.networks import ApplyFn, Params
from bnn_adv.posteriors.posterior import Posterior, check_sample_chunk


class Parts(NamedTuple):
    """The two parts of gradients, which add up to them.

    tangent: Projections on the tangent spaces, [..., N, d].
    normal: Projections on their complements, [..., N, d].
    tangent_norm: Euclidean norms of the former, [..., N].
    normal_norm: Euclidean norms of the latter, [..., N].
    """

    tangent: jax.Array
    normal: jax.Array
    tangent_norm: jax.Array
    normal_norm: jax.Array


@jax.jit
def split_gradient(gradient: jax.Array, tangent: jax.Array, normal: jax.Array) -> Parts:
    """Split gradients into parts along and across a manifold.

    Args:
      gradient: [..., N, d].
      tangent: Orthonormal bases of the tangent spaces, [N, d, k].
      normal: Orthonormal bases of their complements, [N, d, d - k]; k = d leaves nothing across.

    Raises:
      ValueError: Shapes do not fit one another.
    """
    size, rank = gradient.shape[-1], tangent.shape[-1] + normal.shape[-1]
    if rank != size or {tangent.shape[:2], normal.shape[:2]} != {gradient.shape[-2:]}:
        raise ValueError(
            f"Gradients [..., N, d] of shape {gradient.shape} need bases [N, d, k] and "
            f"[N, d, d - k], got {tangent.shape} and {normal.shape}."
        )
    projections = []
    for basis in (tangent, normal):
        inside = jnp.einsum("...nd,ndk->...nk", gradient, basis, precision="highest")
        vectors = jnp.einsum("...nk,ndk->...nd", inside, basis, precision="highest")
        # The norm in the basis: of a part that has no direction it is exactly zero.
        projections.append((vectors, jnp.linalg.norm(inside, axis=-1)))
    (along, along_norm), (across, across_norm) = projections
    return Parts(along, across, along_norm, across_norm)


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Return ``-log p_y`` for logits [B, C] and labels [B], in nats, [B]."""
    return -categorical(logits, y)


def log_odds(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Return ``log p_y / (1 - p_y)``, the label's logit minus log-sum-exp of the others, [B]."""
    is_label = jnp.arange(logits.shape[-1]) == y[:, None]
    others = jax.nn.logsumexp(jnp.where(is_label, -jnp.inf, logits), axis=-1)
    return jnp.take_along_axis(logits, y[:, None], axis=-1)[:, 0] - others


def squared(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Return ``|f - onehot(y)|^2 / 2`` for outputs [B, C] and labels [B], [B]."""
    return 0.5 * jnp.sum((outputs - jax.nn.one_hot(y, outputs.shape[-1])) ** 2, axis=-1)


def label_output(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Return the output of the label, f_y, [B]."""
    return jnp.take_along_axis(outputs, y[:, None], axis=-1)[:, 0]


Scalar = Callable[[jax.Array, jax.Array], jax.Array]
"""Maps outputs [B, C] and labels [B] to numbers [B]."""

LOSSES: dict[str, tuple[Scalar, Scalar]] = {
    "cross_entropy": (cross_entropy, log_odds),
    "squared": (squared, label_output),
}
"""Loss and score of every kind of training."""


def input_gradient(
    scalar: Scalar, apply_fn: ApplyFn, params: Params, x: jax.Array, y: jax.Array
) -> jax.Array:
    """Return the gradient of a loss or score with respect to every input, like ``x``."""
    found: jax.Array = jax.grad(lambda inputs: scalar(apply_fn(params, inputs), y).sum())(x)
    return found


@functools.partial(jax.jit, static_argnames=("scalar", "sample_chunk"))
def draw_gradients(
    scalar: Scalar,
    posterior: Posterior,
    x: jax.Array,
    y: jax.Array,
    *,
    sample_chunk: int | None = None,
) -> jax.Array:
    """Return the input gradient of every draw of a posterior.

    Args:
      scalar: A loss or score of ``LOSSES``.
      posterior: S draws.
      x: Inputs, [N, d].
      y: Labels, int32 [N].
      sample_chunk: Draws at once; None chooses from the size of the network.

    Returns:
      [S, N, d].
    """
    chunk = check_sample_chunk(posterior, sample_chunk, x)
    with jax.default_matmul_precision(posterior.precision):
        found: jax.Array = map_samples(
            lambda params: input_gradient(scalar, posterior.apply_fn, params, x, y),
            posterior.samples,
            chunk=chunk,
            shards=posterior.shards,
        )
        return found
