"""What the referee asks of arrays before it looks at an image: shapes, types and a finite ball."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

SCHEMA_VERSION = 1

ROUNDING = 2.0**-24
"""Largest relative error of rounding to float32."""

NORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linf": lambda rows: np.abs(rows).max(axis=1),
    "l2": lambda rows: np.sqrt(np.square(rows).sum(axis=1)),
    "l1": lambda rows: np.abs(rows).sum(axis=1),
}
"""By name: the norm of every row, [N, d] -> [N]."""

_SHAPES = {
    "schema_version": ("iu", None),
    "x": ("f", "images"),
    "x_adv": ("f", "images"),
    "y": ("iu", "rows"),
    "indices": ("iu", "rows"),
    "broken": ("b", "rows"),
    "clean_correct": ("b", "rows"),
    "norm": ("U", None),
    "epsilon": ("fiu", "one or rows"),
    "lower": ("fiu", None),
    "upper": ("fiu", None),
    "draws_hash": ("U", None),
}
"""By name: allowed kinds of dtype, and what the shape must be."""

READ = (*_SHAPES, "decision_rule")
"""Names of all arrays that the referee reads; whatever else a file holds is not looked at."""


class VerificationError(ValueError):
    """Stored adversarial images are not what they claim to be."""


def check_arrays(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays that the referee reads.

    Raises:
      VerificationError: One is missing or malformed, or radius or box are not finite.
    """
    missing = [name for name in _SHAPES if name not in arrays]
    if missing:
        raise VerificationError(
            f"The adversarial images lack the arrays {', '.join(missing)}: they were not written "
            "by this library, or by another version. Compute them again."
        )
    stored = {name: np.asarray(arrays[name]) for name in _SHAPES}
    version = stored["schema_version"]
    if version.shape or version != SCHEMA_VERSION:
        raise VerificationError(
            f"Adversarial images of schema version {version}; this library reads "
            f"{SCHEMA_VERSION}. Compute them again."
        )
    images = stored["x"].shape
    if len(images) < 2 or not np.prod(images):
        raise VerificationError(f"x must have shape [N, ...] and at least one value, got {images}.")
    rows = images[:1]
    shapes = {None: ((),), "images": (images,), "rows": (rows,), "one or rows": ((), rows)}
    for name, (kinds, what) in _SHAPES.items():
        array, wanted = stored[name], shapes[what]
        if array.shape not in wanted or array.dtype.kind not in kinds:
            raise VerificationError(
                f"{name} must have shape {' or '.join(map(str, wanted))} and a dtype of kind "
                f"{' or '.join(kinds)}, got {array.shape} and {array.dtype}."
            )
    if str(stored["norm"]) not in NORMS:
        raise VerificationError(f"Unknown norm {str(stored['norm'])!r}. Known: {', '.join(NORMS)}.")
    bounds = [stored[name] for name in ("epsilon", "lower", "upper")]
    finite = all(np.isfinite(bound).all() for bound in bounds)
    if not finite or not (bounds[0] >= 0).all() or not bounds[1] < bounds[2]:
        raise VerificationError(
            "Need epsilon >= 0 and lower < upper, all finite: in a ball without end every image "
            f"is allowed. Got epsilon {describe_radius(bounds[0])} and the box [{bounds[1]}, "
            f"{bounds[2]}]."
        )
    if len(np.unique(stored["indices"])) < len(stored["indices"]):
        raise VerificationError("indices must be distinct: an image is stored twice.")
    return stored


def check_threat(stored: dict[str, np.ndarray], threat: Any) -> None:
    """Raise unless the arrays state the caller's threat model, up to rounding to float32.

    Raises:
      VerificationError: They state another one, or the caller's is not finite.
    """
    rows = len(stored["x"])
    for name in ("norm", "epsilon", "lower", "upper"):
        given, claimed = getattr(threat, name, None), stored[name]
        if name == "norm":
            same = given == str(claimed)
        else:
            values = np.asarray(np.nan if given is None else given, np.float64)
            if not np.isfinite(values).all() or values.shape not in ((), (rows,)):
                raise VerificationError(
                    f"The threat model's {name} must be finite and one, or one an image "
                    f"({rows}); got {given}."
                )
            close = np.abs(claimed - values) <= 2 * ROUNDING * np.abs(values)
            same = bool(close.all())
        if not same:
            raise VerificationError(
                f"The images claim the {name} {describe_radius(claimed)}; the threat model that "
                f"was given has {describe_radius(given)}. They show nothing about it."
            )


def describe_radius(value: Any) -> str:
    """Return a radius, or the range of several, as text."""
    value = np.asarray(value)
    if value.ndim == 0:
        return f"{value:g}" if value.dtype.kind in "fiu" else str(value)
    ends = [f"{end:g}" for end in (value.min(), value.max())]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
