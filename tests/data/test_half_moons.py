from __future__ import annotations

import numpy as np
import pytest

from bnn_adv.data import half_moons


@pytest.fixture(scope="module")
def moons():
    return half_moons.load(seed=0)


def test_sizes_and_types(moons):
    assert moons.x_train.shape == (24_000, 2)
    assert moons.x_test.shape == (6_000, 2)
    assert moons.x_train.dtype == np.float32
    assert moons.y_train.dtype == np.int32


def test_both_coordinates_share_one_scale(moons):
    """The moons are about 3.3 wide and 2 high with this noise: only the width fills [0, 1]."""
    x = np.concatenate([moons.x_train, moons.x_test])
    low, high = x.min(axis=0), x.max(axis=0)
    assert (low[0], high[0]) == (0.0, 1.0)
    assert low[1] > 0.0
    assert 0.5 < high[1] - low[1] < 0.8


def test_classes_are_balanced(moons):
    y = np.concatenate([moons.y_train, moons.y_test])
    np.testing.assert_array_equal(np.bincount(y), [15_000, 15_000])
    # The split is random: 5 standard deviations of a hypergeometric count.
    assert abs(moons.y_test.sum() - 3_000) < 5 * np.sqrt(6_000 * 0.25 * 0.8)


def test_noise_has_the_published_size(moons):
    """Undo the scaling by the known width of the noise-free moons, then measure the distance."""
    x = np.concatenate([moons.x_train, moons.x_test]).astype(np.float64)
    y = np.concatenate([moons.y_train, moons.y_test])
    # The mean abscissae of the two arcs are 0 and 1.
    scale = 1.0 / (x[y == 1, 0].mean() - x[y == 0, 0].mean())
    upper = (x[y == 0] - [x[y == 0, 0].mean(), x[y == 0, 1].mean()]) * scale
    upper[:, 1] += 2 / np.pi
    radius = np.hypot(*upper.T)
    assert radius.std() == pytest.approx(0.1, rel=0.05)


def test_reproducible_by_seed(moons):
    again, other = half_moons.load(seed=0), half_moons.load(seed=1)
    np.testing.assert_array_equal(moons.x_train, again.x_train)
    np.testing.assert_array_equal(moons.y_test, again.y_test)
    assert not np.array_equal(moons.x_train, other.x_train)
