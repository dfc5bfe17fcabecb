"""The published files themselves, where this checkout has them beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnn_adv.data import images, load_dataset, tfds
from bnn_adv.data.fashion_mnist import FASHION_MNIST
from bnn_adv.data.mnist import MNIST

SHARED = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared/data beside the checkout")


@pytest.mark.slow
@pytest.mark.parametrize("image_set", [MNIST, FASHION_MNIST], ids=lambda s: s.name)
def test_published_files_load(image_set, home):
    before = sorted(SHARED.rglob("*"))
    data = load_dataset(image_set.name, SHARED)
    assert data.x_train.shape == (60_000, 28, 28, 1)
    assert data.x_test.shape == (10_000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(data.y_train), _counts(image_set.name))
    assert (data.x_train.min(), data.x_train.max()) == (0.0, 1.0)
    assert sorted(SHARED.rglob("*")) == before, "a read-only folder was written to"


def _counts(name: str) -> list[int]:
    if name == "fashion_mnist":
        return [6000] * 10
    return [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.mark.slow
@pytest.mark.parametrize("image_set", [MNIST, FASHION_MNIST], ids=lambda s: s.name)
def test_prepared_and_published_test_images_are_equal(image_set, home):
    """Only the test split: decoding 60,000 more images takes too long for a test."""
    (folder,) = tfds.prepared_folders(SHARED / "tfds", image_set.name)
    stored_images, stored_labels = tfds.read_split(folder, "test", (10_000, 28, 28, 1))
    order = tfds.published_order("test", 10_000)
    published = images.load(image_set, SHARED)
    np.testing.assert_array_equal(stored_labels[order], published.y_test)
    np.testing.assert_array_equal(
        stored_images[order].astype(np.float32) / np.float32(255), published.x_test
    )
