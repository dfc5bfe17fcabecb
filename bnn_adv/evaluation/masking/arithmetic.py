"""Floating point: softmax that is exactly one-hot, float32 against float64 and against itself."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks.objectives import Objective
from bnn_adv.compute import parallel, programs
from bnn_adv.compute.disk import DiskDraws
from bnn_adv.compute.streaming import map_samples
from bnn_adv.evaluation.masking.base import (
    Arithmetic,
    Case,
    Check,
    Evidence,
    Precision,
    finite,
    percent,
)
from bnn_adv.evaluation.masking.gradients import look_at_gradients
from bnn_adv.evaluation.masking.saturation import is_one_hot
from bnn_adv.networks import Params
from bnn_adv.posteriors.decision import NO_CLASS, predicted_class
from bnn_adv.posteriors.posterior import Posterior, check_sample_chunk, one_draw

_LARGEST_SHARE = 0.05
_LEAST_COSINE = 0.9
_LARGEST_CHANGE = 1e-6

# Float64 copies of all draws of a large posterior would not fit; that many show the arithmetic.
_MOST_DRAWS = 32


def measure_arithmetic(case: Case, used: tuple[str, ...]) -> Arithmetic:
    """Return how predictions and gradients at the clean inputs fare in floating point.

    Args:
      case: What is probed.
      used: Names of the objectives that the caller's suite used.
    """
    chunk = check_sample_chunk(case.posterior, case.sample_chunk, case.x)
    saturated = parallel.to_host(_share_saturated(case.posterior, case.x, chunk))
    some = _take_some(case.posterior)
    chunk = min(chunk, some.num_samples)
    chosen = tuple(case.objectives[name] for name in used)

    def look(
        posterior: Posterior, x: np.ndarray, asked: tuple[Objective, ...] = chosen
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        found = look_at_gradients(
            asked,
            posterior,
            x,
            case.y,
            threat=case.threat,
            batch_size=case.batch_size,
            sample_chunk=chunk,
        )
        return found.log_probs, [found.of[name].gradient for name in used]

    # The program that has looked at all objectives is there; of other draws it would be new.
    asked = tuple(case.objectives.values()) if some is case.posterior else chosen
    log_probs, gradients = look(some, case.x, asked)
    log_probs_again, gradients_again = look(some, case.x, asked)
    precision = None
    with jax.enable_x64(True):
        double, x = _as_float64(some), np.asarray(case.x, np.float64)
        logits = jax.eval_shape(double.apply_fn, one_draw(double), x)
        if logits.dtype == jnp.float64:
            exact_log_probs, exact = look(double, x)
            changed = predicted_class(log_probs) != predicted_class(exact_log_probs)
            misled = {
                name: _is_misled(g, e) for name, g, e in zip(used, gradients, exact, strict=True)
            }
            precision = Precision(changed, misled, some.num_samples)
    return Arithmetic(
        float(saturated),
        precision,
        _change(log_probs, log_probs_again),
        max(_change(a, b) for a, b in zip(gradients, gradients_again, strict=True)),
        float((predicted_class(log_probs) == NO_CLASS).mean()),
    )


def check_saturated_probabilities(evidence: Evidence) -> Check:
    """Judge softmax that is exactly one-hot (Carlini, Wagner 2017, arXiv 1608.04644, section VI).

    There the gradient of its logarithm vanishes too, which defensive distillation lived on.
    """
    share = evidence.arithmetic.saturated
    raised = share > _LARGEST_SHARE
    sentence = (
        f"The float32 softmax is exactly 0 or 1 in every class for {percent(share)} of the pairs "
        f"of a draw and a clean image (limit {percent(_LARGEST_SHARE)})"
    )
    if raised:
        sentence += (
            ": gradients of losses vanish there, which is the arithmetic's robustness; attack "
            "margins of logits"
        )
    return Check(
        "saturated_probabilities", raised, share, _LARGEST_SHARE, {"share": share}, sentence + "."
    )


def check_float_precision(evidence: Evidence) -> Check:
    """Judge float32 against float64.

    Numerical instability is a cause of masked gradients (Athalye, Carlini, Wagner 2018, arXiv
    1802.00420, section 2).
    """
    name, precision = "float_precision", evidence.arithmetic.precision
    if precision is None:
        sentence = "Not measured: the network does not compute in float64 when its inputs are."
        return Check(name, False, None, _LARGEST_SHARE, {}, sentence)
    changed = float(precision.changed.mean())
    misled = {key: float(rows.mean()) for key, rows in precision.misled.items()}
    value = max(changed, *misled.values())
    raised = value > _LARGEST_SHARE
    worst = max(misled, key=lambda key: misled[key])
    sentence = (
        f"Against float64, float32 predicts another class for {percent(changed)} of the images, "
        f"and the gradient of {worst} is zero or has a cosine below {_LEAST_COSINE} for "
        f"{percent(misled[worst])} of them (limit {percent(_LARGEST_SHARE)}; "
        f"{precision.num_draws} draws)"
    )
    if raised:
        sentence += ": what is measured is rounding, not the posterior"
    found = {"changed": changed, "misled": misled, "num_draws": precision.num_draws}
    return Check(name, raised, value, _LARGEST_SHARE, found, sentence + ".")


def check_non_deterministic(evidence: Evidence) -> Check:
    """Judge whether the same question has the same answer.

    Stochastic gradients, Athalye, Carlini, Wagner 2018, arXiv 1802.00420, section 2.
    """
    arithmetic = evidence.arithmetic
    changes = {"prediction": arithmetic.prediction_change, "gradient": arithmetic.gradient_change}
    # Written so that NaN counts as a change.
    raised = not all(change <= _LARGEST_CHANGE for change in changes.values())
    value = finite(float(np.max(list(changes.values()))))
    found = {name: finite(change) for name, change in changes.items()}
    sentence = (
        "Asked twice, predictions of the same images differ by "
        f"{arithmetic.prediction_change:.1e} and gradients by {arithmetic.gradient_change:.1e} of "
        f"their size (limit {_LARGEST_CHANGE:.0e})"
    )
    if arithmetic.not_finite > 0:
        found["not_finite"] = arithmetic.not_finite
        sentence += (
            f"; for {percent(arithmetic.not_finite)} of the images the prediction is NaN or "
            "infinite, which is no class"
        )
    if raised:
        sentence += (
            ": the network is random, and an attack on one of its answers does not know the next; "
            "average gradients over answers, and count success over many"
        )
    return Check("non_deterministic", raised, value, _LARGEST_CHANGE, found, sentence + ".")


@functools.partial(programs.jit, static_argnames=("chunk",))
def _share_saturated(posterior: Posterior, x: jax.Array, chunk: int) -> jax.Array:
    def one(params: Params) -> jax.Array:
        return is_one_hot(posterior.logits(params, x))

    with jax.default_matmul_precision(posterior.precision):
        found: jax.Array = map_samples(
            one, posterior.samples, chunk=chunk, shards=posterior.shards
        ).mean()
        return found


def _take_some(posterior: Posterior) -> Posterior:
    size = posterior.num_samples
    if size <= _MOST_DRAWS and posterior.shards == 1:
        return posterior
    return posterior.take(np.linspace(0, size - 1, min(size, _MOST_DRAWS)).astype(int))


def _as_float64(posterior: Posterior) -> Posterior:
    def cast(leaf: Any) -> Any:
        # On the host: every shape of a leaf would be a program of its own.
        is_number = jnp.issubdtype(leaf.dtype, jnp.floating)
        return np.asarray(leaf).astype(np.float64) if is_number else leaf

    if isinstance(posterior.samples, DiskDraws):
        posterior = posterior.take(np.arange(posterior.num_samples))
    return dataclasses.replace(posterior, samples=jax.tree.map(cast, posterior.samples))


def _is_misled(gradient: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return where float64 has a gradient and float32 has none, or another direction, [N].

    As attacks follow it: a NaN counts as zero. That there is one raises ``zero_gradients``.
    """
    gradient, exact = (
        _unit(np.nan_to_num(g, nan=0.0, posinf=1e30, neginf=-1e30)) for g in (gradient, exact)
    )
    cosine = (gradient * exact).sum(axis=1)
    # Written so that NaN counts as misled.
    found: np.ndarray = (exact != 0).any(axis=1) & ~(cosine >= _LEAST_COSINE)
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    # Scaling first keeps the squares of tiny values from underflowing.
    largest = np.abs(flat).max(axis=1, keepdims=True)
    flat = flat / np.where(largest > 0, largest, 1.0)
    norm = np.sqrt((flat**2).sum(axis=1, keepdims=True))
    return flat / np.where(norm > 0, norm, 1.0)


def _change(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest difference, relative to the largest finite value.

    The same NaN or infinity twice is the same answer; one answer that is a number and one that is
    not differ by infinity.
    """
    strange = [np.where(np.isfinite(answer), 0, answer) for answer in (first, second)]
    if not np.array_equal(strange[0], strange[1], equal_nan=True):
        return float("inf")
    numbers = np.isfinite(first)
    largest = np.abs(first[numbers]).max(initial=0.0)
    change = np.abs(first[numbers] - second[numbers]).max(initial=0.0)
    return float(change / (largest if largest > 0 else 1.0))
