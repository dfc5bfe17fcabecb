"""Gradients that are exactly zero: an attack that follows one stays where it is."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks import batches, objectives
from bnn_adv.attacks.objectives import Objective
from bnn_adv.attacks.threat import LInf, Threat, random_starts, with_radius
from bnn_adv.compute import parallel, programs
from bnn_adv.compute.singular import finite_gradient, is_singular
from bnn_adv.compute.types import RngKey
from bnn_adv.evaluation.masking.base import Case, Check, Evidence, Gradients, percent
from bnn_adv.posteriors.posterior import Posterior, check_sample_chunk, one_draw

_LARGEST_SHARE = 0.05


def zero_gradients(
    objective: Objective,
    posterior: Posterior,
    x: Any,
    y: Any,
    *,
    batch_size: int = 128,
    sample_chunk: int | None = None,
) -> np.ndarray:
    """Return for which clean inputs the attack gradient is exactly zero in every coordinate.

    As attacks follow it: a NaN counts as zero, see ``singular``.

    An attack that follows such a gradient stays where it is; the accuracy that it leaves says
    nothing about the posterior.

    Args:
      objective: What the attack maximises.
      posterior: The draws that the attacker knows.
      x: Clean inputs, [N, ...].
      y: Labels, [N].
      batch_size: Inputs at once.
      sample_chunk: Draws at once; None chooses from the size of the network.

    Returns:
      Booleans, [N].
    """
    # What one step would reach is not asked for.
    options = {"batch_size": batch_size, "sample_chunk": sample_chunk, "threat": LInf(0.0)}
    found = look_at_gradients((objective,), posterior, x, y, **options)  # type: ignore[arg-type]
    return found.of[objective.name].zero


class Look(NamedTuple):
    """What the attack gradients of one objective are at N inputs.

    gradient: As attacks follow it but for NaN, which they take for zero, [N, ...].
    zero: Whether it is exactly zero in every coordinate, NaN taken for zero, [N].
    non_finite: Whether JAX's own gradient is NaN or infinite in any, [N].
    one_step: Where one step along it leads, to the end of ball and box (FGSM), [N, ...].
    """

    gradient: np.ndarray
    zero: np.ndarray
    non_finite: np.ndarray
    one_step: np.ndarray


class Looks(NamedTuple):
    """What is seen of N inputs at one glance.

    of: By objective.
    log_probs: Log of the posterior predictive, [N, C].
    """

    of: dict[str, Look]
    log_probs: np.ndarray


def look_at_gradients(
    chosen: tuple[Objective, ...],
    posterior: Posterior,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    batch_size: int = 128,
    sample_chunk: int | None = None,
) -> Looks:
    """Return gradients and predictions at clean inputs, of all objectives by one program.

    Args:
      chosen: What attacks maximise.
      posterior: The draws that the attacker knows.
      x: Clean inputs, [N, ...].
      y: Labels, [N].
      threat: What one step may do: one radius, or one an input, [N].
      batch_size: Inputs at once.
      sample_chunk: Draws at once; None chooses from the size of the network.
    """
    x, y = np.asarray(x), np.asarray(y)
    size = min(batch_size, x.shape[0])
    chunk = check_sample_chunk(posterior, sample_chunk, x[:size])
    # The last batch overlaps the one before it, so that only one shape compiles.
    starts = [min(start, x.shape[0] - size) for start in range(0, x.shape[0], size)]
    radii = np.broadcast_to(np.asarray(threat.epsilon, x.dtype), (len(x),))
    found: Any = None
    for start in starts:
        rows = slice(start, start + size)
        own = with_radius(threat, radii[rows])
        part = parallel.to_host(_look(posterior, x[rows], y[rows], own, chosen, chunk))
        if found is None:
            found = jax.tree.map(lambda a: np.zeros((len(x), *a.shape[1:]), a.dtype), part)
        for whole, some in zip(jax.tree.leaves(found), jax.tree.leaves(part), strict=True):
            whole[rows] = some
    looks, log_probs = found
    names = [objective.name for objective in chosen]
    return Looks(dict(zip(names, looks, strict=True)), log_probs)


@functools.partial(programs.jit, static_argnames=("chosen", "chunk"))
def _look(
    posterior: Posterior,
    x: jax.Array,
    y: jax.Array,
    threat: Threat,
    chosen: tuple[Objective, ...],
    chunk: int,
) -> tuple[list[Look], jax.Array]:
    found = [_look_at_one(objective, posterior, x, y, threat, chunk) for objective in chosen]
    return [look for look, _ in found], found[0][1]


def _look_at_one(
    objective: Objective,
    posterior: Posterior,
    x: jax.Array,
    y: jax.Array,
    threat: Threat,
    chunk: int,
) -> tuple[Look, jax.Array]:
    def look(finite_steps: bool) -> objectives.ObjectiveValue:
        options = {"sample_chunk": chunk, "finite_steps": finite_steps}
        return objectives.value_and_gradient(objective, posterior, x, y, **options)  # type: ignore[arg-type]

    found = look(True)
    gradient = raw = found.gradient
    draw = jax.tree.map(lambda w: jnp.zeros(w.shape, w.dtype), one_draw(posterior))
    if is_singular(functools.partial(posterior.logits, draw), x):
        raw = look(False).gradient
    follow, axes = finite_gradient(gradient), tuple(range(1, x.ndim))
    one_step = threat.maximise_linear(follow.astype(x.dtype), x)
    seen = gradient, (follow == 0).all(axis=axes), ~jnp.isfinite(raw).all(axis=axes), one_step
    return Look(*seen), found.log_probs  # type: ignore[arg-type]


def look_at_case(case: Case, x: np.ndarray) -> Looks:
    """Return what all objectives of a case say of inputs, [N, ...]."""
    return look_at_gradients(
        tuple(case.objectives.values()),
        case.posterior,
        x,
        case.y,
        threat=case.threat,
        batch_size=case.batch_size,
        sample_chunk=case.sample_chunk,
    )


def measure_gradients(
    rng_key: RngKey, case: Case, used: tuple[str, ...], clean: dict[str, Look]
) -> Gradients:
    """Return the share of zero gradients of every objective, at clean inputs and random starts.

    Args:
      rng_key: Typed key for the random starts.
      case: What is probed.
      used: Names of the objectives that the caller's suite used.
      clean: What is seen at the clean inputs, by objective.
    """
    keys = batches.derive_keys(rng_key, np.arange(len(case.x)))
    starts = parallel.to_host(_random_starts(case.threat, keys, case.x))
    random = look_at_case(case, starts).of
    return Gradients(
        used,
        {name: float(found.zero.mean()) for name, found in clean.items()},
        {name: float(found.zero.mean()) for name, found in random.items()},
        max(float(found[name].non_finite.mean()) for found in (clean, random) for name in used),
    )


_random_starts = programs.jit(random_starts)


def check_zero_gradients(evidence: Evidence) -> Check:
    """Judge exactly zero gradients (Pintor et al. 2021, arXiv 2106.09947, section 3).

    A gradient that is NaN or infinite anywhere raises it as well.

    Vanishing gradients: Athalye, Carlini, Wagner 2018, arXiv 1802.00420, section 2.
    """
    clean, random = evidence.gradients.zero_clean, evidence.gradients.zero_random
    shares = {name: max(clean[name], random[name]) for name in evidence.gradients.used}
    worst = max(shares, key=lambda name: shares[name])
    broken = evidence.gradients.non_finite
    raised = shares[worst] > _LARGEST_SHARE or broken > 0
    place = "the clean input" if clean[worst] >= random[worst] else "a random start"
    sentence = (
        f"The gradient of {worst} is exactly zero at {place} for {percent(shares[worst])} of the "
        f"images (limit {percent(_LARGEST_SHARE)}), the most of the suite's objectives"
    )
    if broken > 0:
        sentence += (
            f"; for {percent(broken)} of the images a gradient is NaN or infinite in places, and "
            "attacks take what is NaN there for zero: make the network differentiable there (a "
            "norm or a root at zero needs a safe form), for nothing may move these values"
        )
    if shares[worst] > _LARGEST_SHARE:
        alive = [name for name in clean if max(clean[name], random[name]) <= _LARGEST_SHARE]
        rest = (
            f"; {', '.join(alive)} would move it" if alive else "; no known objective does better"
        )
        sentence += f": an attack that follows it does not move{rest}"
    table = {name: {"clean": clean[name], "random": random[name]} for name in clean}
    found: dict[str, Any] = {"used": list(evidence.gradients.used), "objectives": table}
    if broken > 0:
        found["non_finite"] = broken
    return Check("zero_gradients", raised, shares[worst], _LARGEST_SHARE, found, sentence + ".")
