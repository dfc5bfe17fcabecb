"""Inputs that a network was not trained for: turned, noise, or those of another data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np

from bnn_adv.data.dataset import Dataset, DatasetError
from bnn_adv.data.registry import load_dataset

_UNTURNED: Mapping[str, tuple[int, ...]] = {"digits": (0, 8), "mnist": (0, 8)}
"""Classes that look much the same when turned by a right angle, by data set."""


def rotate(dataset: Dataset, *, count: int | None = None, seed: int = 0) -> np.ndarray:
    """Return test images turned by 90 degrees, anticlockwise.

    Of digits without 0 and 8, which stay what they are; of other sets all classes.

    Args:
      dataset: Square images.
      count: How many, drawn by seed; None, or more than there are: all.
      seed: Seed of which.

    Returns:
      float32 [count, H, W, C], in the order of the test images.

    Raises:
      DatasetError: Inputs are no square images.
    """
    if len(dataset.input_shape) != 3 or dataset.input_shape[0] != dataset.input_shape[1]:
        raise DatasetError(
            f"Inputs of {dataset.name} have shape {dataset.input_shape}; square images can be "
            "turned, and noise has any shape."
        )
    kept = ~np.isin(dataset.y_test, _UNTURNED.get(dataset.name, ()))
    turned = np.rot90(dataset.x_test[kept], axes=(1, 2))
    return np.ascontiguousarray(_draw_rows(turned, count, seed))


def make_noise(dataset: Dataset, *, count: int | None = None, seed: int = 0) -> np.ndarray:
    """Return noise: every value uniform in [0, 1], independent of all others.

    Args:
      dataset: Whose inputs' shape.
      count: How many; None: as many as test inputs.
      seed: Seed of the values.

    Returns:
      float32 [count, ...].
    """
    count = len(dataset.x_test) if count is None else count
    rng = np.random.default_rng(seed)
    return rng.random((count, *dataset.input_shape), np.float32)


OOD_SETS: Mapping[str, Callable[..., np.ndarray]] = {"noise": make_noise, "rotated": rotate}
"""By name: what makes inputs of another kind from a data set."""


def load_ood(
    name: str,
    dataset: Dataset,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    count: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Return inputs that are not of a data set's kind, in [0, 1].

    Args:
      name: A key of ``OOD_SETS``, or another data set, whose test inputs are taken.
      dataset: The data set that the network was trained for.
      data_dir: Where the files of another data set are.
      count: How many, drawn by seed; None, or more than there are: all.
      seed: Seed of which, and of noise.

    Returns:
      float32 [count, ...].

    Raises:
      DatasetError: The name is unknown, the data set itself, absent, or of another shape.
    """
    if count is not None and count < 1:
        raise DatasetError(f"count must be at least 1, got {count}.")
    if name in OOD_SETS:
        return OOD_SETS[name](dataset, count=count, seed=seed)
    if name == dataset.name:
        raise DatasetError(f"{name} is the data set itself: its inputs are in distribution.")
    try:
        other = load_dataset(name, data_dir, seed=seed)
    except DatasetError as error:
        made = ", ".join(OOD_SETS)
        raise DatasetError(f"{error}\nBesides data sets there are: {made}.") from error
    if other.input_shape != dataset.input_shape:
        raise DatasetError(
            f"Inputs of {name} have shape {other.input_shape}, those of {dataset.name} "
            f"{dataset.input_shape}: a network takes one of them."
        )
    return _draw_rows(other.x_test, count, seed)


def _draw_rows(x: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    if count is None or count >= len(x):
        return x
    return x[np.sort(np.random.default_rng(seed).choice(len(x), count, replace=False))]
