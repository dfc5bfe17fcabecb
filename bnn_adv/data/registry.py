"""The data sets by name. A new one is a file with a ``Loader`` and a line in ``DATASETS``."""

from __future__ import annotations

import os
from collections.abc import Mapping

from bnn_adv.compute import registry
from bnn_adv.data import digits, fashion_mnist, half_moons, mnist
from bnn_adv.data.dataset import Dataset, DatasetError, Loader, subset

DATASETS: Mapping[str, Loader] = {
    "digits": digits.load,
    "fashion_mnist": fashion_mnist.load,
    "half_moons": half_moons.load,
    "mnist": mnist.load,
}


def load_dataset(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    num_train: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a data set by name.

    Args:
      name: A key of ``DATASETS``, or the path of a module with ``load`` or of such a function.
      data_dir: Where its files are, for data sets that have files; see ``images.load``.
      num_train: Size of a random subset of the training examples, or ``None`` for all.
      num_test: How many of the first test examples to keep, or ``None`` for all.
      seed: Seed of the random subset, and of the points of a generated data set.

    Returns:
      Inputs float32 in [0, 1], images [N, H, W, C] and points [N, d], and labels int32 [N].

    Raises:
      DatasetError: The name is unknown, the files are absent or damaged, or a subset is below 1
        or larger than the set.
    """
    try:
        found = registry.find("data set", name, DATASETS)
    except ValueError as error:
        raise DatasetError(str(error)) from None
    # A module of one's own has ``load``, as those here; an object is the function itself.
    load = getattr(found, "load", found)
    if not callable(load):
        raise DatasetError(f"{name} is no data set: it has no load(data_dir, *, seed).")
    dataset = load(data_dir, seed=seed)
    if not isinstance(dataset, Dataset):
        raise DatasetError(f"load of {name} must return a Dataset, got {type(dataset).__name__}.")
    return subset(dataset, num_train=num_train, num_test=num_test, seed=seed)
