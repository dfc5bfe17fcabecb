"""Run an attack over many images: batches of few fixed shapes, jitted steps, a host loop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bnn_adv import objectives, parallel
from bnn_adv.attacks.base import Attack, Loss, LossFn
from bnn_adv.checkpoint import Checkpoints, NoCheckpoints
from bnn_adv.objectives import Objective
from bnn_adv.pacing import Pacer
from bnn_adv.posterior import Posterior, check_sample_chunk
from bnn_adv.threat import Threat

StepCallback = Callable[[int, int], None]
"""Called with (image-steps done, image-steps in all)."""

_STEPS_BETWEEN_LOOKS = 10
"""Steps after which ``stop_on_success`` is looked at, however the steps are cut into calls."""

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
    mesh: Mesh | None = None,
    on_steps: StepCallback | None = None,
    checkpoints: Checkpoints | None = None,
    name: str = "attack",
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
      mesh: Devices to split the images over (its axis ``data``); the draws are split over them by
        ``shard_posterior``.
      on_steps: Progress callback.
      checkpoints: Where to save progress and to continue from it.
      name: Tells attacks that share checkpoints apart.

    Returns:
      Adversarial images, [N, ...], of the dtype of ``x``.

    Raises:
      ValueError: A norm that the attack does not know, a negative or NaN epsilon, inputs outside
        the box, a bad size, or checkpoints of another attack.
    """
    x, y = np.asarray(x), np.asarray(y)
    _check(x, y, attack, threat, batch_size)
    parts = 1 if mesh is None else mesh.shape["data"]
    if batch_size % parts:
        raise ValueError(
            f"batch_size={batch_size} cannot be split evenly over data:{parts} of the mesh. "
            f"Give a multiple of {parts}."
        )
    chunk = check_sample_chunk(posterior, sample_chunk, x[:batch_size])
    indices = np.arange(len(x)) if indices is None else np.asarray(indices)
    result = np.array(x)
    total, done = len(x) * attack.num_steps, 0
    keeper = checkpoints or NoCheckpoints()
    what = (name, attack.name, attack.config, objective.name, threat, crc32(x.tobytes()))
    pacer = Pacer()
    with keeper.session(", ".join(map(str, what))) as saved:
        for start in range(0, len(x), batch_size):
            rows = np.arange(start, min(start + batch_size, len(x)))
            part = f"{name}/{start}"
            if saved is not None and part in saved.parts:
                result[rows] = saved.parts[part]["x_adv"]
                done += len(rows) * attack.num_steps
                continue
            padded = _pad(rows, batch_size, parts)
            images = parallel.shard_examples((indices[padded], x[padded], y[padded]), mesh)
            batch = (_keys(rng_key, images[0]), *images[1:], threat)
            state, scales = _start(posterior, *batch, attack, objective, chunk)
            first = 0
            if saved is not None and saved.meta.get("part") == part:
                state, first = saved.fit(state), saved.meta["first"]
            while first < attack.num_steps:
                most = _STEPS_BETWEEN_LOOKS - first % _STEPS_BETWEEN_LOOKS
                count = pacer.next(min(most, attack.num_steps - first))
                with pacer.timed(count):
                    state, finished = _advance(
                        posterior, *batch, state, scales, count, attack, objective, chunk
                    )
                    fooled = bool(finished)
                first += count
                if on_steps is not None:
                    on_steps(done + len(rows) * first, total)
                if attack.stop_on_success and first % _STEPS_BETWEEN_LOOKS == 0 and fooled:
                    break
                if first < attack.num_steps:
                    keeper.tick(None, state, {"part": part, "first": first})
            done += len(rows) * attack.num_steps
            result[rows] = parallel.to_host(state.x_adv)[: len(rows)]
            keeper.add_part(part, {"x_adv": result[rows]})
            keeper.tick(None, {})
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


@jax.jit
def _keys(rng_key: jax.Array, indices: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(rng_key, indices)


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


def _pad(rows: np.ndarray, batch_size: int, parts: int) -> np.ndarray:
    """Repeat the last row until the count is one of few sizes, so that few programs compile."""
    size = batch_size
    while size // 4 >= max(len(rows), _SMALLEST_BATCH) and (size // 4) % parts == 0:
        size //= 4
    return np.pad(rows, (0, size - len(rows)), mode="edge")


def _check(x: np.ndarray, y: np.ndarray, attack: Attack, threat: Any, batch_size: int) -> None:
    if attack.norms is not None and threat.norm not in attack.norms:
        raise ValueError(
            f"{attack.name} is defined for the norms {', '.join(attack.norms)}, not for "
            f"{threat.norm}."
        )
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
