"""Predictions for the referee: softmax and means over draws in NumPy and float64, draw by draw.

Shares no code with the predictions that attacks and evaluations make; the network alone is theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bnn_adv.compute import programs
from bnn_adv.compute.disk import as_arrays
from bnn_adv.compute.leaves import from_plain
from bnn_adv.compute.types import (
    ApplyFn,
    HostClasses,
    HostImages,
    HostIndices,
    HostLogits,
    HostNumbers,
)
from bnn_adv.posteriors.posterior import Posterior, one_draw


def compile_network(posterior: Posterior) -> Callable[[Any, np.ndarray], Any]:
    """Return the posterior's network, compiled, at the posterior's precision."""

    def call(params: Any, batch: np.ndarray) -> Any:
        with jax.default_matmul_precision(posterior.precision):
            return _logits(params, batch, posterior.apply_fn)

    return call


@functools.partial(programs.jit, static_argnames="apply_fn")
def _logits(params: Any, x: jax.Array, apply_fn: ApplyFn) -> jax.Array:
    return Posterior(apply_fn, params).logits(params, x)


def predict(
    call: Callable[[Any, np.ndarray], Any], posterior: Posterior, x: HostImages, batch_size: int
) -> tuple[HostLogits, HostNumbers]:
    """Return ``lbar``, [N, C], and every image's largest absolute logit, [N], in float64."""
    size = min(batch_size, len(x))
    # The last batch overlaps the one before it, so that only one shape compiles.
    starts = [min(start, len(x) - size) for start in range(0, len(x), size)]
    likes, structure = jax.tree.flatten(one_draw(posterior))
    leaves = as_arrays(posterior.samples)
    total, largest = np.empty(0), np.zeros(len(x))
    for draw in range(posterior.num_samples):
        arrays = [
            from_plain(np.asarray(leaf[draw]), like)
            for leaf, like in zip(leaves, likes, strict=True)
        ]
        params = jax.tree.unflatten(structure, arrays)
        logits = np.empty(0)
        for start in starts:
            found = np.asarray(call(params, x[start : start + size]), np.float64)
            if not logits.size:
                logits = np.empty((len(x), found.shape[1]))
            logits[start : start + size] = found
        largest = np.maximum(largest, np.abs(logits).max(axis=1))
        # Infinities and NaN stay what they are: such an image is never confirmed.
        with np.errstate(invalid="ignore"):
            if posterior.decision_rule == "mean_logits":
                total = logits if draw == 0 else total + logits
            else:
                own = _log_softmax(logits)
                total = own if draw == 0 else np.logaddexp(total, own)
    if posterior.decision_rule == "mean_logits":
        with np.errstate(invalid="ignore"):
            return _log_softmax(total / posterior.num_samples), largest
    return total - np.log(posterior.num_samples), largest


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def find_margin(log_probs: HostLogits, labels: HostClasses, rows: HostIndices) -> HostNumbers:
    """Return by how much the best other class beats the label, [N]."""
    others = np.array(log_probs)
    others[rows, labels] = -np.inf
    with np.errstate(invalid="ignore"):
        found: np.ndarray = others.max(axis=1) - log_probs[rows, labels]
        return found
