"""Intervals over images and repetitions, beside closed forms and a simulation."""

import numpy as np
import pytest
from scipy import stats

from bnn_adv.evaluation.metrics import mean_change, wilson_interval
from experiments.bayesian_gain.intervals import difference, half_width, share


def test_where_only_repetitions_differ_it_is_the_interval_of_their_mean():
    values = np.array([0.1, 0.4, 0.3])
    table = np.repeat(values[:, None], 7, axis=1)
    expected = stats.t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
    assert half_width(table, 0.95) == pytest.approx(expected, rel=1e-9)


def test_where_only_images_differ_repetitions_add_nothing():
    images = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    table = np.repeat(images[None], 4, axis=0)
    expected = stats.t.ppf(0.995, 4) * images.std(ddof=1) / np.sqrt(5)
    assert half_width(table, 0.99) == pytest.approx(expected, rel=1e-9)


def test_one_repetition_has_the_interval_over_images():
    first, second = np.array([[1, 0, 0, 0]]), np.array([[1, 1, 0, 1]])
    found = difference(first, second)
    assert (found.value, found.low, found.high) == mean_change([0, 1, 0, 1])
    one = share(second)
    assert (one.low, one.high) == wilson_interval(0.75, 4)
    assert str(one).startswith("75.0 [")
    assert "(" not in str(one)


def test_an_interval_never_closes():
    nothing = np.zeros((3, 100))
    found = difference(nothing, nothing)
    assert found.value == 0
    assert found.low < -0.01
    assert found.high > 0.01
    one = share(nothing)
    assert (one.value, one.low) == (0, 0)
    assert one.high > 0.03
    assert str(one) == "0.0 [0.0, 3.7] (0.0, 0.0, 0.0)"


def test_repetitions_that_disagree_widen_it():
    first = np.zeros((2, 50))
    alike = np.stack([np.arange(50) < 20] * 2)
    apart = np.stack([np.arange(50) < 5, np.arange(50) < 35])
    same, other = difference(first, alike), difference(first, apart)
    assert same.value == other.value == pytest.approx(0.4)
    assert other.high - other.low > 2 * (same.high - same.low)
    assert share(apart).high - share(apart).low > share(alike).high - share(alike).low


@pytest.mark.parametrize(("repeats", "most"), [(2, 0.11), (3, 0.08)])
def test_it_covers_the_truth_nearly_as_often_as_it_says(repeats, most):
    rng, missed, num_runs = np.random.default_rng(0), 0, 500
    for _ in range(num_runs):
        # Images, repetitions and the rest vary; the truth is zero.
        table = (
            0.2 * rng.normal(size=60)
            + 0.05 * rng.normal(size=(repeats, 1))
            + 0.1 * rng.normal(size=(repeats, 60))
        )
        missed += abs(table.mean()) > half_width(table, 0.95)
    assert missed / num_runs < most


@pytest.mark.parametrize(("repeats", "most"), [(2, 0.15), (3, 0.09)])
def test_shares_cover_the_truth_nearly_as_often_as_they_say(repeats, most):
    """Logits of images and of repetitions vary around zero, so that half of all is right."""
    rng, missed, num_runs = np.random.default_rng(0), 0, 500
    for _ in range(num_runs):
        logits = 2 * rng.normal(size=200) + rng.normal(size=(repeats, 1))
        found = share(rng.logistic(size=(repeats, 200)) < logits)
        missed += not found.low <= 0.5 <= found.high
    assert missed / num_runs < most


def test_tables_of_different_images_are_refused():
    with pytest.raises(ValueError, match="same repetitions and images"):
        difference(np.zeros((2, 3)), np.zeros((2, 4)))
