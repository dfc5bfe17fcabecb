"""Means over repetitions, powers, and trends whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from bnn_adv.theory import trend


def test_intervals_and_powers():
    interval = trend.t_interval([1.0, 2.0, 3.0])
    # 4.303 standard errors of 1 / sqrt(3).
    assert interval == pytest.approx((2.0, 2 - 2.484, 2 + 2.484), abs=1e-3)
    assert str(trend.Interval(1.0, 0.5, 1.5)) == "1 [0.5, 1.5]"
    assert np.isnan(trend.t_interval([5.0]).low)
    # All equal, they have an interval too, of which SciPy's test warns.
    assert trend.t_interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)
    x = np.array([0.1, 1.0, 7.0])
    assert trend.log_slope(x, 3 * x**1.5) == pytest.approx(1.5)


@pytest.mark.parametrize("count", [2, 5, 40])
def test_intervals_are_scipys(count):
    values = np.random.default_rng(count).normal(1.0, 2.0, size=count)
    for confidence in (0.5, 0.95, 0.99):
        theirs = stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
        ours = trend.t_interval(values, confidence=confidence)
        np.testing.assert_allclose(ours[1:], theirs, rtol=1e-10)


def test_a_trend_is_every_step_and_not_only_the_ends():
    spread = 10 ** np.array([-0.02, 0.0, 0.01, 0.03])
    falling = trend.follow(np.array([[4.0], [2.0], [1.0]]) * spread)
    assert falling.falls is True
    np.testing.assert_allclose(falling.centres, [4, 2, 1], rtol=0.02)
    np.testing.assert_allclose([s.mean for s in falling.steps], -np.log10(2), atol=1e-9)
    # Smaller at the last level than at the first, and larger between.
    assert trend.follow(np.array([[2.0], [4.0], [1.0]]) * spread).falls is False
    # A step of the size of what repetitions differ by.
    level = np.stack([4 * spread, 2 * spread, 2 * spread[::-1]])
    assert trend.follow(level).falls is None
    assert "4, 2, 2 (steps: 10^-0.301" in str(trend.follow(level))
    # One repetition shows nothing; zeros have no logarithm and are no error.
    assert trend.follow(np.array([[2.0], [1.0], [0.0]])).falls is None


def test_levels_that_do_not_differ_rarely_rise():
    """Asking of four steps whether one rises is wrong in 5 % of cases at most, not in 10 %."""
    rng = np.random.default_rng(0)
    found = [trend.follow(10 ** rng.normal(size=(5, 4))).falls for _ in range(300)]
    assert np.mean([answer is False for answer in found]) < 0.05
    assert True not in found


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trend.t_interval([]), "one value at least"),
        (lambda: trend.log_slope([1.0, 2.0], [0.0, 1.0]), "two positive pairs"),
        (lambda: trend.follow(np.ones((1, 3))), "two levels at least, got shape"),
        (lambda: trend.follow(np.ones((3, 0))), "two levels at least, got shape"),
    ],
)
def test_trends_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()
