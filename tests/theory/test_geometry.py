"""Gradients along and across manifolds, training traces, Lemma 4 and mean gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bnn_adv import networks
from bnn_adv.data.manifolds import Description, embedding_frame, sample_manifold
from bnn_adv.inference.densities import Data
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.theory import averages, convergence, mirror, parts, trend

NETWORK = networks.MLP((12,), 2, "tanh")
APPLY = networks.get_apply_fn(NETWORK)

# One program each, in place of one for every operation.
input_gradient = jax.jit(parts.input_gradient, static_argnums=(0, 1))
split_gradient = jax.jit(parts.split_gradient)


def make_params(dim, seed=0, network=NETWORK):
    return networks.init_params(jax.random.key(seed), network, (dim,))


@pytest.fixture(scope="module")
def moons():
    return sample_manifold(Description("half_moons", 4), 9)


@pytest.mark.parametrize("name", ["half_moons", "s_surface", "square"])
def test_parts_add_up_and_are_orthogonal(name):
    points = sample_manifold(Description(name, 4), 20)
    gradient = np.random.default_rng(0).standard_normal((3, 20, 4)).astype(np.float32)
    found = split_gradient(jnp.asarray(gradient), points.tangent, points.normal)
    np.testing.assert_allclose(found.tangent + found.normal, gradient, atol=1e-5)
    np.testing.assert_allclose(np.sum(found.tangent * found.normal, axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(
        found.tangent_norm**2 + found.normal_norm**2, np.sum(gradient**2, axis=-1), rtol=1e-4
    )


def test_full_dimension_leaves_nothing_across():
    points = sample_manifold(Description("square", 2), 5)
    gradient = jnp.ones((5, 2))
    found = split_gradient(gradient, points.tangent, points.normal)
    np.testing.assert_allclose(found.tangent, gradient, atol=1e-6)
    assert not found.normal_norm.any()


def test_bases_must_fit(moons):
    with pytest.raises(ValueError, match=r"need bases \[N, d, k\]"):
        split_gradient(jnp.ones((9, 3)), moons.tangent, moons.normal)


@pytest.mark.slow
def test_tangent_part_is_the_slope_of_moves_on_the_manifold():
    """Along the circle the function's slope is the tangent part, whatever happens across."""
    step = 1e-2
    angle = np.linspace(0.1, 6.0, 7)
    near = [
        jnp.asarray(np.stack([np.cos(a), np.sin(a)], axis=-1), jnp.float32)
        for a in (angle - step, angle, angle + step)
    ]
    tangent = np.stack([-np.sin(angle), np.cos(angle)], axis=-1)[..., None]
    normal = np.stack([np.cos(angle), np.sin(angle)], axis=-1)[..., None]
    params, y = make_params(2), jnp.zeros(7, jnp.int32)
    gradient = input_gradient(parts.log_odds, APPLY, params, near[1], y)
    found = split_gradient(gradient, tangent, normal)
    slopes = parts.log_odds(APPLY(params, near[2]), y) - parts.log_odds(APPLY(params, near[0]), y)
    np.testing.assert_allclose(
        np.sum(found.tangent * tangent[..., 0], axis=-1), slopes / (2 * step), atol=2e-3
    )


@pytest.mark.slow
def test_loss_gradient_is_the_score_s_times_the_error(moons):
    """Grad L = -(1 - p_y) grad m: the loss has no direction of its own."""
    params, x, y = make_params(4), jnp.asarray(moons.x), jnp.asarray(moons.y)
    loss, score = (
        input_gradient(scalar, APPLY, params, x, y) for scalar in parts.LOSSES["cross_entropy"]
    )
    p = jnp.take_along_axis(jax.nn.softmax(APPLY(params, x)), y[:, None], axis=-1)
    np.testing.assert_allclose(loss, -(1 - p) * score, atol=1e-6)
    outputs = APPLY(params, x)
    np.testing.assert_allclose(jax.nn.sigmoid(parts.log_odds(outputs, y)), p[:, 0], rtol=1e-5)


def test_zero_loss_has_no_gradient_in_any_direction(moons):
    y = jnp.asarray(moons.y)
    x = jnp.asarray(moons.x)

    def perfect(params, inputs):
        # Right on the manifold, with slopes across it.
        off = ((inputs - x) * params).sum(axis=-1, keepdims=True)
        return jax.nn.one_hot(y, 2) + off

    loss, score = parts.LOSSES["squared"]
    slopes = jnp.arange(4.0)
    assert not input_gradient(loss, perfect, slopes, x, y).any()
    np.testing.assert_allclose(
        input_gradient(score, perfect, slopes, x, y), jnp.tile(slopes, (9, 1)), atol=1e-6
    )


def test_draw_gradients_are_each_draw_s_own(moons):
    draws = [make_params(4, seed) for seed in range(3)]
    posterior = Posterior.stack(APPLY, draws)
    x, y = jnp.asarray(moons.x), jnp.asarray(moons.y)
    found = parts.draw_gradients(parts.cross_entropy, posterior, x, y, sample_chunk=2)
    for index, params in enumerate(draws):
        own = input_gradient(parts.cross_entropy, APPLY, params, x, y)
        np.testing.assert_allclose(found[index], own, atol=1e-6)


