"""The norm of an expectation without Monte Carlo part: closed forms, and coverage by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from bnn_adv.theory import expected_norm
from bnn_adv.theory.expected_norm import bound_square, estimate_square, group_draws, mean_products

# Shares of 500 intervals that hold the truth, at a coverage of 95 %.
LEAST, MOST = stats.binom.ppf([0.005, 0.995], 500, 0.95) / 500


def estimate_all(gradients, num_chains=None):
    """Estimates of repetitions of gradients [R, S, q] of one input."""
    groups = group_draws(gradients.shape[1], num_chains)
    starts = np.searchsorted(groups.of_draw, np.arange(groups.num_groups))
    sums = np.add.reduceat(gradients, starts, axis=1)
    means = sums / np.bincount(groups.of_draw)[:, None]
    return [estimate_square(each, groups.num_chains) for each in means @ means.swapaxes(1, 2)]


def estimate(gradients, num_chains=None):
    return estimate_all(gradients[None], num_chains)[0]


def cover(found, truth):
    _, low, high = np.transpose(found)
    return np.mean((low <= truth) & (truth <= high))


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 8), st.integers(0, 10**6), st.floats(-20, 20), st.floats(0, 3))
def test_square_is_the_mean_product_of_different_draws(size, seed, exponent, shift):
    each = (np.random.default_rng(seed).normal(size=(size, 4, 3)) + shift) * 10.0**exponent
    products = np.einsum("snd,tnd->stn", each, each)
    squares = np.trace(products) / size
    others = (products.sum(axis=(0, 1)) - size * squares) / (size * (size - 1))
    relative = mean_products(products, np.linalg.norm(each, axis=-1))
    found = estimate_square(relative, size)
    np.testing.assert_allclose(found.mean, np.mean(others / squares), rtol=1e-6, atol=1e-9)
    assert found.low <= found.mean <= found.high


@pytest.mark.parametrize(("size", "norm"), [(30, 0.0), (5, 0.1)])
def test_intervals_hold_the_truth_for_independent_draws(size, norm):
    """100 draws of covariance 1 / q: also where |mu| is zero, or below the error of a mean, 0.1."""
    rng = np.random.default_rng(size)
    draws = (rng.normal(size=(500, 100, size)) + norm) / np.sqrt(size)
    found = estimate_all(draws)
    assert LEAST <= cover(found, norm**2) <= MOST
    np.testing.assert_allclose(np.mean(found, axis=0)[0], norm**2, atol=4e-3)


def test_intervals_hold_the_truth_for_chains():
    """AR(1) chains of mean zero and correlation 0.8: 9 draws are worth one."""
    noise = np.random.default_rng(0).normal(size=(500, 2, 440, 10))
    chains = signal.lfilter([0.6], [1, -0.8], noise, axis=2)[:, :, 40:] / np.sqrt(10)
    draws = chains.reshape(500, 800, 10)
    found = estimate_all(draws, 2)
    assert LEAST <= cover(found, 0.0) <= MOST
    centres = np.transpose(found)[0]
    assert abs(centres.mean()) < 3 * centres.std() / 500**0.5
    # As if all draws were independent, products of 2 sqrt(2) / S or more would deny zero.
    squares, total = np.sum(draws**2, axis=(1, 2)), np.sum(draws.sum(axis=1) ** 2, axis=1)
    assert np.mean((total - squares) / (800 * 799) > 2 * np.sqrt(2) / 800) > 0.9


def test_draws_of_zero_mean_that_move_all_inputs_together_are_within_the_widest_interval():
    """The worst case of ``bound_square``: one direction."""
    rng = np.random.default_rng(1)
    for mean in (0.0, 0.3):
        draws = rng.normal(mean, np.sqrt(1 - mean**2), size=(500, 100))
        products = (draws.sum(axis=1) ** 2 - (draws**2).sum(axis=1)) / (100 * 99)
        found = [bound_square(product, 100) for product in products]
        assert cover(found, mean**2) >= LEAST
    # Closed form: t with (0.01 - t)^2 = 1.96^2 (4 t / S + 2 / (S (S - 1))).
    for end in bound_square(0.01, 100)[1:]:
        wanted = 1.96**2 * (0.04 * max(end, 0) + 2 / 9900)
        assert (0.01 - end) ** 2 == pytest.approx(wanted, rel=1e-4)


def test_equal_draws_have_their_norm_exactly():
    found = estimate(np.tile([[3.0, 4.0]], (40, 1)))
    assert found == pytest.approx((25, 25, 25))


def test_products_within_a_chain_are_not_used():
    """Chains that stand still at opposite points have an expectation no product within shows."""
    still = np.repeat([[1.0], [-1.0]], 20, axis=0)
    assert estimate(still, 2).mean == pytest.approx(-1)
    assert estimate(still).mean == pytest.approx(-1 / 19)
    # One chain leaves no product, two groups no interval.
    assert np.isnan(estimate(still, 1)).all()
    found = estimate(np.array([[2.0], [3.0]]), 2)
    assert found.mean == pytest.approx(6)
    assert np.isnan(found[1:]).all()


def test_inputs_without_gradients_are_left_out():
    products = np.ones((3, 3, 4))
    products[:, 0, 3] = np.nan
    draw_l2 = np.array([[1.0, 2.0, 0.0, 1.0]] * 3)
    np.testing.assert_allclose(mean_products(products, draw_l2), (1 + 0.25) / 2)
    assert np.isnan(mean_products(products[..., 2:], draw_l2[:, 2:])).all()
    assert np.isnan(estimate_square(np.full((3, 3), np.nan), 3)).all()


def test_groups_are_blocks_of_chains():
    independent = group_draws(100)
    assert (independent.num_groups, independent.num_chains) == (20, 20)
    np.testing.assert_array_equal(np.bincount(independent.of_draw), 5)
    chains = group_draws(36, 3)
    assert (chains.num_groups, chains.num_chains) == (21, 3)
    assert set(chains.of_draw[:12]) == set(range(7))
    few = group_draws(8, 2)
    np.testing.assert_array_equal(few.of_draw, np.arange(8))
    assert group_draws(7).num_groups == 7
    many = group_draws(2 * expected_norm.NUM_GROUPS + 1)
    assert set(np.bincount(many.of_draw)) == {2, 3}
    with pytest.raises(ValueError, match="got 7 draws and 2 chains"):
        group_draws(7, 2)
