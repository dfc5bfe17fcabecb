from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bnn_adv.data.dataset import Dataset, DatasetError, subset


def numbered() -> Dataset:
    """Return 50 training and 20 test examples whose inputs tell their index."""
    x = np.arange(70, dtype=np.float32)[:, None]
    y = np.arange(70, dtype=np.int32)
    return Dataset("numbered", x[:50], y[:50], x[50:], y[50:], num_classes=70)


def test_input_shape_has_no_batch_axis():
    assert numbered().input_shape == (1,)


def test_dataset_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        numbered().name = "other"  # type: ignore[misc]


def test_no_numbers_keep_everything_in_order():
    kept = subset(numbered(), seed=3)
    np.testing.assert_array_equal(kept.y_train, np.arange(50))
    np.testing.assert_array_equal(kept.y_test, np.arange(50, 70))


def test_num_test_takes_the_first_and_leaves_training_data_alone():
    kept = subset(numbered(), num_test=7, seed=3)
    np.testing.assert_array_equal(kept.y_test, np.arange(50, 57))
    np.testing.assert_array_equal(kept.x_test[:, 0], np.arange(50, 57))
    np.testing.assert_array_equal(kept.y_train, np.arange(50))


def test_num_train_is_random_without_repetition_and_keeps_pairs():
    kept = subset(numbered(), num_train=30, seed=3)
    assert len(np.unique(kept.y_train)) == 30
    assert kept.y_train.max() < 50
    np.testing.assert_array_equal(kept.x_train[:, 0], kept.y_train)
    assert not np.array_equal(kept.y_train, np.arange(30))
    np.testing.assert_array_equal(kept.y_test, np.arange(50, 70))


def test_num_train_follows_the_seed_and_is_nested():
    first = subset(numbered(), num_train=30, seed=3).y_train
    np.testing.assert_array_equal(first, subset(numbered(), num_train=30, seed=3).y_train)
    np.testing.assert_array_equal(first[:10], subset(numbered(), num_train=10, seed=3).y_train)
    assert not np.array_equal(first, subset(numbered(), num_train=30, seed=4).y_train)


def test_num_train_is_uniform():
    """Each of 50 examples is in a subset of 10 with probability 1/5: 5 standard errors."""
    draws = [subset(numbered(), num_train=10, seed=seed).y_train for seed in range(400)]
    share = np.bincount(np.concatenate(draws), minlength=50) / 400
    np.testing.assert_allclose(share, 0.2, atol=5 * np.sqrt(0.2 * 0.8 / 400))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"num_train": 0}, ("num_train=0", "50")),
        ({"num_train": -1}, ("num_train=-1", "50")),
        ({"num_train": 51}, ("num_train=51", "50")),
        ({"num_test": 0}, ("num_test=0", "20")),
        ({"num_test": 21}, ("num_test=21", "20")),
    ],
)
def test_impossible_numbers_are_named(numbers, words):
    with pytest.raises(DatasetError) as error:
        subset(numbered(), **numbers)
    assert all(word in str(error.value) for word in (*words, "numbered"))


def test_the_message_fits_a_flag_too():
    with pytest.raises(ValueError, match=r"ask for 1 to 20\.$"):
        subset(numbered(), num_test=100_000)


def test_all_there_is_can_be_asked_for():
    kept = subset(numbered(), num_train=50, num_test=20)
    assert (len(kept.x_train), len(kept.x_test)) == (50, 20)


def test_fractions_are_no_numbers_of_examples():
    with pytest.raises(TypeError):
        subset(numbered(), num_train=2.5)  # type: ignore[arg-type]
