"""What the certificate's referee asks of a file before it looks at an image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from bnn_adv.evaluation.verification_arrays import NORMS, VerificationError

SCHEMA_VERSION = 1

_SHAPES = {
    "schema_version": ("iu", None),
    "x": ("f", "images"),
    "y": ("iu", "rows"),
    "norm": ("U", None),
    "epsilon": ("f", "rows"),
    "lower": ("fiu", None),
    "upper": ("fiu", None),
    "clean_correct": ("b", "rows"),
    "certified": ("b", "rows"),
    "margin": ("f", "rows"),
    "rounding": ("f", "rows"),
    "least": ("f", "rows"),
    "radius": ("f", "rows"),
    "rounds": ("iu", "rows"),
    "radius_rounds": ("iu", "rows"),
    "points": ("f", "points"),
    "radius_points": ("f", "points"),
    "draws_hash": ("U", None),
    "decision_rule": ("U", None),
    "num_samples": ("iu", None),
    "settings": ("U", None),
}
"""By name: allowed kinds of dtype, and what the shape must be."""

READ = tuple(_SHAPES)
"""Names of all arrays that the referee reads; whatever else a file holds is not looked at."""

_CHOICES = {
    "method": ("ibp", "crown-ibp", "crown", "alpha-crown"),
    "rule": ("predictive", "every_draw"),
    "arithmetic": ("float32", "real"),
}


def check_arrays(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays that the referee reads.

    Raises:
      VerificationError: One is missing or malformed, of another version, or not a number.
    """
    missing = [name for name in _SHAPES if name not in arrays]
    if missing:
        raise VerificationError(
            f"The certificate lacks the arrays {', '.join(missing)}: it was not written by this "
            "library, or by another version. Certify again."
        )
    stored = {name: np.asarray(arrays[name]) for name in _SHAPES}
    version = stored["schema_version"]
    if version.shape or version != SCHEMA_VERSION:
        raise VerificationError(
            f"A certificate of schema version {version}; this library reads {SCHEMA_VERSION}. "
            "Certify again."
        )
    images = stored["x"].shape
    if len(images) < 2 or not np.prod(images):
        raise VerificationError(f"x must have shape [N, ...] and at least one value, got {images}.")
    shapes: dict[str | None, tuple[int, ...]] = {None: (), "images": images, "rows": images[:1]}
    for name, (kinds, what) in _SHAPES.items():
        array = stored[name]
        fits = array.ndim == 3 if what == "points" else array.shape == shapes[what]
        if not fits or array.dtype.kind not in kinds:
            wanted = "[rounds, C, d]" if what == "points" else shapes[what]
            raise VerificationError(
                f"{name} must have shape {wanted} and a dtype of kind {' or '.join(kinds)}, got "
                f"{array.shape} and {array.dtype}."
            )
    _check_numbers(stored)
    return stored


def check_points(stored: dict[str, np.ndarray], num_classes: int) -> None:
    """Raise unless places at which lines are made tight belong to inputs and classes.

    Raises:
      VerificationError: They do not.
    """
    size = int(np.prod(stored["x"].shape[1:]))
    for rounds, points in (("rounds", "points"), ("radius_rounds", "radius_points")):
        own, count = stored[points], int(stored[rounds].sum())
        if (stored[rounds] < 0).any() or count != len(own):
            raise VerificationError(f"{rounds} must add up to the {len(own)} rows of {points}.")
        if count and own.shape[1:] != (num_classes, size):
            raise VerificationError(
                f"{points} must have shape [rounds, {num_classes}, {size}], got {own.shape}."
            )


def _check_numbers(stored: dict[str, np.ndarray]) -> None:
    if str(stored["norm"]) not in NORMS:
        raise VerificationError(f"Unknown norm {str(stored['norm'])!r}. Known: {', '.join(NORMS)}.")
    finite = ("x", "epsilon", "lower", "upper", "radius", "points", "radius_points")
    wrong = [name for name in finite if not np.isfinite(stored[name]).all()]
    wrong += [name for name in ("margin", "rounding", "least") if np.isnan(stored[name]).any()]
    wrong += [name for name in ("epsilon", "radius", "rounding") if (stored[name] < 0).any()]
    if wrong or not stored["lower"] < stored["upper"]:
        raise VerificationError(
            "Need finite inputs, radii of at least 0 and lower < upper, and no NaN; not so: "
            f"{', '.join(wrong) or 'the box'}."
        )


def read_settings(stored: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return how bounds were made.

    Raises:
      VerificationError: The file does not say it, or says what is unknown.
    """
    try:
        found = json.loads(str(stored["settings"]))
    except json.JSONDecodeError as error:
        raise VerificationError(f"The certificate's settings are no JSON ({error}).") from error
    for name, known in _CHOICES.items():
        value = found.get(name) if isinstance(found, dict) else None
        if value not in known:
            raise VerificationError(
                f"The certificate's settings say {name}={value!r}. Known: {', '.join(known)}."
            )
    rows = found.get("most_rows")
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 0:
        raise VerificationError(f"The certificate's settings say most_rows={rows!r}.")
    settings: dict[str, Any] = found
    return settings
