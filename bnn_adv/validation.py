"""Refuse a model, inputs or labels that an evaluation would misread, before any work starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from bnn_adv.disk import DiskDraws, flatten_names
from bnn_adv.posterior import Posterior
from bnn_adv.sampler import Sampler, check_num_samples

_NUM_INPUTS, _NUM_DRAWS = 32, 3
"""How much is really computed to look at the values of logits."""


def check_model(model: Any, num_samples: int, num_predictions: int) -> None:
    """Check that something is a posterior or a sampler, and say how to make one of what it is.

    Args:
      model: What is to be evaluated.
      num_samples: Draws of a sampler's prediction.
      num_predictions: Predictions of a sampler.

    Raises:
      TypeError: It is neither, or one of its functions is no function.
      ValueError: A sampler's numbers are below one.
    """
    if not isinstance(model, Posterior | Sampler):
        raise TypeError(
            "Need a bnn_adv.Posterior (draws) or a bnn_adv.Sampler (which makes new ones), got "
            f"{_describe_stranger(model)}"
        )
    functions: dict[str, Any] = {"apply_fn": model.apply_fn}
    if isinstance(model, Sampler):
        functions["draw"] = model.draw
        check_num_samples("num_samples", num_samples)
        if num_predictions < 1:
            raise ValueError(f"num_predictions must be at least 1, got {num_predictions}.")
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(
                f"{name} of a {type(model).__name__} must be a function, got "
                f"{type(function).__name__}. The order is Posterior(apply_fn, samples) and "
                "Sampler(apply_fn, draw)."
            )


def _describe_stranger(model: Any) -> str:
    """Return what something is that is neither posterior nor sampler, and what to do."""
    if isinstance(model, list | tuple):
        return (
            f"a {type(model).__name__}. If it holds parameter trees, one a draw, stack them: "
            "bnn_adv.Posterior.stack(apply_fn, trees)."
        )
    if isinstance(model, Mapping):
        return (
            f"a {type(model).__name__}. If it holds parameters with a leading axis of draws, add "
            "the function that uses them: bnn_adv.Posterior(apply_fn, samples)."
        )
    if callable(model):
        name = getattr(model, "__name__", type(model).__name__)
        return (
            f"the function {name}. If it draws parameters, wrap it: "
            "bnn_adv.Sampler(apply_fn, draw) with draw(rng_key) -> params. If it is apply_fn, add "
            "the draws: bnn_adv.Posterior(apply_fn, samples)."
        )
    return (
        f"{type(model).__name__}. Make one by bnn_adv.Posterior(apply_fn, samples) or "
        "bnn_adv.Sampler(apply_fn, draw)."
    )


def check_problem(posterior: Posterior, x: Any, y: Any, threat: Any) -> int:
    """Check that posterior, inputs and labels belong together.

    Args:
      posterior: S draws.
      x: Clean inputs, [N, ...].
      y: Labels, [N].
      threat: Norm, radius and box.

    Returns:
      The number of classes.

    Raises:
      ValueError: Leaves of different numbers of draws; inputs outside the box, NaN or integer
        inputs; labels that are no integers or out of range; logits of the wrong shape, NaN, or
        probabilities in their place. The message says what to do.
    """
    x, y = np.asarray(x), np.asarray(y)
    check_inputs(x, threat)
    check_samples(posterior)
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"Labels must be integers of shape ({len(x)},), one an input; got {y.dtype} of shape "
            f"{y.shape}. One-hot labels become integers by argmax(-1)."
        )
    num_classes = check_shapes(posterior, x)
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"Labels must lie in 0..{num_classes - 1}, for the network gives {num_classes} logits; "
            f"found {y.min()}..{y.max()}. Classes are counted from 0."
        )
    _check_values(posterior, x)
    return num_classes


def check_inputs(x: np.ndarray, threat: Any) -> None:
    """Check type, size and range of clean inputs and the radius, see ``check_problem``."""
    if x.ndim < 2 or not len(x):
        raise ValueError(
            f"Inputs must have shape [N, ...] with N of at least 1, got {x.shape}. "
            "A single input becomes a batch by x[None]."
        )
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(
            f"Inputs must be floating-point numbers in [{threat.lower}, {threat.upper}], got "
            f"{x.dtype}. Divide bytes by 255."
        )
    if not np.isfinite(x).all():
        raise ValueError(f"{(~np.isfinite(x)).sum()} input values are NaN or infinite.")
    if not (x.min() >= threat.lower and x.max() <= threat.upper):
        raise ValueError(
            f"Inputs must lie in the box [{threat.lower}, {threat.upper}], found "
            f"[{x.min()}, {x.max()}]. Scale them, or give the threat model another box "
            "(lower=, upper=); normalisation belongs into apply_fn."
        )
    if not (np.asarray(threat.epsilon) >= 0).all():
        raise ValueError(f"epsilon must be at least 0, got {threat.epsilon}.")


def check_samples(posterior: Posterior) -> None:
    """Check that every leaf has the same number of draws, see ``check_problem``."""
    if isinstance(posterior.samples, DiskDraws):
        return
    leaves = flatten_names(posterior.samples)
    if not leaves:
        raise ValueError("The posterior's samples hold no arrays.")
    counts = {name: (np.shape(leaf) or (0,))[0] for name, leaf in leaves.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise ValueError(
            "Every leaf of the samples needs the same number of draws on its leading axis; found "
            f"{', '.join(f'{name}: {count}' for name, count in counts.items())}. "
            "Posterior.stack makes a posterior of a list of parameter trees."
        )


def check_shapes(posterior: Posterior, x: np.ndarray) -> int:
    """Return the number of classes that one draw gives for two inputs, see ``check_problem``."""
    draw = jax.tree.map(
        lambda w: jax.ShapeDtypeStruct(np.shape(w)[1:], w.dtype),
        posterior.samples,
    )
    if isinstance(posterior.samples, DiskDraws):
        draw = posterior.samples.template
    two = jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype)
    logits = jax.eval_shape(posterior.apply_fn, draw, two)
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != 2 or shape[1] < 2:
        raise ValueError(
            "apply_fn(params, x) must return logits of shape [B, classes] with two classes at "
            f"least; for x of shape {two.shape} it returns "
            f"{type(logits).__name__ if shape is None else shape}. A single score s becomes two "
            "logits by stacking (0, s); a function of one input becomes one of a batch by jax.vmap."
        )
    return int(shape[1])


def _check_values(posterior: Posterior, x: np.ndarray) -> None:
    some = np.linspace(0, len(x) - 1, min(_NUM_INPUTS, len(x))).astype(int)
    draws = np.linspace(0, posterior.num_samples - 1, min(_NUM_DRAWS, posterior.num_samples))
    few = posterior.take(np.unique(draws.astype(int)))
    logits = np.asarray(_logits(few, x[some]), np.float64)
    if not np.isfinite(logits).all():
        share = 1 - np.isfinite(logits).mean()
        raise ValueError(
            f"apply_fn returns NaN or infinite logits ({share:.1%} of those looked at). Check the "
            "draws, and that inputs are scaled as in training."
        )
    is_probability = (logits >= 0).all() and np.allclose(logits.sum(axis=-1), 1, atol=1e-3)
    if is_probability:
        raise ValueError(
            "apply_fn returns probabilities: every row is non-negative and sums to 1. Leave out "
            "its softmax and return logits (or log-probabilities); a softmax of probabilities is "
            "nearly flat, and attacks on it are blind."
        )


@jax.jit
def _logits(posterior: Posterior, x: jax.Array) -> jax.Array:
    return jax.lax.map(lambda params: posterior.apply_fn(params, x), posterior.samples)
