"""The 8x8 handwritten digits that come with scikit-learn: small, real, no files needed."""

from __future__ import annotations

import os

import numpy as np

from bnn_adv.data.dataset import Dataset


def load(data_dir: str | os.PathLike[str] | None = None, *, seed: int = 0) -> Dataset:
    """Load the digits with a fixed stratified split of 80 to 20 per cent.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, 1998 (its test part, as ``sklearn.datasets.load_digits`` ships it).

    Args:
      data_dir: Ignored: the images are part of scikit-learn.
      seed: Ignored: results on this set compare only if everybody has the same split.

    Returns:
      1,437 training and 360 test images, float32 [N, 8, 8, 1] in [0, 1], of ten classes.
    """
    del data_dir, seed
    # Importing scikit-learn takes a second that the other sources need not pay.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x = (digits.images[..., None] / 16.0).astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(
        x, digits.target.astype(np.int32), test_size=0.2, stratify=digits.target, random_state=0
    )
    return Dataset("digits", x_train, y_train, x_test, y_test, num_classes=10)
