"""Refuse a model, inputs or labels that an evaluation would misread, before any work starts."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks import inputs
from bnn_adv.compute import arguments, effort, parallel, programs
from bnn_adv.compute.disk import DiskDraws, flatten_names
from bnn_adv.compute.leaves import is_key
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.posteriors.sampler import Sampler, check_num_samples

_NUM_INPUTS, _NUM_DRAWS = 32, 3
"""How much is really computed to look at the values of logits."""

_MOST_SMALL = 2**20
"""Numbers in all draws up to which checks are compiled with low effort; their results are not in
anything that is reported."""

_NUM_TOGETHER = 3
"""Inputs that are compared alone and in a batch."""

_BATCH_ROUNDING = 0.05
"""Logits alone and in a batch may differ by this much of the largest: networks in bfloat16 do."""


def check_settings(settings: Any) -> None:
    """Raise unless batch and chunk sizes are whole numbers of at least one.

    Raises:
      ValueError: The message names the setting and its value.
    """
    arguments.check_count("batch_size", settings.batch_size, 1)
    if settings.sample_chunk is not None:
        arguments.check_count("sample_chunk", settings.sample_chunk, 1)


def check_ess(min_ess: float | None) -> None:
    """Raise where an effective sample size is negative; NaN is that of chains that never moved.

    Raises:
      ValueError: The message names the value.
    """
    if min_ess is None:
        return
    is_number = isinstance(min_ess, int | float | np.number) and not isinstance(min_ess, bool)
    if not is_number or min_ess < 0 or min_ess == np.inf:
        raise ValueError(
            f"min_ess must be a number at least 0, or None where unknown, got {min_ess!r}."
        )


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
        arguments.check_count("num_predictions", num_predictions, 1)
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


class Problem(NamedTuple):
    """What is evaluated, checked and converted.

    x: Clean inputs, float32 [N, ...], in the threat model's box.
    y: Labels, int32 [N].
    threat: Radius (a Python float, or float32 [N]) and box.
    num_classes: Classes of the network, C.
    """

    x: np.ndarray
    y: np.ndarray
    threat: Any
    num_classes: int


def open_problem(posterior: Posterior, x: Any, y: Any, threat: Any) -> Problem:
    """Return inputs, labels and threat model converted, if they and a posterior belong together.

    Args:
      posterior: S draws.
      x: Clean inputs, [N, ...], see ``inputs.as_images``.
      y: Labels, [N], see ``arguments.as_labels``.
      threat: Norm, radius (one, or one an input) and box, see ``inputs.as_threat``.

    Raises:
      ValueError: Leaves of different numbers of draws, NaN or no numbers in them; inputs outside
        the box, NaN or integer inputs; labels that are no integers or out of range; logits of the
        wrong shape, NaN, or probabilities in their place; a network whose prediction of an input
        depends on the others in its batch. The message says what to do.
    """
    images = inputs.as_images(x, threat)
    check_samples(posterior)
    labels = arguments.as_labels(y, len(images))
    num_classes = check_shapes(posterior, images)
    arguments.check_label_range(labels, num_classes)
    threat = inputs.as_threat(threat, len(images), images.shape[1:])
    check_draws_finite(posterior)
    _check_outputs(posterior, images)
    return Problem(images, labels, threat, num_classes)


def check_problem(posterior: Posterior, x: Any, y: Any, threat: Any) -> int:
    """Return the number of classes, if all belongs together; as ``open_problem``."""
    return open_problem(posterior, x, y, threat).num_classes


def check_classes(posterior: Posterior, x: np.ndarray, y: np.ndarray) -> None:
    """Raise unless labels are classes of the network that a posterior's draws are of.

    Args:
      posterior: S draws.
      x: Converted inputs, [N, ...].
      y: Converted labels, [N].

    Raises:
      ValueError: The draws are no draws or hold NaN, the network returns no logits, or a label is
        no class.
    """
    check_samples(posterior)
    arguments.check_label_range(y, check_shapes(posterior, x))
    check_draws_finite(posterior)


def check_samples(posterior: Posterior) -> None:
    """Check that every leaf has the same number of draws, see ``check_problem``."""
    if isinstance(posterior.samples, DiskDraws):
        return
    leaves = flatten_names(posterior.samples)
    if not leaves:
        raise ValueError("The posterior's samples hold no arrays.")
    _check_numbers(leaves)
    counts = {name: (np.shape(leaf) or (0,))[0] for name, leaf in leaves.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise ValueError(
            "Every leaf of the samples needs the same number of draws on its leading axis; found "
            f"{', '.join(f'{name}: {count}' for name, count in counts.items())}. "
            "Posterior.stack makes a posterior of a list of parameter trees."
        )


def _check_numbers(leaves: dict[str, Any]) -> None:
    """Raise unless parameters are numbers, or typed keys beside some."""
    for name, leaf in leaves.items():
        if is_key(leaf):
            continue
        dtype = getattr(leaf, "dtype", None)
        if dtype is None:
            raise ValueError(
                f"Draws must be arrays of numbers, got {type(leaf).__name__} for {name}. "
                "jnp.asarray makes an array of a list."
            )
        if not jnp.issubdtype(dtype, np.bool_) and not jnp.issubdtype(dtype, jnp.number):
            raise ValueError(f"Draws must be arrays of numbers, got {dtype} for {name}.")
    if all(not is_key(leaf) and leaf.dtype == bool for leaf in leaves.values()):
        raise ValueError(
            f"Draws must hold numbers, got booleans alone: {', '.join(leaves)}. Parameters that "
            "are 0 or 1 become numbers by astype(jnp.float32)."
        )


def check_draws_finite(posterior: Posterior) -> None:
    """Raise unless every number of every draw is finite, which a look at a few draws may miss.

    Draws on disk are not read for it: the network's values tell.

    Raises:
      ValueError: The message names the leaves and how many draws of each.
    """
    if isinstance(posterior.samples, DiskDraws):
        return
    named = flatten_names(posterior.samples)
    looked_at = {
        name: leaf
        for name, leaf in named.items()
        if not is_key(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    with effort.lower(_is_small(posterior)):
        finite = parallel.to_host(_finite_draws(looked_at))
    bad = {name: int(np.sum(~rows)) for name, rows in finite.items()}
    found = [f"{name}: {count}" for name, count in bad.items() if count]
    if found:
        raise ValueError(
            f"Some of {posterior.num_samples} draws hold NaN or infinite numbers (leaf: draws): "
            f"{', '.join(found)}. Their training or sampling diverged: leave them out by "
            "Posterior.take, or train again."
        )


def _is_small(posterior: Posterior) -> bool:
    """Return whether a look at a few draws takes less time than to compile it."""
    if isinstance(posterior.samples, DiskDraws) or posterior.shards > 1:
        return False
    return sum(np.size(leaf) for leaf in jax.tree.leaves(posterior.samples)) <= _MOST_SMALL


@programs.jit
def _finite_draws(named: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {
        name: jnp.isfinite(leaf).reshape(leaf.shape[0], -1).all(axis=1)
        for name, leaf in named.items()
    }


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
    if logits.dtype == bool or jnp.issubdtype(logits.dtype, jnp.complexfloating):
        raise ValueError(f"apply_fn must return logits that are real numbers, got {logits.dtype}.")
    return int(shape[1])


def _check_outputs(posterior: Posterior, x: np.ndarray) -> None:
    """Raise unless a few draws return logits of a few inputs, of each by itself."""
    some = np.linspace(0, len(x) - 1, min(_NUM_INPUTS, len(x))).astype(int)
    draws = np.linspace(0, posterior.num_samples - 1, min(_NUM_DRAWS, posterior.num_samples))
    with effort.lower(_is_small(posterior)):
        few = posterior.take(np.unique(draws.astype(int)))
    batch = x[np.linspace(0, len(x) - 1, _NUM_TOGETHER).astype(int)]
    # One image, repeated, would not show a mean over the batch.
    shrink = np.linspace(1, 0.5, _NUM_TOGETHER, dtype=batch.dtype)
    batch = batch * shrink.reshape(-1, *(1,) * (x.ndim - 1))
    with effort.lower(_is_small(posterior)):
        try:
            found = _look(few, x[some], batch, True)
        except (NotImplementedError, TypeError, ValueError):
            # Black boxes attack what has no derivative.
            found = _look(few, x[some], batch, False)
    logits, together, alone, mixed = parallel.to_host(found)
    _check_values(logits.astype(np.float64))
    _check_rows_alone(together, alone, bool(mixed))


def _check_values(logits: np.ndarray) -> None:
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


def _check_rows_alone(together: np.ndarray, alone: np.ndarray, mixed: bool) -> None:
    """Raise where what the network says of an input depends on the others in its batch.

    Two looks. Whatever the rounding, the gradient of one input's logits with respect to another
    input is exactly zero in a network that treats each by itself; and its logits alone and in a
    batch are equal up to rounding, whatever is not differentiable.
    """
    scale = np.abs(together[np.isfinite(together)]).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        differs = np.abs(together - alone) > _BATCH_ROUNDING * max(scale, 1e-30)
    if mixed or differs.any():
        raise ValueError(
            "What apply_fn says of an input depends on the other inputs in its batch, or on its "
            f"place there: alone its logits differ by up to {np.abs(together - alone).max():.2g} "
            f"where the largest is {scale:.2g}. Such a prediction is no function of the input, and "
            "an attack could move it by moving another. Normalise by fixed statistics (BatchNorm: "
            "train=False, use_running_average=True; NNX: model.eval()); where random masks are "
            "meant, draw them from a typed key among the parameters, see Sampler."
        )


@functools.partial(programs.jit, static_argnames="differentiate")
def _look(
    posterior: Posterior, x: jax.Array, batch: jax.Array, differentiate: bool
) -> tuple[jax.Array, ...]:
    """Return logits of all draws; and the first one's of a batch, together and one by one.

    And whether ``_reaches_others``, where that is asked for.
    """
    logits = jax.lax.map(lambda params: posterior.logits(params, x), posterior.samples)
    first = jax.tree.map(lambda w: w[0], posterior.samples)
    alone = jax.lax.map(lambda row: posterior.logits(first, row[None])[0], batch)
    mixed = _reaches_others(posterior, first, batch) if differentiate else jnp.asarray(False)
    return logits, posterior.logits(first, batch), alone, mixed


def _reaches_others(posterior: Posterior, params: Any, batch: jax.Array) -> jax.Array:
    """Return whether the first input's logits have a gradient with respect to the others."""
    # As the caller's function sees a batch: with keys among the parameters ``logits`` would not.
    logits, vjp = jax.vjp(lambda x: posterior.apply_fn(params, x), batch)
    weights = jnp.arange(1, logits.shape[1] + 1, dtype=logits.dtype)
    (gradient,) = vjp(jnp.zeros_like(logits).at[0].set(weights))
    return (jnp.nan_to_num(gradient[1:], nan=0.0) != 0).any()
