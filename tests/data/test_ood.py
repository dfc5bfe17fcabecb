"""Inputs out of distribution: what they are, and that a seed fixes them."""

import dataclasses

import numpy as np
import pytest

from bnn_adv.data import DATASETS, OOD_SETS, Dataset, DatasetError, load_dataset, load_ood


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", num_test=60)


def test_rotated_digits_are_turned_and_leave_out_those_that_stay_digits(digits):
    found = load_ood("rotated", digits)
    kept = digits.x_test[(digits.y_test != 0) & (digits.y_test != 8)]
    assert found.shape == kept.shape
    assert found.dtype == np.float32
    # Anticlockwise: what is on the right comes to the top.
    np.testing.assert_array_equal(found[:, 0, :], kept[:, :, -1])
    np.testing.assert_array_equal(found[:, -1, 0], kept[:, 0, 0])
    other = dataclasses.replace(digits, name="clothes")
    assert len(load_ood("rotated", other)) == 60


def test_noise_is_uniform_and_follows_its_seed(digits):
    found = load_ood("noise", digits, count=200, seed=3)
    assert found.shape == (200, 8, 8, 1)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, load_ood("noise", digits, count=200, seed=3))
    assert not np.array_equal(found, load_ood("noise", digits, count=200, seed=4))
    # Of 12,800 values the mean has a standard error of 0.0026; the quantiles of a thousandth too.
    assert abs(found.mean() - 0.5) < 0.013
    np.testing.assert_allclose(np.quantile(found, [0.25, 0.75]), [0.25, 0.75], atol=0.02)
    assert 0 <= found.min() < 0.001 < 0.999 < found.max() <= 1
    assert len(load_ood("noise", digits)) == 60


def test_a_few_are_drawn_by_seed_and_keep_their_order(digits):
    every, few = load_ood("rotated", digits), load_ood("rotated", digits, count=7, seed=1)
    places = [int(np.flatnonzero((every == image).all(axis=(1, 2, 3)))[0]) for image in few]
    assert len(set(places)) == 7
    assert places == sorted(places)
    assert not np.array_equal(few, load_ood("rotated", digits, count=7, seed=2))
    assert len(load_ood("rotated", digits, count=1000)) == len(every)


def test_other_data_sets_give_their_test_inputs(digits, monkeypatch):
    zeros, y = np.zeros((5, 8, 8, 1), np.float32), np.zeros(5, np.int32)
    blank = Dataset("blank", zeros + 1, y, zeros, y, num_classes=2)
    monkeypatch.setattr(
        "bnn_adv.data.registry.DATASETS", {**DATASETS, "blank": lambda *a, **k: blank}
    )
    np.testing.assert_array_equal(load_ood("blank", digits, count=3), zeros[:3])


def test_what_does_not_fit_is_refused(digits):
    moons = load_dataset("half_moons", num_test=10)
    for name, dataset, options, message in (
        ("digits", digits, {}, "digits is the data set itself"),
        ("half_moons", digits, {}, r"half_moons have shape \(2,\), those of digits \(8, 8, 1\)"),
        ("rotated", moons, {}, r"half_moons have shape \(2,\)"),
        ("letters", digits, {}, "letters.*\nBesides data sets there are: noise, rotated"),
        ("noise", digits, {"count": 0}, "count must be at least 1, got 0"),
    ):
        with pytest.raises(DatasetError, match=message):
            load_ood(name, dataset, **options)
    assert load_ood("noise", moons, count=4).shape == (4, 2)
    assert sorted(OOD_SETS) == ["noise", "rotated"]
