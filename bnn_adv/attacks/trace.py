"""Record what an attack sees on its way: the objective and the success at every step.

An attack returns one point; how it got there tells whether it walked at all, whether it had come to
rest, and whether it passed a better point (Pintor et al. 2021, arXiv 2106.09947, section 3).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state

from bnn_adv.attacks import batches, inputs, objectives
from bnn_adv.attacks.base import Attack, Loss, LossFn, Settings
from bnn_adv.attacks.driver import check_norm, keep_finite
from bnn_adv.attacks.objectives import Objective
from bnn_adv.attacks.threat import Threat, with_radius
from bnn_adv.compute import arguments, parallel, programs
from bnn_adv.compute.types import RngKey
from bnn_adv.posteriors.posterior import Posterior, check_sample_chunk


class Trace(NamedTuple):
    """The walk of an attack of T steps on N images.

    values: The objective where each step looked last, [T + 1, N], the start first; NaN where it
      aimed at a class.
    success: Whether that point fools the posterior predictive, [T + 1, N].
    x_adv: What the attack returns, [N, ...].
    fooled: Whether that fools, [N].
    """

    values: np.ndarray
    success: np.ndarray
    x_adv: np.ndarray
    fooled: np.ndarray


def trace_attack(
    rng_key: RngKey,
    attack: Attack,
    objective: Objective,
    posterior: Posterior,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    settings: Settings = Settings(),
) -> Trace:
    """Attack every image for all of the attack's steps, and record the walk.

    The walk is that of ``run_attack`` with the same key, but nothing stops early. Where a step
    asks for no loss, or asks inside control flow, the point that it would return is recorded.

    Args:
      rng_key: Typed key; image i uses ``fold_in(rng_key, i)``.
      attack: From ``pgd.build(...)``.
      objective: What to maximise, from ``OBJECTIVES``.
      posterior: The draws that the attacker knows.
      x: Clean images, [N, ...].
      y: Labels, [N].
      threat: Norm, radius (one, or one an image, [N]) and box.
      settings: Batch and chunk sizes.

    Raises:
      ValueError: A norm that the attack does not know, or a bad ``sample_chunk``.
    """
    arguments.check_key(rng_key)
    arguments.check_count("batch_size", settings.batch_size, 1)
    check_norm(attack, threat)
    x, y, threat = inputs.convert(x, y, threat)
    size = min(settings.batch_size, len(x))
    chunk = check_sample_chunk(posterior, settings.sample_chunk, x[:size])
    radii = np.broadcast_to(np.asarray(threat.epsilon, x.dtype), (len(x),))
    steps = attack.num_steps + 1
    whole = Trace(
        np.zeros((steps, len(x)), np.float32),
        np.zeros((steps, len(x)), bool),
        np.array(x),
        np.zeros(len(x), bool),
    )
    for start in range(0, len(x), size):
        # The last batch overlaps the one before it, so that only one shape compiles.
        rows = np.arange(size) + min(start, len(x) - size)
        images = batches.derive_keys(rng_key, rows), x[rows], y[rows]
        own = with_radius(threat, radii[rows])
        part = parallel.to_host(_walk(posterior, *images, own, attack, objective, chunk))
        whole.values[:, rows], whole.success[:, rows] = part.values, part.success
        whole.x_adv[rows], whole.fooled[rows] = keep_finite(part.x_adv, x[rows]), part.fooled
    return whole


class _Ear:
    """Pass calls of a loss function on, and remember the last one of the innermost trace."""

    def __init__(self, loss_fn: LossFn) -> None:
        self._loss_fn = loss_fn
        self._level = get_opaque_trace_state()
        self._last: Loss | None = None
        self._aimed = False

    def __call__(self, x: jax.Array, target: jax.Array | None = None) -> Loss:
        loss = self._loss_fn(x, target)
        self._aimed |= target is not None
        # What is computed inside control flow does not exist outside of it.
        if get_opaque_trace_state() == self._level:
            unlike = jnp.full_like(loss.value, jnp.nan)
            self._last = loss if target is None else loss._replace(value=unlike)
        return loss

    def heard(self, state: Any) -> tuple[jax.Array, jax.Array]:
        """Return value and success of the last call, else those of the state's own point."""
        if self._last is not None:
            return self._last.value, self._last.success
        if self._aimed:
            # Whatever such an attack ranks its points by, it is not the objective.
            return jnp.full(state.success.shape, jnp.nan), state.success
        if hasattr(state, "value"):
            return state.value, state.success
        loss = self._loss_fn(state.x_adv)
        return loss.value, loss.success


@functools.partial(programs.jit, static_argnames=("attack", "objective", "chunk"))
def _walk(
    posterior: Posterior,
    keys: jax.Array,
    x: jax.Array,
    y: jax.Array,
    threat: Threat,
    attack: Attack,
    objective: Objective,
    chunk: int,
) -> Any:
    scales = objectives.compute_scales(objective, posterior, x, sample_chunk=chunk)
    loss_fn = batches.bind(objective, posterior, y, scales, chunk)

    ear = _Ear(loss_fn)
    first = batches.keep_dtypes(attack.init(keys, ear, x, threat, attack.config))
    start = ear.heard(first)

    def body(state: Any, _: None) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        ear = _Ear(loss_fn)
        state = batches.keep_dtypes(attack.step(keys, state, ear, x, threat, attack.config))
        return state, ear.heard(state)

    last, rest = jax.lax.scan(body, first, None, length=attack.num_steps)
    values, success = (jnp.concatenate([a[None], b]) for a, b in zip(start, rest, strict=True))
    return Trace(values, success, last.x_adv, loss_fn(last.x_adv).success)  # type: ignore[arg-type]
