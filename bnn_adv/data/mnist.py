"""MNIST: 28x28 grey handwritten digits."""

from __future__ import annotations

import os

from bnn_adv.data import images
from bnn_adv.data.dataset import Dataset

MNIST = images.ImageSet(
    name="mnist",
    num_classes=10,
    x_train=images.IdxFile(
        "train-images-idx3-ubyte", (60_000, 28, 28), "6bbc9ace898e44ae57da46a324031adb"
    ),
    y_train=images.IdxFile(
        "train-labels-idx1-ubyte", (60_000,), "a25bea736e30d166cdddb491f175f624"
    ),
    x_test=images.IdxFile(
        "t10k-images-idx3-ubyte", (10_000, 28, 28), "2646ac647ad5339dbf082846283269ea"
    ),
    y_test=images.IdxFile("t10k-labels-idx1-ubyte", (10_000,), "27ae3e4e09519cfbb04c329615203637"),
)


def load(data_dir: str | os.PathLike[str] | None = None, *, seed: int = 0) -> Dataset:
    """Load MNIST: 60,000 training and 10,000 test images of ten digits.

    Source: LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document
    recognition, Proceedings of the IEEE, 1998.

    Args:
      data_dir: Where its files are, as ``images.load`` describes.
      seed: Ignored: the split is the published one.

    Returns:
      Images float32 [N, 28, 28, 1] in [0, 1].

    Raises:
      DatasetError: The files are absent, incomplete or damaged.
    """
    return images.load(MNIST, data_dir, seed=seed)
