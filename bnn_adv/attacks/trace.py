"""Record what an attack sees on its way: the objective and the success at every step.

An attack returns one point; how it got there tells whether it walked at all, whether it had come to
rest, and whether it passed a better point (Pintor et al. 2021, arXiv 2106.09947, section 3).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from bnn_adv.attacks import batches, inputs
from bnn_adv.attacks.base import Attack, Settings
from bnn_adv.attacks.batches import Batch
from bnn_adv.attacks.driver import DRAWS, check_norm, keep_finite
from bnn_adv.attacks.objectives import Objective
from bnn_adv.attacks.threat import Threat, with_radius
from bnn_adv.compute import arguments, parallel, programs
from bnn_adv.compute.types import RngKey
from bnn_adv.posteriors.decision import is_fooled
from bnn_adv.posteriors.posterior import Posterior, check_sample_chunk, predict_log_probs


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
    programs.note(posterior.apply_fn)
    draws_key = jax.random.fold_in(rng_key, DRAWS)
    for start in range(0, len(x), size):
        # The last batch overlaps the one before it, so that only one shape compiles.
        rows = np.arange(size) + min(start, len(x) - size)
        keys, own = batches.derive_keys(rng_key, rows), with_radius(threat, radii[rows])
        batch = Batch(keys, x[rows], y[rows], own, draws_key)
        static = attack, objective, chunk
        state, scales, heard = batches.start(posterior, batch, *static)
        for number in range(steps):
            if number:
                one = number - 1, 1
                state, heard = batches.advance(posterior, batch, state, scales, one, *static)
            seen = heard[:2]
            if not heard.is_known:
                seen = batches.look(posterior, batch, scales, state.x_adv, objective, chunk)
            whole.values[number, rows], whole.success[number, rows] = parallel.to_host(seen)
        x_adv = parallel.to_host(state.x_adv)
        log_probs = predict_log_probs(
            posterior, x_adv, sample_chunk=settings.sample_chunk, batch_size=size
        )
        whole.fooled[rows] = is_fooled(parallel.to_host(log_probs), y[rows])
        whole.x_adv[rows] = keep_finite(x_adv, x[rows])
    return whole
