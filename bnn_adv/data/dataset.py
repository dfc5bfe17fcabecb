"""What every data set looks like, and the error that says how to get one."""

from __future__ import annotations

import dataclasses
import operator
import os
from typing import Protocol

import numpy as np

from bnn_adv.compute.canonical import digest


class DatasetError(ValueError):
    """A data set is unknown, absent, damaged, or smaller than what was asked of it."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set, split into train and test.

    Args:
      name: Name in the registry.
      x_train: Inputs in [0, 1], float32 [N, H, W, C] for images and [N, d] for points.
      y_train: Labels from 0 to ``num_classes`` - 1, int32 [N].
      x_test: Inputs like ``x_train``, float32 [M, ...].
      y_test: Labels like ``y_train``, int32 [M].
      num_classes: Number of classes.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one input, without the batch axis."""
        return self.x_train.shape[1:]


def hash_data(dataset: Dataset) -> str:
    """Return the hash of all inputs and labels, as hexadecimal text."""
    return digest((dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test), "data")


class Loader(Protocol):
    """What the registry holds: a function that reads or makes one whole data set."""

    def __call__(self, data_dir: str | os.PathLike[str] | None, *, seed: int) -> Dataset:
        """Return all examples; sources without files ignore ``data_dir``, files ``seed``."""


def subset(
    dataset: Dataset, *, num_train: int | None = None, num_test: int | None = None, seed: int = 0
) -> Dataset:
    """Take ``num_train`` random training examples and the first ``num_test`` test examples.

    Args:
      dataset: Data set with N training and M test examples.
      num_train: Size of a uniformly random subset without replacement, 1 to N. The subsets that
        one seed gives are nested: the first 100 of 1,000 are those of ``num_train=100``.
        ``None`` keeps all, in their order.
      num_test: How many of the first test examples to keep, 1 to M, as the literature does with
        its first 1,000 test images. ``None`` keeps all.
      seed: Seed of the random subset.

    Returns:
      The same data set with ``num_train`` and ``num_test`` examples.

    Raises:
      DatasetError: A number is below 1 or above what there is.
    """
    if num_test is not None:
        count = _checked(num_test, len(dataset.x_test), "num_test", dataset.name)
        dataset = dataclasses.replace(
            dataset, x_test=dataset.x_test[:count], y_test=dataset.y_test[:count]
        )
    if num_train is not None:
        count = _checked(num_train, len(dataset.x_train), "num_train", dataset.name)
        chosen = np.random.default_rng(seed).permutation(len(dataset.x_train))[:count]
        dataset = dataclasses.replace(
            dataset, x_train=dataset.x_train[chosen], y_train=dataset.y_train[chosen]
        )
    return dataset


def _checked(count: int, available: int, option: str, name: str) -> int:
    count = operator.index(count)
    if not 1 <= count <= available:
        raise DatasetError(
            f"{option}={count}, but {name} has {available} such examples: ask for 1 to {available}."
        )
    return count