@pytest.fixture(scope="module")
def trained(moons):
    points = sample_manifold(Description("half_moons", 4), 256)
    probe = convergence.Probe(*map(jnp.asarray, moons[:4]))
    data = Data(jnp.asarray(points.x), jnp.asarray(points.y))
    # Labels beyond the examples in use are wrong: they must not be seen.
    data = Data(data.x, jnp.where(jnp.arange(256) < 128, data.y, 1 - data.y))
    test = Data(jnp.asarray(moons.x), jnp.asarray(moons.y))
    keys = jax.random.split(jax.random.key(0), 2)
    return convergence.train(
        keys,
        data,
        128,
        test,
        probe,
        jnp.array([5, 600]),
        0.03,
        convergence.Recipe(NETWORK, minibatch_size=32),
    )


@pytest.mark.slow
def test_training_learns_from_the_examples_in_use(trained, moons):
    params, trace = trained
    assert trace.train_loss.shape == (2, 2)
    assert trace.loss_normal.shape == (2, 2, 9)
    assert np.all(trace.train_loss[:, 1] < 0.2)
    assert np.all(trace.train_loss[:, 1] < trace.train_loss[:, 0])
    assert np.mean(trace.test_error[:, 1]) < 0.15
    # What the trace says of the last step is true of the weights that are returned.
    one = jax.tree.map(lambda w: w[1], params)
    x, y = jnp.asarray(moons.x), jnp.asarray(moons.y)
    gradient = input_gradient(parts.log_odds, APPLY, one, x, y)
    own = split_gradient(gradient, moons.tangent, moons.normal)
    np.testing.assert_allclose(trace.score_normal[1, 1], own.normal_norm, rtol=1e-4)
    np.testing.assert_allclose(trace.score_tangent[1, 1], own.tangent_norm, rtol=1e-3, atol=1e-4)
    assert not np.allclose(params["logits"]["kernel"][0], params["logits"]["kernel"][1])


def test_largest_fall_of_a_linear_function_is_slope_times_radius():
    network = networks.MLP((), 2)
    kernel = jnp.asarray([[0.0, 3.0], [0.0, 4.0]])
    params = {"logits": {"kernel": kernel[None], "bias": jnp.asarray([[0.0, -1.0]])}}
    x, y = jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32)
    for radius, is_broken in ((0.1, False), (0.3, True)):
        fall, broken = convergence.largest_fall(params, x, y, radius, network=network)
        np.testing.assert_allclose(fall, 5 * radius, rtol=1e-4)
        assert bool(broken[0, 0]) == is_broken


@pytest.mark.slow
def test_reflection_is_the_exact_construction_across_a_subspace():
    shape = Description("half_moons", 50)
    points, frame = sample_manifold(shape, 30), jnp.asarray(embedding_frame(shape), jnp.float32)
    params = make_params(50)
    other = mirror.reflect(params, frame)
    x, y = jnp.asarray(points.x), jnp.asarray(points.y)
    np.testing.assert_allclose(APPLY(params, x), APPLY(other, x), atol=1e-5)
    old, new = (
        np.asarray(input_gradient(parts.cross_entropy, APPLY, p, x, y)) for p in (params, other)
    )
    inside = np.asarray(frame) @ np.asarray(frame).T
    np.testing.assert_allclose(new @ inside, old @ inside, atol=1e-5)
    np.testing.assert_allclose(new - new @ inside, -(old - old @ inside), atol=1e-5)
    assert np.abs(old - old @ inside).max() > 0.01
    # Equal prior density, and the reflection of the reflection is the network itself.
    norms = [sum(float(jnp.sum(w**2)) for w in jax.tree.leaves(p)) for p in (params, other)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    back = mirror.reflect(other, frame)
    np.testing.assert_allclose(back["hidden_0"]["kernel"], params["hidden_0"]["kernel"], atol=1e-5)


def test_reflection_names_the_layer_that_it_needs():
    with pytest.raises(ValueError, match=r"needs a layer 'hidden_0' with a kernel \[7, width\]"):
        mirror.reflect(make_params(4), jnp.eye(7, 2))


@pytest.mark.slow
def test_lemma_4_on_a_circle():
    """Curved in its plane, so that no reflection does it."""
    network = networks.MLP((24,), 2, "tanh")
    apply_fn = networks.get_apply_fn(network)
    params = make_params(2, 1, network)
    points, held_out = (sample_manifold(Description("circle"), n, seed=n) for n in (40, 200))
    settings = mirror.Config(num_stages=4, num_steps=16)
    x, y = jnp.asarray(points.x[0]), jnp.asarray(points.y[0])
    found = mirror.mirror(
        params,
        x,
        y,
        jnp.asarray(points.normal[0]),
        jnp.asarray(points.x),
        jnp.asarray(held_out.x),
        apply_fn=apply_fn,
        config=settings,
    )
    assert bool(found.succeeds(settings))
    assert float(found.cosine) == pytest.approx(-1, abs=1e-4)
    assert float(found.relative_error) < 0.05
    # The record is true of the weights that come with it.
    change = [jax.nn.softmax(apply_fn(p, jnp.asarray(held_out.x))) for p in (params, found.params)]
    assert float(jnp.abs(change[1] - change[0]).max()) == pytest.approx(
        float(found.max_difference), rel=1e-3
    )
    gradient = input_gradient(parts.cross_entropy, apply_fn, found.params, x[None], y[None])
    own = split_gradient(gradient, points.tangent[:1], points.normal[:1])
    np.testing.assert_allclose(own.normal[0], found.after, atol=1e-5)
    norms = [sum(float(jnp.sum(w**2)) for w in jax.tree.leaves(p)) for p in (params, found.params)]
    assert float(found.log_prior_change) == pytest.approx((norms[0] - norms[1]) / 2, rel=1e-2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_stages": 0}, "num_stages must be at least 1, got 0"),
        ({"tolerance": 2.0}, "tolerance must be below 1, got 2.0"),
        ({"num_stages": 9, "num_steps": 8}, r"num_stages must be at most num_steps \(8\), got 9"),
        ({"cosine": 0.0}, "cosine must be below 0, got 0.0"),
        ({"damping": 0.0}, "damping must be above 0, got 0.0"),
    ],
)
def test_mirror_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        mirror.Config(**settings)


