"""A batch of images under attack: its compiled steps, and what stays when images leave it."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv import objectives
from bnn_adv.attacks.base import Attack, Loss, LossFn
from bnn_adv.objectives import Objective
from bnn_adv.posterior import Posterior
from bnn_adv.threat import Threat

_SMALLEST = 8


class Batch(NamedTuple):
    """Hold what an attack knows of B images.

    keys: One key an image, [B].
    x: Clean images, [B, ...].
    y: Labels, [B].
    threat: The threat model, with a radius for every image.
    """

    keys: jax.Array
    x: jax.Array
    y: jax.Array
    threat: Threat


def bind(
    objective: Objective, posterior: Posterior, y: jax.Array, scales: jax.Array, chunk: int
) -> LossFn:
    """Return the loss function that an attack climbs: objective, posterior and labels in one."""

    def loss_fn(x: jax.Array, target: jax.Array | None = None) -> Loss:
        evaluation = objectives.value_and_gradient(
            objective, posterior, x, y, target=target, scales=scales, sample_chunk=chunk
        )
        fooled = jnp.argmax(evaluation.log_probs, axis=-1) != y
        return Loss(evaluation.value, evaluation.gradient, fooled, evaluation.log_probs)

    return loss_fn


@jax.jit
def derive_keys(rng_key: jax.Array, indices: jax.Array) -> jax.Array:
    """Return a key for every image, from its index alone."""
    return jax.vmap(jax.random.fold_in, (None, 0))(rng_key, indices)


@functools.partial(jax.jit, static_argnames=("attack", "objective", "chunk"))
def start(
    posterior: Posterior,
    batch: Batch,
    attack: Attack,
    objective: Objective,
    chunk: int,
) -> tuple[Any, jax.Array]:
    """Return the attack's first state, and every draw's fixed scales, [S, B]."""
    scales = objectives.compute_scales(objective, posterior, batch.x, sample_chunk=chunk)
    loss_fn = bind(objective, posterior, batch.y, scales, chunk)
    return attack.init(batch.keys, loss_fn, batch.x, batch.threat, attack.config), scales


@functools.partial(jax.jit, static_argnames=("attack", "objective", "chunk"))
def advance(
    posterior: Posterior,
    batch: Batch,
    state: Any,
    scales: jax.Array,
    count: jax.Array | int,
    attack: Attack,
    objective: Objective,
    chunk: int,
) -> Any:
    """Take ``count`` steps; the number is data, so that one program serves every count."""
    loss_fn = bind(objective, posterior, batch.y, scales, chunk)

    def body(_: jax.Array, current: Any) -> Any:
        return attack.step(batch.keys, current, loss_fn, batch.x, batch.threat, attack.config)

    return jax.lax.fori_loop(0, count, body, state)


@jax.jit
def take_images(
    batch: Batch, state: Any, scales: jax.Array, places: jax.Array
) -> tuple[Batch, Any, jax.Array]:
    """Return batch, state and scales of the images at ``places``, in that order."""

    def rows(leaf: jax.Array) -> jax.Array:
        return leaf[places] if leaf.ndim else leaf

    return jax.tree.map(rows, batch), jax.tree.map(rows, state), scales[:, places]


def pad(rows: np.ndarray, batch_size: int, parts: int) -> np.ndarray:
    """Repeat the last row until the count is one of few sizes, so that few programs compile.

    Args:
      rows: At least one, at most ``batch_size``.
      batch_size: The largest size; each smaller one is a quarter of the one before.
      parts: A size must be a multiple of it.
    """
    size = batch_size
    while size // 4 >= max(len(rows), _SMALLEST) and (size // 4) % parts == 0:
        size //= 4
    return np.pad(rows, (0, size - len(rows)), mode="edge")
