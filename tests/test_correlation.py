"""Rank correlation: closed forms, SciPy's value, and what has none."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from bnn_adv.correlation import Correlation, rank_correlation


def test_monotone_pairs_correlate_fully():
    x = np.arange(10.0)
    rising, falling = rank_correlation(x, np.exp(x)), rank_correlation(x, -(x**3))
    assert rising[:3] == pytest.approx((1, 1, 1))
    assert falling[:3] == pytest.approx((-1, -1, -1))
    assert (rising.sign, falling.sign, rising.num_pairs) == (1, -1, 10)
    assert str(rising) == "+1.00 [+1.00, +1.00], n = 10"


def test_ties_are_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (2, 40))
    y = y + x
    found = rank_correlation(x, y)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.low < found.value < found.high
    assert found == rank_correlation(x, y)


def test_independent_pairs_have_no_sign():
    covered = 0
    for seed in range(20):
        x, y = np.random.default_rng(seed).normal(size=(2, 60))
        covered += rank_correlation(x, y, seed=seed, num_resamples=200).sign == 0
    assert covered >= 16


@pytest.mark.parametrize(("x", "y"), [([1, 2, 3], [1, 2, 3]), ([1] * 6, range(6))])
def test_too_few_or_constant_values_have_none(x, y):
    assert rank_correlation(list(x), list(y)) is None


def test_resamples_without_variance_are_left_out():
    found = rank_correlation([0, 0, 0, 1], [0, 1, 2, 3])
    assert isinstance(found, Correlation)
    assert np.isfinite(found[:3]).all()


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one length"):
        rank_correlation([1, 2, 3, 4], [1, 2, 3])