def test_gradients_without_a_direction_cancel():
    """Independent Gaussian gradients: S^(-1/2), and a share that is not told from zero."""
    gradients = np.random.default_rng(0).standard_normal((4000, 30, 3))
    found = averages.mean_gradient(gradients, 4, [1, 10, 100, 1000])
    assert trend.log_slope(found.counts, found.norms) == pytest.approx(-0.5, abs=0.05)
    assert abs(averages.signed_root(found.square)) < 0.02
    assert found.zeros == 0


def test_gradients_that_agree_do_not_cancel():
    rng = np.random.default_rng(0)
    direction = np.array([1.0, 2.0, 2.0])
    gradients = direction + 0.01 * rng.standard_normal((40, 5, 3))
    found = averages.mean_gradient(gradients, 2, [1, 40])
    assert found.square == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(found.norms, 3, rtol=0.02)
    assert found.typical == pytest.approx(3, rel=0.02)


def squares(mean, shape, seed, num_draws=12):
    """Squared shares of repetitions of 4 chains at 3 points, one of them a copy."""
    draws = mean + np.random.default_rng(seed).standard_normal((*shape, num_draws, 2, 1))
    return averages.share_square(draws[..., [0, 1, 1], :], 4)


def test_squares_are_unbiased_and_not_cut_off():
    """|E g| / E|g| of a scalar N(m, 1) is known; plugging in the mean's norm would exceed it."""
    draws = np.random.default_rng(1).standard_normal(200_000)
    for mean in (0.0, 0.3):
        exact = (mean / np.mean(np.abs(mean + draws))) ** 2
        found = squares(mean, (1000,), 1, num_draws=120)
        assert found.min() < 0
        assert np.mean(found) == pytest.approx(exact, abs=3 * found.std() / 1000**0.5)


def test_the_interval_of_a_share_holds_zero_in_95_percent():
    """500 studies of 5 repetitions of 3 settings, all of expectation zero."""
    found = squares(0.0, (500, 5, 3), 0)
    intervals = np.array([averages.share_interval(study.mean(axis=1)) for study in found])
    coverage = np.mean((intervals[:, 1] <= 0) & (intervals[:, 2] >= 0))
    least, most = stats.binom.ppf([0.005, 0.995], 500, 0.95) / 500
    assert least <= coverage <= most
    # Cut off at zero before the mean, the share of most studies is above zero.
    cut = np.sqrt(np.maximum(found, 0)).mean(axis=2)
    assert np.mean([trend.t_interval(study).low <= 0 for study in cut]) < least


def test_a_share_keeps_the_sign_of_its_square():
    interval = averages.share_interval([0.04] * 3)
    assert interval == pytest.approx((0.2, 0.2, 0.2))
    low, high = averages.share_interval([-0.02, 0.0, 0.02])[1:]
    assert low == pytest.approx(-high)
    assert high**2 == pytest.approx(4.303 * 0.02 / 3**0.5, rel=1e-3)
    assert averages.signed_root(-0.25) == -0.5
    assert np.isnan(averages.share_interval([0.04]).low)


@pytest.mark.parametrize(
    ("num_groups", "counts", "message"),
    [
        (3, [1], "divide the number of draws"),
        (2, [5], "between 1 and 4"),
    ],
)
def test_averages_refuse(num_groups, counts, message):
    with pytest.raises(ValueError, match=message):
        averages.mean_gradient(np.ones((4, 1, 1)), num_groups, counts)
