"""Bounds for training against brute force, exact cases, and the network at a radius of zero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bnn_adv import networks
from bnn_adv.bounds import CertificationError
from bnn_adv.bounds.intervals import Box, bound_differences
from bnn_adv.networks.convnet import max_pool

METHODS = pytest.mark.parametrize("method", ["interval", "crown_ibp"])
ACTIVATIONS = pytest.mark.parametrize("activation", ["relu", "tanh"])
X = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 2)), jnp.float32).at[0, 0].set(0.0)
Y = jnp.arange(6, dtype=jnp.int32) % 3


@functools.cache
def network_of(activation, hidden=(4, 3)):
    network = networks.MLP(hidden, 3, activation)
    draw = networks.init_params(jax.random.key(0), network, (2,))
    noise = [jax.random.normal(jax.random.key(i), w.shape) for i, w in enumerate(leaves(draw))]
    draw = jax.tree.unflatten(jax.tree.structure(draw), noise)
    return networks.get_apply_fn(network), draw


def leaves(tree):
    return jax.tree.leaves(tree)


def differences(apply_fn, draw, x, y=Y):
    logits = apply_fn(draw, x)
    return logits - jnp.take_along_axis(logits, y[:, None], axis=1)


@functools.partial(jax.jit, static_argnames=("apply_fn", "method"))
def bound(apply_fn, draw, x, epsilon, method):
    box = Box(jnp.full(len(x), epsilon, x.dtype))
    return bound_differences(apply_fn, draw, x, Y[: len(x)], box, method=method)


def grid_of(x, epsilon, side=41):
    """All points of a fine grid of ball and box, corners included, [side^2, B, 2]."""
    low, high = np.maximum(x - epsilon, 0), np.minimum(x + epsilon, 1)
    shares = np.stack(np.meshgrid(*[np.linspace(0, 1, side)] * 2), axis=-1).reshape(-1, 1, 2)
    return jnp.asarray(low + shares * (high - low), jnp.float32)


@METHODS
@pytest.mark.parametrize("activation", ["relu", "tanh", "leaky_relu"])
@pytest.mark.parametrize("epsilon", [0.05, 0.4])
def test_no_point_of_a_fine_grid_is_above_the_bound(method, activation, epsilon):
    apply_fn, draw = network_of(activation)
    found = bound(apply_fn, draw, X, epsilon, method)
    worst = jax.vmap(lambda x: differences(apply_fn, draw, x))(grid_of(X, epsilon)).max(axis=0)
    assert (np.asarray(found) >= np.asarray(worst) - 1e-5).all()
    assert (np.asarray(found)[np.arange(6), Y] == 0).all()


@ACTIVATIONS
def test_lines_are_never_looser_than_intervals(activation):
    apply_fn, draw = network_of(activation)
    gaps = [
        np.asarray(
            bound(apply_fn, draw, X, e, "interval") - bound(apply_fn, draw, X, e, "crown_ibp")
        )
        for e in (0.05, 0.4)
    ]
    assert min(gap.min() for gap in gaps) >= 0
    assert max(gap.max() for gap in gaps) > 0.1


@METHODS
def test_of_a_linear_network_the_bound_is_the_worst_corner(method):
    apply_fn, draw = network_of("relu", ())
    found = bound(apply_fn, draw, X, 0.3, method)
    worst = jax.vmap(lambda x: differences(apply_fn, draw, x))(grid_of(X, 0.3, 2)).max(axis=0)
    np.testing.assert_allclose(found, worst, atol=1e-6)


@METHODS
@ACTIVATIONS
def test_a_ball_of_nothing_is_the_network_and_so_are_its_gradients(method, activation):
    apply_fn, draw = network_of(activation)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(6, 3)), jnp.float32)

    def of_bounds(draw):
        return (weights * bound(apply_fn, draw, X, 0.0, method)).sum()

    def of_network(draw):
        return (weights * differences(apply_fn, draw, X)).sum()

    ours, theirs = (jax.value_and_grad(fn)(draw) for fn in (of_bounds, of_network))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


@METHODS
def test_gradients_are_those_of_the_bound(method):
    """Against finite differences along a direction, in float64."""
    with jax.enable_x64(True):
        apply_fn, draw = network_of("tanh")
        draw = jax.tree.map(lambda w: w.astype(jnp.float64), draw)
        x = X.astype(jnp.float64)
        move = jax.tree.map(lambda w: jnp.cos(jnp.arange(w.size)).reshape(w.shape), draw)

        @jax.jit
        def along(t):
            moved = jax.tree.map(lambda w, m: w + t * m, draw, move)
            return bound(apply_fn, moved, x, 0.1, method).sum()

        slope = (along(1e-5) - along(-1e-5)) / 2e-5
        np.testing.assert_allclose(jax.grad(along)(0.0), slope, rtol=1e-4)


class _Pools(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(2, (2, 2), padding="VALID", name="conv")(x))
        x = max_pool(x, stride=1)
        return nn.Dense(2, name="logits")(x.reshape(x.shape[0], -1))


def test_pools_of_convolutions_are_bounded_by_both_and_exact_at_zero():
    network = _Pools()
    draw = networks.init_params(jax.random.key(2), network, (4, 4, 1))
    apply_fn = networks.get_apply_fn(network)
    x = jnp.asarray(np.random.default_rng(3).uniform(size=(2, 4, 4, 1)), jnp.float32)
    steps = np.random.default_rng(4).choice([-0.2, 0.2], (500, *x.shape))
    y = Y[:2]
    points = jnp.clip(x + steps, 0, 1).astype(jnp.float32)
    worst = jax.vmap(lambda x: differences(apply_fn, draw, x, y))(points).max(axis=0)
    for method in ("interval", "crown_ibp"):
        assert (bound(apply_fn, draw, x, 0.2, method) >= worst - 1e-5).all()
        exact = bound(apply_fn, draw, x, 0.0, method)
        np.testing.assert_allclose(exact, differences(apply_fn, draw, x, y), atol=1e-5)


def test_a_network_without_bounds_is_refused_by_name():
    with pytest.raises(CertificationError, match="cos"):
        bound(lambda draw, x: jnp.cos(x @ draw), jnp.ones((2, 3)), X, 0.1, "interval")


def subtracting(draw, x):
    hidden = draw["hidden_0"]
    z = hidden["bias"] - x @ hidden["kernel"]
    return -(jax.nn.relu(z) - jax.nn.relu(1 - z))[:, :3]


def test_what_is_subtracted_moves_too():
    draw = network_of("relu")[1]
    found = bound(subtracting, draw, X, 0.2, "interval")
    worst = jax.vmap(lambda x: differences(subtracting, draw, x))(grid_of(X, 0.2)).max(axis=0)
    assert (np.asarray(found) >= np.asarray(worst) - 1e-5).all()
