"""Metrics: bounds, constants of the published metric, coverage of the interval."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bnn_adv.evaluation import metrics


@given(st.integers(1, 5000), st.data())
def test_wilson_interval_holds_the_share(count, data):
    share = data.draw(st.integers(0, count)) / count
    low, high = metrics.wilson_interval(share, count)
    assert 0 <= low <= share <= high <= 1
    assert low < high


def test_wilson_interval_against_a_table():
    """Brown, Cai, DasGupta 2001: x = 10 of n = 50."""
    low, high = metrics.wilson_interval(0.2, 50)
    np.testing.assert_allclose([low, high], [0.1124, 0.3304], atol=1e-4)


@given(st.integers(1, 5000), st.sampled_from([0.5, 0.95, 0.999]), st.data())
def test_wilson_interval_is_scipys_for_whole_numbers_of_successes(count, confidence, data):
    successes = data.draw(st.integers(0, count))
    found = metrics.wilson_interval(successes / count, count, confidence=confidence)
    theirs = stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(found, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("p", [0.02, 0.5, 0.9])
def test_wilson_interval_covers(p):
    """Exact coverage of the binomial, computed not sampled, is near 95 %."""
    count = 200
    covered = sum(
        stats.binom.pmf(k, count, p)
        for k in range(count + 1)
        if metrics.wilson_interval(k / count, count)[0] <= p
        and p <= metrics.wilson_interval(k / count, count)[1]
    )
    assert 0.92 < covered < 0.99


@pytest.mark.parametrize(("classes", "bound"), [(10, 0.8534), (2, 0.5379)])
def test_published_robustness_cannot_fall_below_its_bound(classes, bound):
    """Clean and adversarial predictions that are certain of different classes: the worst case."""
    clean, adversarial = np.full((2, 1, classes), -np.inf)
    clean[0, 0] = adversarial[0, 1] = 0.0
    found = metrics.published_softmax_robustness(clean, adversarial)
    assert found == pytest.approx(bound, abs=1e-4)
    assert metrics.softmax_robustness(clean, adversarial) == 0.0


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 30.0]))
def test_published_bound_holds_for_all_predictions(seed, scale):
    clean, adversarial = np.random.default_rng(seed).normal(0, scale, (2, 5, 10))
    clean -= np.logaddexp.reduce(clean, axis=-1, keepdims=True)
    adversarial -= np.logaddexp.reduce(adversarial, axis=-1, keepdims=True)
    assert metrics.published_softmax_robustness(clean, adversarial) > 0.853
    assert 0 <= metrics.softmax_robustness(clean, adversarial) <= 1


def test_equal_predictions_are_perfectly_robust():
    log_probs = np.log([[0.2, 0.8], [0.5, 0.5]])
    assert metrics.softmax_robustness(log_probs, log_probs) == 1.0
    assert metrics.accuracy(log_probs, np.array([1, 1])) == 0.5


def test_bad_shares_are_refused():
    with pytest.raises(ValueError, match=r"1\.2 of 10"):
        metrics.wilson_interval(1.2, 10)


def test_paired_difference_by_hand():
    """N = 10: two images only the second has, one only the first has."""
    first = [True] * 4 + [False] * 6
    second = [True] * 3 + [False] + [True] * 2 + [False] * 4
    value, low, high = metrics.paired_difference(first, second)
    centre, half = 1 / 12, 1.959964 * math.sqrt((4 / 12 - (1 / 12) ** 2) / 12)
    assert value == pytest.approx(0.1)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-6)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_paired_difference_is_antisymmetric(pairs):
    first, second = np.asarray(pairs).T
    value, low, high = metrics.paired_difference(first, second)
    assert metrics.paired_difference(second, first) == pytest.approx((-value, -high, -low))
    assert -1 <= low < high <= 1
    assert value == pytest.approx(second.mean() - first.mean())


def test_paired_difference_refuses_other_images():
    with pytest.raises(ValueError, match=r"same images.*\(2,\) and \(3,\)"):
        metrics.paired_difference([True, False], [True, False, True])
