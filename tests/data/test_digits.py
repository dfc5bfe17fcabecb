from __future__ import annotations

import numpy as np

from bnn_adv.data import digits


def test_shapes_types_and_range():
    data = digits.load()
    assert data.x_train.shape == (1437, 8, 8, 1)
    assert data.x_test.shape == (360, 8, 8, 1)
    assert data.x_train.dtype == np.float32
    assert data.y_train.dtype == data.y_test.dtype == np.int32
    assert (data.x_train.min(), data.x_train.max()) == (0.0, 1.0)


def test_values_are_sixteenths():
    scaled = digits.load().x_train * 16
    np.testing.assert_array_equal(scaled, np.round(scaled))


def test_split_is_stratified():
    data = digits.load()
    train, test = (np.bincount(y, minlength=10) for y in (data.y_train, data.y_test))
    assert np.abs(test - 0.2 * (train + test)).max() <= 1


def test_split_is_a_partition():
    from sklearn.datasets import load_digits

    data = digits.load()
    rows = np.concatenate([data.x_train, data.x_test]).reshape(-1, 64) * 16
    labels = np.concatenate([data.y_train, data.y_test])
    found = sorted((*row, label) for row, label in zip(rows, labels, strict=True))
    source = load_digits()
    expected = sorted((*row, label) for row, label in zip(source.data, source.target, strict=True))
    np.testing.assert_array_equal(found, expected)


def test_split_does_not_depend_on_the_seed():
    np.testing.assert_array_equal(digits.load(seed=0).x_test, digits.load(seed=1).x_test)
    np.testing.assert_array_equal(digits.load(seed=0).y_train, digits.load(seed=1).y_train)
