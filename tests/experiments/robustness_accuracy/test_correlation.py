"""Rank correlation: closed forms, SciPy's values, coverage, and what has none."""

import itertools

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from experiments.robustness_accuracy.correlation import rank_correlation, spearman_interval


def test_monotone_pairs_correlate_fully():
    x = np.arange(10.0)
    rising, falling = rank_correlation(x, np.exp(x)), rank_correlation(x, -(x**3))
    assert (rising.value, rising.high) == pytest.approx((1, 1))
    assert (falling.value, falling.low) == pytest.approx((-1, -1))
    assert 0.9 < rising.low < 1
    assert rising.low == pytest.approx(-falling.high)
    assert (rising.sign, falling.sign, rising.num_pairs) == (1, -1, 10)
    assert str(rising) == "+1.00 [+0.96, +1.00], p = 0.0002, n = 10"


def test_ties_are_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (2, 40))
    y = y + x
    found = rank_correlation(x, y)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.low < found.value < found.high
    assert found == rank_correlation(x, y)
    shuffled = rng.permuted(y)
    weak = rank_correlation(x, shuffled)
    assert weak.p_value == pytest.approx(spearmanr(x, shuffled).pvalue, abs=0.02)


def test_the_interval_is_bonetts_and_wrights():
    found = rank_correlation([1, 2, 3, 4, 5, 6, 7], [2, 1, 3, 5, 4, 7, 6])
    half = 1.959964 * np.sqrt((1 + found.value**2 / 2) / 4)
    ends = np.tanh(np.arctanh(found.value) + np.array([-half, half]))
    assert (found.low, found.high) == pytest.approx(tuple(ends))


@pytest.mark.parametrize(("size", "signs"), [(4, 0), (5, 2)])
def test_few_pairs_have_a_sign_as_often_as_the_exact_test_allows(size, signs):
    """Over all orders of the second: never of four, of five in full order only."""
    x = np.arange(size)
    found = [rank_correlation(x, order) for order in itertools.permutations(x)]
    assert sum(each.sign != 0 for each in found) == signs
    for each in found:
        assert each.low < each.high
        assert each.low <= each.value <= each.high
    assert min(each.p_value for each in found) == pytest.approx(2 / len(found))


def test_independent_pairs_rarely_have_a_sign():
    rng = np.random.default_rng(1)
    pairs = [rng.normal(size=(2, size)) for size in range(6, 13) for _ in range(60)]
    found = [rank_correlation(*each, num_resamples=999).sign != 0 for each in pairs]
    # 5 % within three standard errors.
    assert np.mean(found) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(found))


@pytest.mark.parametrize("size", [10, 20, 60])
@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_intervals_cover_the_correlation_of_normal_pairs(size, rho):
    x, noise = np.random.default_rng(2).normal(size=(2, 2000, size))
    ranks = [rankdata(values, axis=1) for values in (x, rho * x + np.sqrt(1 - rho**2) * noise)]
    differences = ((ranks[0] - ranks[1]) ** 2).sum(axis=1)
    ends = [spearman_interval(1 - 6 * d / (size**3 - size), size) for d in differences]
    truth = 6 / np.pi * np.arcsin(rho / 2)
    # 95 % within three standard errors, and a little above for few pairs.
    assert 0.935 < np.mean([low <= truth <= high for low, high in ends]) < 0.975


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1] * 6, range(6)),
        ([1, 2, 3, np.nan], [1, 2, 3, 4]),
        (range(5), [1, 2, np.inf, 4, 5]),
    ],
)
def test_too_few_constant_or_unknown_values_have_none(x, y):
    assert rank_correlation(list(x), list(y)) is None


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one length"):
        rank_correlation([1, 2, 3, 4], [1, 2, 3])
