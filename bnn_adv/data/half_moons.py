"""Two interleaved half circles in the plane, as in the figure on the overparameterised limit."""

from __future__ import annotations

import os

import numpy as np

from bnn_adv.data.dataset import Dataset

NUM_POINTS = 30_000
NUM_TRAIN = 24_000
NOISE = 0.1


def load(data_dir: str | os.PathLike[str] | None = None, *, seed: int = 0) -> Dataset:
    """Generate half moons by the recipe of Carbone et al. (2020), arXiv:2002.04359, figure 1.

    30,000 points with Gaussian noise of standard deviation 0.1, min-max scaled to [0, 1], then
    split 80 to 20 per cent. As in the published code, both coordinates share one minimum and
    one maximum, taken over all points: the moons keep their proportions, and the second
    coordinate does not fill the interval.

    Args:
      data_dir: Ignored: the points are generated.
      seed: Seed of the noise and of the order, and so of the split.

    Returns:
      24,000 training and 6,000 test points, float32 [N, 2] in [0, 1], of two classes.
    """
    del data_dir
    # Importing scikit-learn takes a second that the other sources need not pay.
    from sklearn.datasets import make_moons

    # The points come shuffled, so that the first 24,000 are a random split.
    points, labels = make_moons(NUM_POINTS, shuffle=True, noise=NOISE, random_state=seed)
    low, high = points.min(), points.max()
    x = ((points - low) / (high - low)).astype(np.float32)
    y = labels.astype(np.int32)
    return Dataset(
        "half_moons", x[:NUM_TRAIN], y[:NUM_TRAIN], x[NUM_TRAIN:], y[NUM_TRAIN:], num_classes=2
    )
