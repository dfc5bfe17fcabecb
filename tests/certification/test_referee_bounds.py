"""The referee's own CROWN: sound on sampled points, and the package's bounds to ten digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks.threat import L2, LInf
from bnn_adv.bounds.balls import open_ball
from bnn_adv.bounds.reading import read, trace
from bnn_adv.certification.predictive import Way as PackageWay
from bnn_adv.certification.predictive import bound_draw
from bnn_adv.certification.referee_balls import minimise
from bnn_adv.certification.referee_balls import open_ball as referee_ball
from bnn_adv.certification.referee_bounds import bound
from bnn_adv.certification.referee_lines import ACTIVATIONS, enclose
from bnn_adv.certification.referee_margins import (
    Way,
    bound_differences,
    bound_prediction,
    line_below,
    smallest_gap,
)
from bnn_adv.certification.referee_network import read as referee_read
from bnn_adv.certification.referee_network import trace as referee_trace
from tests.certification.referee_cases import draw_weights, mlp, relu_mlp, tanh_mlp

SHAPE = (4,)


def read_draws(apply_fn, weights):
    """Return the referee's networks, one a draw."""
    count = len(jax.tree.leaves(weights)[0])
    draws = [jax.tree.map(lambda w, s=s: w[s], weights) for s in range(count)]
    traced = referee_trace(apply_fn, draws[0], SHAPE)
    return draws, [referee_read(traced, draw, SHAPE) for draw in draws]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("apply_fn", "threat"), [(relu_mlp, LInf(0.06)), (tanh_mlp, L2(0.1))], ids=["linf", "l2"]
)
def test_the_package_bounds_logit_differences_like_a_crown_written_anew(apply_fn, threat):
    """Of single networks: lines pulled back, and the smallest difference that they prove."""
    rng = np.random.default_rng(0)
    draws, networks = read_draws(apply_fn, draw_weights(rng, 12, spread=0.5))
    x = rng.uniform(size=(8, *SHAPE)).astype(np.float32)
    y = rng.integers(3, size=8)
    traced = trace(apply_fn, draws[0], SHAPE)
    way = PackageWay(threat.norm, "mean_logits", "crown", 1024)

    @jax.jit
    def package(params, x, y):
        def one(x, y):
            own = open_ball(threat, x[None], jnp.float64(threat.epsilon))
            sums = bound_draw(read(traced, params, SHAPE), way, own, y)
            return sums.gap, sums.rows, sums.offset

        return jax.vmap(one)(x.astype(jnp.float64), y)

    ball = referee_ball(threat.norm, x, np.full(8, threat.epsilon), (0.0, 1.0))
    for draw, network in zip(draws, networks, strict=True):
        with jax.enable_x64(True):
            gap, rows, offset = map(np.asarray, package(draw, x, y))
        bounds = bound(network, ball, is_linear=True, most_rows=1024)
        a, b, _, upper = bound_differences(network, bounds, ball, y)
        np.testing.assert_allclose(-upper, gap, 1e-9, 1e-10)
        np.testing.assert_allclose(a, rows.reshape(a.shape), 1e-9, 1e-10)
        np.testing.assert_allclose(b, offset, 1e-9, 1e-10)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_lines_enclose_activations(kind):
    rng = np.random.default_rng(1)
    centre, width = rng.normal(size=3000) * 3, 10.0 ** rng.uniform(-13, 1.5, 3000)
    lower, upper = centre - width * rng.uniform(size=3000), centre + width * rng.uniform(size=3000)
    lower[:20], upper[20:40] = 0.0, 0.0
    lower[40:60] = upper[40:60]
    upper, fn = np.maximum(lower, upper), ACTIVATIONS[kind].fn
    share = np.concatenate([np.linspace(0, 1, 101), rng.uniform(size=20)])[:, None]
    z = np.clip(lower + share * (upper - lower), lower, upper)
    for at in (None, rng.normal(size=3000) * 4):
        lines = enclose(kind, lower, upper, at)
        assert (lines.lower_slope * z + lines.lower_offset <= fn(z)).all()
        assert (lines.upper_slope * z + lines.upper_offset >= fn(z)).all()
        # Both are near where the interval is small.
        gap = (lines.upper_slope - lines.lower_slope) * z
        gap += lines.upper_offset - lines.lower_offset
        assert (gap <= 1.01 * (upper - lower) + 1e-11).all()


