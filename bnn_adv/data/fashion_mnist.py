"""Fashion MNIST: 28x28 grey photographs of clothes."""

from __future__ import annotations

import os

from bnn_adv.data import images
from bnn_adv.data.dataset import Dataset

FASHION_MNIST = images.ImageSet(
    name="fashion_mnist",
    num_classes=10,
    x_train=images.IdxFile(
        "train-images-idx3-ubyte", (60_000, 28, 28), "f4a8712d7a061bf5bd6d2ca38dc4d50a"
    ),
    y_train=images.IdxFile(
        "train-labels-idx1-ubyte", (60_000,), "9018921c3c673c538a1fc5bad174d6f9"
    ),
    x_test=images.IdxFile(
        "t10k-images-idx3-ubyte", (10_000, 28, 28), "8181f5470baa50b63fa0f6fddb340f0a"
    ),
    y_test=images.IdxFile("t10k-labels-idx1-ubyte", (10_000,), "15d484375f8d13e6eb1aabb0c3f46965"),
)


def load(data_dir: str | os.PathLike[str] | None = None, *, seed: int = 0) -> Dataset:
    """Load Fashion MNIST: 60,000 training and 10,000 test images of ten kinds of clothes.

    Source: Xiao, Rasul and Vollgraf, Fashion-MNIST, 2017, arXiv:1708.07747.

    Args:
      data_dir: Where its files are, as ``images.load`` describes.
      seed: Ignored: the split is the published one.

    Returns:
      Images float32 [N, 28, 28, 1] in [0, 1].

    Raises:
      DatasetError: The files are absent, incomplete or damaged.
    """
    return images.load(FASHION_MNIST, data_dir, seed=seed)
