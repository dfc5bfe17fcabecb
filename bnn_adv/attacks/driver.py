"""Run an attack over many images: batches of few fixed shapes, jitted steps, a host loop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv import objectives
from bnn_adv.attacks.base import Attack, Loss, LossFn
from bnn_adv.objectives import Objective
from bnn_adv.posterior import Posterior, check_sample_chunk
from bnn_adv.threat import Threat

StepCallback = Callable[[int, int], None]
"""Called with (image-steps done, image-steps in all)."""

_STEPS_PER_CALL = 10
"""Steps between two looks from the host, for progress and for ``stop_on_success``."""

_SMALLEST_BATCH = 8


def run_attack(
    rng_key: jax.Array,
    attack: Attack,
    objective: Objective,
    posterior: Posterior,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    indices: Any = None,
    batch_size: int = 128,
    sample_chunk: int | None = None,
    on_steps: StepCallback | None = None,
) -> np.ndarray:
    """Attack every image and return the adversarial images.

    An image's result depends on the key and the image's index alone, not on its batch.

    Args:
      rng_key: Typed key; image i uses ``fold_in(rng_key, indices[i])``.
      attack: From ``fgsm.build()``, ``pgd.build(...)``.
      objective: What to maximise, from ``OBJECTIVES``.
      posterior: The draws that the attacker knows.
      x: Clean images in the threat model's box, [N, ...].
      y: Labels, [N].
      threat: Norm, radius and box.
      indices: Distinct integers that name the images, [N]; None counts from zero.
      batch_size: Images at once.
      sample_chunk: Draws at once, 1..S; None chooses from the size of the network.
      on_steps: Progress callback.

    Returns:
      Adversarial images, [N, ...], of the dtype of ``x``.

    Raises:
      ValueError: A negative or NaN epsilon, inputs outside the box, or a bad size.
    """
    x, y = np.asarray(x), np.asarray(y)
    _check(x, y, threat, batch_size)
    chunk = check_sample_chunk(posterior, sample_chunk)
    indices = np.arange(len(x)) if indices is None else np.asarray(indices)
    result = np.array(x)
    total, done = len(x) * attack.num_steps, 0
    for start in range(0, len(x), batch_size):
        rows = np.arange(start, min(start + batch_size, len(x)))
        padded = _pad(rows, batch_size)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(rng_key, jnp.asarray(indices[padded]))
        batch = (keys, jnp.asarray(x[padded]), jnp.asarray(y[padded]), threat)
        state, scales = _start(posterior, *batch, attack, objective, chunk)
        for first in range(0, attack.num_steps, _STEPS_PER_CALL):
            count = min(_STEPS_PER_CALL, attack.num_steps - first)
            state, finished = _advance(
                posterior, *batch, state, scales, count, attack, objective, chunk
            )
            if on_steps is not None:
                on_steps(done + len(rows) * (first + count), total)
            if attack.stop_on_success and bool(finished):
                break
        done += len(rows) * attack.num_steps
        result[rows] = np.asarray(state.x_adv)[: len(rows)]
    if on_steps is not None:
        on_steps(total, total)
    return result


def bind(
    objective: Objective, posterior: Posterior, y: jax.Array, scales: jax.Array, chunk: int
) -> LossFn:
    """Return the loss function that an attack climbs: objective, posterior and labels in one."""

    def loss_fn(x: jax.Array) -> Loss:
        evaluation = objectives.value_and_gradient(
            objective, posterior, x, y, scales=scales, sample_chunk=chunk
        )
        fooled = jnp.argmax(evaluation.log_probs, axis=-1) != y
        return Loss(evaluation.value, evaluation.gradient, fooled)

    return loss_fn


@functools.partial(jax.jit, static_argnames=("attack", "objective", "chunk"))
def _start(
    posterior: Posterior,
    keys: jax.Array,
    x: jax.Array,
    y: jax.Array,
    threat: Threat,
    attack: Attack,
    objective: Objective,
    chunk: int,
) -> tuple[Any, jax.Array]:
    scales = objectives.compute_scales(objective, posterior, x, sample_chunk=chunk)
    loss_fn = bind(objective, posterior, y, scales, chunk)
    return attack.init(keys, loss_fn, x, threat, attack.config), scales


@functools.partial(jax.jit, static_argnames=("attack", "objective", "chunk"))
def _advance(
    posterior: Posterior,
    keys: jax.Array,
    x: jax.Array,
    y: jax.Array,
    threat: Threat,
    state: Any,
    scales: jax.Array,
    count: jax.Array | int,
    attack: Attack,
    objective: Objective,
    chunk: int,
) -> tuple[Any, jax.Array]:
    loss_fn = bind(objective, posterior, y, scales, chunk)

    def body(_: jax.Array, current: Any) -> Any:
        return attack.step(keys, current, loss_fn, x, threat, attack.config)

    # The number of steps is data: one program serves every count.
    state = jax.lax.fori_loop(0, count, body, state)
    return state, jnp.all(state.success)


def _pad(rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Repeat the last row until the count is one of few sizes, so that few programs compile."""
    size = batch_size
    while size // 4 >= max(len(rows), _SMALLEST_BATCH):
        size //= 4
    return np.pad(rows, (0, size - len(rows)), mode="edge")


def _check(x: np.ndarray, y: np.ndarray, threat: Any, batch_size: int) -> None:
    if not float(threat.epsilon) >= 0:
        raise ValueError(f"epsilon must be at least 0, got {float(threat.epsilon)}.")
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"Need as many labels as images, and one at least: {len(x)}, {len(y)}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    if not (x.min() >= threat.lower and x.max() <= threat.upper):
        raise ValueError(
            f"Inputs must lie in the box [{threat.lower}, {threat.upper}], found "
            f"[{x.min()}, {x.max()}]. Scale them, or give the threat model another box."
        )
