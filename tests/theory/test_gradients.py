"""Closed forms of loss gradients, their means over draws, and how they cancel."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import objectives
from bnn_adv.compute.disk import DiskDraws, store_in
from bnn_adv.inference.densities import Prior
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.theory import gradient_decay, gradients
from bnn_adv.theory.expected_norm import Groups, estimate_square, group_draws, mean_products
from tests.conftest import linear_apply


def expected_loss_gradients(rng_key, posterior, x, y, *, counts, **options):
    settings = gradients.GradientSettings(**options)
    return gradients.expected_loss_gradients(
        rng_key, posterior, x, y, counts=counts, settings=settings
    )


KEY = jax.random.key(0)


def linear_posterior(weights):
    """Linear classifiers without bias, weights [S, d, C]."""
    weights = jnp.asarray(weights, jnp.float32)
    return Posterior(linear_apply, {"w": weights, "b": jnp.zeros(weights.shape[::2])})


def softmax(logits):
    terms = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return terms / terms.sum(axis=-1, keepdims=True)


@pytest.fixture
def linear():
    rng = np.random.default_rng(2)
    weights, x = rng.normal(size=(5, 6, 3)), rng.uniform(size=(7, 2, 3)).astype(np.float32)
    return weights, x, np.arange(7) % 3


def test_linear_softmax_model_has_the_closed_form(linear):
    weights, x, y = linear
    groups = Groups(np.array([1, 0, 2, 0, 1]), 3, 3)
    posterior = linear_posterior(weights)
    result = expected_loss_gradients(KEY, posterior, x, y, counts=(1, 2, 5), groups=groups)
    probabilities = softmax(np.einsum("nd,sdc->snc", x.reshape(7, 6), weights))
    each = np.einsum("sdc,snc->snd", weights, probabilities - np.eye(3)[y])
    for mean, count in zip(result.means, (1, 2, 5), strict=True):
        np.testing.assert_allclose(mean.reshape(7, 6), each[:count].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(result.draw_linf, np.abs(each).max(axis=-1), atol=1e-5)
    np.testing.assert_allclose(result.draw_l2, np.linalg.norm(each, axis=-1), atol=1e-5)
    means = np.stack([each[[1, 3]].mean(axis=0), each[[0, 4]].mean(axis=0), each[2]])
    np.testing.assert_allclose(result.products, np.einsum("gnd,hnd->ghn", means, means), atol=1e-5)
    assert result.products.dtype == np.float64
    means = result.means.reshape(3, 7, 6)
    np.testing.assert_allclose(result.mean_linf[0], np.abs(means).max(axis=-1), rtol=1e-5)
    np.testing.assert_allclose(result.mean_l2[0], np.linalg.norm(means, axis=-1), rtol=1e-5)


def test_published_loss_has_the_closed_form(linear):
    weights, x, y = linear
    posterior = linear_posterior(weights[:1])
    result = expected_loss_gradients(KEY, posterior, x, y, counts=(1,), loss="double_softmax")
    p = softmax(x.reshape(7, 6) @ weights[0])
    outer = softmax(p) - np.eye(3)[y]
    inner = p * outer - p * (p * outer).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(result.means[0].reshape(7, 6), inner @ weights[0].T, atol=1e-6)
    assert result.products.shape == (0, 0, 7)


@pytest.mark.slow
def test_means_are_those_of_the_attacks_objective(posterior, batch):
    x, y = batch
    options = {"num_orders": 3, "batch_size": 4, "sample_chunk": 2}
    result = expected_loss_gradients(KEY, posterior, x, y, counts=(1, 4, 7), **options)
    for mean, count in zip(result.means, result.counts, strict=True):
        first = posterior.take(np.arange(count))
        objective = objectives.get_objective("expected_loss")
        wanted = objectives.value_and_gradient(objective, first, x, y).gradient
        np.testing.assert_allclose(mean, wanted, atol=1e-6)
    # Every order ends at the same mean, over all draws, and starts at some draw's own gradient.
    np.testing.assert_allclose(result.mean_l2[1:, -1], result.mean_l2[:2, -1], rtol=1e-4)
    starts = np.abs(result.mean_l2[:, :1] - result.draw_l2[None]).max(axis=-1)
    assert np.all(starts.min(axis=1) < 1e-6)
    assert len(set(starts.argmin(axis=1))) > 1


def test_draws_beyond_the_largest_count_enter_no_mean(posterior, batch):
    short = expected_loss_gradients(
        KEY, posterior, *batch, counts=(2,), groups=group_draws(posterior.num_samples)
    )
    first = expected_loss_gradients(KEY, posterior.take(np.arange(2)), *batch, counts=(2,))
    np.testing.assert_allclose(short.means, first.means, atol=1e-6)
    # Norms of all draws, and products of them all.
    assert short.draw_l2.shape == (7, 9)
    squares = np.diagonal(short.products).T
    np.testing.assert_allclose(squares, short.draw_l2**2, rtol=1e-4, atol=1e-9)


def test_draws_on_disk_give_the_same(posterior, batch, tmp_path):
    store_in(tmp_path / "draws")(posterior.samples)
    template = jax.tree.map(lambda w: w[0], posterior.samples)
    on_disk = dataclasses.replace(posterior, samples=DiskDraws(tmp_path / "draws", template))
    for one, other in zip(
        expected_loss_gradients(KEY, posterior, *batch, counts=(1, 7)),
        expected_loss_gradients(KEY, on_disk, *batch, counts=(1, 7)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_identical_draws_do_not_cancel(linear):
    weights, x, y = linear
    posterior = linear_posterior(np.repeat(weights[:1], 6, axis=0))
    groups = group_draws(6)
    result = expected_loss_gradients(KEY, posterior, x, y, counts=(1, 6), groups=groups)
    found = gradient_decay.cancellation(result)
    np.testing.assert_allclose(found.ratio, 1, atol=1e-5)
    summary = gradient_decay.summarise(KEY, result, groups.num_chains)
    np.testing.assert_allclose(summary["square"], 1, atol=1e-5)
    assert summary["num_group_chains"] == 6
    np.testing.assert_allclose(summary["products"], np.ones((6, 6)), atol=1e-5)
    np.testing.assert_allclose(found.chance, 6**-0.5, rtol=1e-5)
    fit = gradient_decay.fit_exponent(KEY, result.mean_linf, result.counts, num_resamples=50)
    np.testing.assert_allclose(fit, 0, atol=1e-5)


def test_antithetic_draws_cancel():
    """At x = 0 all classes are equally likely, and the gradient is linear in the weights."""
    weights = np.random.default_rng(0).normal(size=(4, 6, 3))
    posterior = linear_posterior(np.concatenate([weights, -weights]))
    x, y = np.zeros((3, 6), np.float32), np.arange(3)
    result = expected_loss_gradients(KEY, posterior, x, y, counts=(4, 8), groups=group_draws(8))
    np.testing.assert_allclose(result.means[1], 0, atol=1e-6)
    assert np.all(result.mean_linf[0, 0] > 0.01)
    found = gradient_decay.cancellation(result)
    np.testing.assert_allclose(found.ratio, 0, atol=1e-6)
    # Without a mean, the products of different draws sum to minus the squares: -1 / (S - 1).
    products = mean_products(result.products, result.draw_l2)
    assert estimate_square(products, 8).mean == pytest.approx(-1 / 7, rel=1e-4)


def test_saturated_logits_have_zero_gradients_and_no_ratio():
    posterior = linear_posterior(np.full((3, 6, 2), [5000.0, -5000.0]))
    x, y = np.ones((2, 6), np.float32), np.array([0, 1])
    result = expected_loss_gradients(KEY, posterior, x, y, counts=(1, 3))
    # The first is right and certain; the loss of the second still has a gradient.
    np.testing.assert_array_equal(gradient_decay.zero_share(result), [1, 0])
    found = gradient_decay.cancellation(result)
    np.testing.assert_array_equal(np.isnan(found.ratio), [True, False])
    estimate = gradient_decay.estimate_mean(KEY, found.ratio, num_resamples=20)
    np.testing.assert_allclose(estimate, 1, rtol=1e-5)
    zero = gradient_decay.fit_exponent(KEY, result.mean_linf[..., :1], result.counts)
    assert np.all(np.isnan(zero))


def test_a_draw_that_overflows_spoils_only_the_means_it_enters():
    weights = np.random.default_rng(0).normal(size=(4, 6, 3))
    weights[2] = np.inf
    x, y = np.ones((2, 6), np.float32), np.array([0, 1])
    result = expected_loss_gradients(
        KEY, linear_posterior(weights), x, y, counts=(1, 2, 4), groups=group_draws(4)
    )
    assert np.all(np.isfinite(result.means[:2]))
    np.testing.assert_array_equal(
        np.isfinite(result.products[..., 0]), np.outer([1, 1, 0, 1], [1, 1, 0, 1])
    )
    assert np.all(np.isnan(result.means[2]))
    np.testing.assert_array_equal(np.isfinite(result.draw_l2).all(axis=1), [1, 1, 0, 1])
    assert np.all(np.isnan(gradient_decay.zero_share(result)))
    fit = gradient_decay.fit_exponent(KEY, result.mean_l2, result.counts, num_resamples=20)
    assert np.isfinite(fit.value)


def test_tiny_gradients_have_an_l2_norm(linear):
    _, x, y = linear
    posterior = linear_posterior(np.full((1, 6, 3), [1e-25, 0, 0]))
    result = expected_loss_gradients(KEY, posterior, x, y, counts=(1,), groups=group_draws(1))
    np.testing.assert_allclose(result.draw_l2, result.draw_linf * 6**0.5, rtol=1e-5)
    assert np.all(result.draw_linf > 0)
    np.testing.assert_allclose(result.products[0], np.float64(result.draw_l2) ** 2, rtol=1e-5)


def test_independent_gradients_follow_the_monte_carlo_law():
    rng, counts = np.random.default_rng(0), np.array([1, 10, 100])
    each = rng.normal(size=(8, 100, 30, 20))
    means = np.stack([each[:, :count].mean(axis=1) for count in counts], axis=1)
    norms = np.linalg.norm(means, axis=-1)
    for statistic in ("median", "rms"):
        fit = gradient_decay.fit_exponent(
            KEY, norms, counts, statistic=statistic, num_resamples=100
        )
        assert fit.low < gradient_decay.MONTE_CARLO < fit.high
        assert fit.high - fit.low < 0.1
    # A part that all draws share stops the fall.
    floor = gradient_decay.fit_exponent(KEY, norms + 1, counts, num_resamples=100)
    assert floor.low > -0.4


def test_exponent_of_a_power_law_is_exact():
    norms = np.array([1.0, 10, 100])[None, :, None] ** -0.8 * np.array([1.0, 2, 5])
    fit = gradient_decay.fit_exponent(KEY, norms, np.array([1, 10, 100]), num_resamples=20)
    np.testing.assert_allclose(fit, -0.8, atol=1e-9)
    # A count at which the typical norm is zero has no logarithm.
    norms[:, 0] = 0
    fit = gradient_decay.fit_exponent(KEY, norms, np.array([1, 10, 100]), num_resamples=20)
    np.testing.assert_allclose(fit, -0.8, atol=1e-9)
    np.testing.assert_allclose(gradient_decay.typical_norm(norms)[:2], [0, 2 * 10**-0.8])


def test_bootstrap_interval_has_the_width_of_the_mean_and_leaves_out_nan():
    values = np.append(np.random.default_rng(0).normal(3, 2, 400), [np.nan, np.inf])
    estimate = gradient_decay.estimate_mean(KEY, values)
    assert estimate.value == pytest.approx(values[:400].mean())
    half = 1.96 * values[:400].std() / 20
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.15)
    assert estimate.value - estimate.low == pytest.approx(half, rel=0.15)
    assert estimate == gradient_decay.estimate_mean(KEY, values)
    assert np.isnan(gradient_decay.estimate_mean(KEY, values[400:]).value)


def test_prior_control_has_the_priors_scales(posterior):
    control = gradients.prior_control(KEY, posterior, 300, Prior(2.0))
    assert control.num_samples == 300
    assert control.apply_fn is posterior.apply_fn
    for leaf, own in zip(
        jax.tree.leaves(control.samples), jax.tree.leaves(posterior.samples), strict=True
    ):
        assert leaf.shape[1:] == own.shape[1:]
        assert abs(float(leaf.std()) - 2.0) < 5 * 2.0 / np.sqrt(2 * leaf.size)


def test_shuffles_keep_what_they_shuffle(posterior):
    y = np.arange(50) % 4
    shuffled = gradients.shuffle_labels(KEY, y)
    assert not np.array_equal(y, shuffled)
    np.testing.assert_array_equal(np.bincount(y), np.bincount(shuffled))
    np.testing.assert_array_equal(shuffled, gradients.shuffle_labels(KEY, y))
    kernel = posterior.samples["hidden_0"]["kernel"]
    mixed = gradients.shuffle_draws(KEY, posterior).samples["hidden_0"]["kernel"]
    assert not np.array_equal(mixed, kernel)
    np.testing.assert_array_equal(np.sort(mixed, axis=0), np.sort(kernel, axis=0))


def test_groups_follow_the_draws_that_are_shuffled(posterior):
    groups = group_draws(6, 2)
    kept = posterior.take(np.arange(6))
    kernel = np.asarray(kept.samples["hidden_0"]["kernel"])
    mixed = np.asarray(gradients.shuffle_draws(KEY, kept).samples["hidden_0"]["kernel"])
    own = gradients.shuffle_groups(KEY, groups)
    assert not np.array_equal(own.of_draw, groups.of_draw)
    for draw, group in zip(mixed, own.of_draw, strict=True):
        np.testing.assert_array_equal(draw, kernel[groups.of_draw == group][0])


def test_selections():
    norms = np.array([[1.0, 0, 2, 3, 1], [1, 0, 3, 2, 0.5], [0.5, 0, 1, 1, 0.5]])
    published = gradients.select_inputs(KEY, norms, 2, "published")
    # Input 1 starts at zero, input 2 rises once.
    np.testing.assert_array_equal(published, [0, 3])
    np.testing.assert_array_equal(gradients.select_inputs(KEY, norms, 9, "published"), [0, 3, 4])
    chosen = gradients.select_inputs(KEY, norms, 3)
    assert len(set(chosen)) == 3
    np.testing.assert_array_equal(chosen, gradients.select_inputs(KEY, norms[::-1], 3))
    with pytest.raises(ValueError, match=r"Known: seed, published\."):
        gradients.select_inputs(KEY, norms, 1, "best")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": (1, 8)}, r"rise within 1\.\.7"),
        ({"counts": (2, 2)}, "rise within"),
        ({"counts": (0, 2)}, "rise within"),
        ({"counts": ()}, "rise within"),
        ({"loss": "hinge"}, "Known: cross_entropy, double_softmax"),
        ({"num_orders": 0}, "num_orders must be at least 1"),
        ({"groups": group_draws(5)}, "one group for each of 7 draws, got 5"),
        ({"y": np.zeros(3, int)}, "9 inputs and 3 labels"),
    ],
)
def test_wrong_arguments_are_named(posterior, batch, changes, message):
    arguments = {"x": batch[0], "y": batch[1], "counts": (1,)} | changes
    with pytest.raises(ValueError, match=message):
        expected_loss_gradients(KEY, posterior, **arguments)


def test_unknown_statistic_is_named():
    with pytest.raises(ValueError, match="Known: median, rms"):
        gradient_decay.typical_norm(np.ones((1, 2, 3)), "mode")