def test_minima_and_lines_of_probabilities_are_below_them():
    rng = np.random.default_rng(2)
    centre = rng.normal(size=(500, 4)) * 10.0 ** rng.uniform(-2, 1.5, (500, 1))
    width = 10.0 ** rng.uniform(-10, 1.5, (500, 4))
    lower, upper = centre - width, centre + width
    lower[:, 0] = upper[:, 0] = 0.0
    slope, offset = line_below(lower, upper, rng.normal(size=(500, 4)) * 5)
    smallest = smallest_gap(lower, upper)
    nearest = np.full((500, 4), np.inf)
    ends = np.array(np.meshgrid(*[[0.0, 1.0]] * 4)).reshape(4, -1).T
    for share in np.concatenate([ends, rng.uniform(size=(300, 4))])[:, None]:
        d = lower + share[0] * (upper - lower)
        exp = np.exp(d - d.max(axis=1, keepdims=True))
        p = exp / exp.sum(axis=1, keepdims=True)
        gap = p[:, :1] - p
        assert (smallest <= gap).all()
        assert (slope * d + offset <= gap)[:, 1:].all()
        nearest = np.minimum(nearest, gap - smallest)
    assert (nearest < 1e-10).all()


def predict(apply_fn, draws, x, rule):
    """Return the prediction of all draws, in float64 but for the network."""
    logits = np.stack([np.asarray(apply_fn(draw, x), np.float64) for draw in draws])
    if rule == "mean_logits":
        return logits.mean(axis=0)
    exp = np.exp(logits - logits.max(axis=2, keepdims=True))
    return (exp / exp.sum(axis=2, keepdims=True)).mean(axis=0)


def sample(ball, rng, count):
    """Points of ball and box: half of them at ends."""
    d = ball.x.shape[1]
    share = rng.uniform(-1, 1, (count, d))
    share[::2] = np.sign(share[::2]) * (rng.uniform(size=(len(share[::2]), d)) < 0.7)
    if ball.norm != "linf":
        size = np.linalg.norm(share, 2 if ball.norm == "l2" else 1, axis=1, keepdims=True)
        share /= np.maximum(size, 1e-9)
    return np.clip(ball.x + ball.radius[0] * share, 0, 1).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize(
    "activation",
    [
        *(jax.nn.relu, jnp.tanh, jax.nn.sigmoid, jax.nn.softplus, jax.nn.leaky_relu, jnp.abs),
        lambda z: jnp.minimum(jnp.maximum(z, 0.3 * z - 0.1), 0.8),
    ],
    ids=["relu", "tanh", "sigmoid", "softplus", "leaky_relu", "abs", "max_min"],
)
def test_no_point_is_below_a_bound(norm, activation):
    """Whatever the places at which lines are made tight."""
    rng = np.random.default_rng([7, len(norm), sum(map(ord, repr(activation)[:12]))])
    apply_fn = mlp(activation)
    draws, networks = read_draws(apply_fn, draw_weights(rng, 3, spread=0.4))
    rule = "mean_logits" if norm == "l2" else "mean_probabilities"
    for epsilon in (0.0, 0.15, 0.6, 3.0):
        x = rng.uniform(size=(1, *SHAPE)).astype(np.float32)
        ball = referee_ball(norm, x, np.full(1, epsilon), (0.0, 1.0))
        y = predict(apply_fn, draws, x, rule).argmax(axis=1)
        shares = [rng.uniform(-1, 1, (2, 3, 4))]
        way = Way(rule, True, 1024)
        found = bound_prediction(networks.__getitem__, 3, ball, y, way, shares)
        values = predict(apply_fn, draws, sample(ball, rng, 400), rule)
        margin = values[:, y[0]] - np.delete(values, y[0], axis=1).max(axis=1)
        assert found.margin[0] <= margin.min() + found.rounding[0]
        assert 0 < found.rounding[0] < 1e-3
        if epsilon == 0:
            assert found.margin[0] > margin.min() - 1e-3


