"""The one door: what callers hand over, checked and converted once before any work starts.

``run_attack``, ``run_suite``, ``attack_fresh``, ``evaluate``, their checks for masking and the
training methods take images, labels, radii, keys and counts through these functions, and only what
they return goes on: float32 images inside the box, int32 labels, one radius or one an image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks.threat import Threat, box_radius, with_radius
from bnn_adv.compute.arguments import as_array, as_labels

_LARGEST_RADIUS = 1e18
"""Beyond it, squares leave float32's range."""


class Examples(NamedTuple):
    """What is attacked, as everything behind the door expects it.

    x: Clean images, float32 [N, ...], in the threat model's box.
    y: Labels, int32 [N].
    threat: Radius (a Python float, or float32 [N]) and box, all finite.
    """

    x: np.ndarray
    y: np.ndarray
    threat: Threat


def convert(x: Any, y: Any, threat: Any, *, num_classes: int | None = None) -> Examples:
    """Return images, labels and threat model, checked and converted.

    Args:
      x: Clean images, see ``as_images``.
      y: Labels, see ``as_labels``.
      threat: Norm, radius and box, see ``as_threat``.
      num_classes: Labels must be below it; None: it is not known yet.

    Raises:
      ValueError: Something is not what it should be; the message names it and says what to do.
    """
    images = as_images(x, threat)
    labels = as_labels(y, len(images), num_classes)
    return Examples(images, labels, as_threat(threat, len(images), images.shape[1:]))


def as_images(x: Any, threat: Any) -> np.ndarray:
    """Return clean images as float32 [N, ...] inside the box.

    Floating-point numbers of every width and byte order are rounded to the nearest float32. A value
    that leaves the box by no more than the rounding of its own type is moved to its wall.

    Args:
      x: [N, ...], N of at least 1.
      threat: Whose box it must lie in.

    Raises:
      ValueError: No floating-point numbers, not a batch, NaN, infinite, or outside the box.
    """
    x = as_array(x, "Inputs")
    lower, upper = _check_box(threat)
    if x.ndim < 2 or not x.size:
        raise ValueError(
            f"Inputs must have shape [N, ...] with N of at least 1, got {x.shape}. "
            "A single input becomes a batch by x[None]."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"Inputs must be floating-point numbers in [{lower}, {upper}], got "
            f"{x.dtype}. Divide bytes by 255."
        )
    if not np.isfinite(x).all():
        raise ValueError(f"{(~np.isfinite(x)).sum()} input values are NaN or infinite.")
    with np.errstate(over="ignore"):
        converted = np.asarray(x, np.float32)
    walls = [np.float32(lower), np.float32(upper)]
    # In a narrow type the walls themselves are rounded, perhaps outwards.
    own = [np.float64(np.asarray(wall, x.dtype)) for wall in (lower, upper)]
    least, most = min(float(walls[0]), own[0]), max(float(walls[1]), own[1])
    if not (converted.min() >= least and converted.max() <= most):
        raise ValueError(
            f"Inputs must lie in the box [{lower}, {upper}], found "
            f"[{x.min()}, {x.max()}]. Scale them, or give the threat model another box "
            "(lower=, upper=); normalisation belongs into apply_fn."
        )
    clipped: np.ndarray = np.clip(converted, walls[0], walls[1])
    return clipped


def as_threat(threat: Any, count: int, shape: tuple[int, ...]) -> Any:
    """Return the threat model with a radius that everything behind the door understands.

    Args:
      threat: Its radius: one number (also an array that holds one), or one an image.
      count: Number of images, N.
      shape: Of one image.

    Returns:
      The radius is a Python float, or float32 [N].

    Raises:
      ValueError: The radius is no number, of another shape, negative, NaN, infinite or so large
        that its square is.
    """
    _check_box(threat)
    epsilon = as_array(threat.epsilon, "epsilon")
    is_number = jnp.issubdtype(epsilon.dtype, jnp.floating)
    if not is_number and not np.issubdtype(epsilon.dtype, np.integer):
        raise ValueError(f"epsilon must be a number at least 0, got {threat.epsilon!r}.")
    if epsilon.size != 1 and epsilon.shape != (count,):
        raise ValueError(
            f"epsilon must be one radius, or one for each of {count} images: shape () or "
            f"({count},), got {epsilon.shape}."
        )
    if not (epsilon >= 0).all():
        raise ValueError(f"epsilon must be at least 0, got {epsilon.min()}.")
    if not (epsilon <= _LARGEST_RADIUS).all():
        whole = box_radius(threat, shape)
        raise ValueError(
            f"epsilon must be finite and below {_LARGEST_RADIUS:.0e}, got {epsilon.max()}. The "
            f"whole box is a radius of {whole:g}: threat.box_radius."
        )
    if epsilon.size == 1:
        return with_radius(threat, float(epsilon.reshape(())))
    return with_radius(threat, epsilon.astype(np.float32))


def _check_box(threat: Any) -> tuple[float, float]:
    missing = [name for name in ("norm", "epsilon", "lower", "upper") if not hasattr(threat, name)]
    if missing:
        raise ValueError(
            f"threat must be a threat model such as LInf(0.1), got {type(threat).__name__} without "
            f"{', '.join(missing)}."
        )
    lower, upper = threat.lower, threat.upper
    if any(isinstance(wall, str | bool) or np.ndim(wall) for wall in (lower, upper)):
        raise ValueError(f"The box needs one number a wall, got lower={lower!r}, upper={upper!r}.")
    if not -np.inf < lower < upper < np.inf:
        raise ValueError(f"The box needs finite walls, lower < upper, got [{lower}, {upper}].")
    return lower, upper