def reference_minimum(norm, ball, a):
    """The smallest ``a d`` on a fine grid of multipliers of the Lagrange dual."""
    low, high, radius = ball.low[0], ball.high[0], ball.radius[0]
    best = np.where(a > 0, a * low, a * high).sum()
    for scale in np.geomspace(1e-4, 1e3, 3000):
        if norm == "l2":
            d = np.clip(-a / (2 * scale), low, high)
            best = max(best, (a * d + scale * d**2).sum() - scale * radius**2)
        else:
            gain = np.maximum(np.abs(a) - scale, 0) * np.where(a > 0, -low, high)
            best = max(best, -gain.sum() - scale * radius)
    return best


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_minima_over_balls_are_those_of_the_dual(norm):
    rng = np.random.default_rng(5)
    for epsilon in (0.0, 0.1, 0.5, 2.0, 9.0):
        x = rng.uniform(size=(1, 5)).astype(np.float32)
        x[0, 0], x[0, 1] = 0, 1
        ball = referee_ball(norm, x, np.full(1, epsilon), (0.0, 1.0))
        a = rng.normal(size=5) * (rng.uniform(size=5) < 0.8)
        found = minimise(ball, a[None, None])[0, 0]
        reference = reference_minimum(norm, ball, a)
        assert reference - 1e-9 <= found <= reference + 1e-2 * epsilon + 1e-9
        # And no point of ball and box is below it.
        points = sample(ball, rng, 200).astype(np.float64) - ball.x
        assert found <= (points @ a).min() + 1e-9


def pooled(x):
    """Primitives of convolutional networks, one after the other."""
    x = jax.lax.conv_general_dilated(
        *(x, jnp.arange(18.0).reshape(3, 3, 1, 2) / 9 - 1, (2, 1), ((1, 0), (0, 2))),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        rhs_dilation=(1, 2),
    )
    x = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 1, 1), (1, 1, 1, 1), "VALID") / 2
    x = jax.lax.conv_general_dilated(
        *(x, jnp.linspace(-1, 1, 12).reshape(2, 3, 1, 2), (1, 1), "SAME"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 1), (1, 1, 2, 1), "VALID")


def shuffled(x):
    """Primitives that move numbers about, sums and maxima."""
    x = jnp.pad(x[:, ::-1, 1:], ((0, 0), (1, 0), (0, 2), (0, 0)), constant_values=0.5)
    x = jnp.concatenate([x.transpose(0, 2, 1, 3), 1 - 2 * x[:, :7].transpose(0, 2, 1, 3)], axis=2)
    first, second = jnp.split(x, 2, axis=1)
    x = jnp.where(jnp.arange(2)[:, None, None] > 0, first[:, :2, :, 0, None], second[:, :2, :, :])
    x = jnp.einsum("bijk,jl->bilk", x, jnp.cos(jnp.arange(x.shape[2] * 3.0)).reshape(-1, 3))
    return jnp.max(x, axis=2) - x.sum(axis=(2, 3), keepdims=True)[..., 0] / 3


@pytest.mark.parametrize("fn", [pooled, shuffled])
def test_networks_are_read_as_jax_computes_them(fn):
    def apply_fn(params, x):
        values = fn(x).reshape(x.shape[0], -1)
        return values @ jnp.ones((values.shape[1], 1)) * params + values[:, :1]

    x = np.random.default_rng(2).uniform(size=(3, 7, 7, 1)).astype(np.float32)
    params = jnp.arange(5.0)
    network = referee_read(referee_trace(apply_fn, params, (7, 7, 1)), params, (7, 7, 1))
    logits = np.asarray(apply_fn(params, x), np.float64)
    # A ball of radius 0 is as large as float32's rounding.
    ball = referee_ball("linf", x, np.zeros(3), (0.0, 1.0))
    found = bound(network, ball, is_linear=True, most_rows=1024).logits
    assert (np.abs(logits - (found.lower + found.upper) / 2) < 1e-3).all()
    assert (logits >= found.lower - found.error).all()
    assert (logits <= found.upper + found.error).all()
    assert (found.upper - found.lower < 2e-3).all()
