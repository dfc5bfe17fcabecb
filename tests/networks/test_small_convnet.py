"""The small network of strided convolutions: its sizes, both of its forms, attacks and bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import bnn_adv
from bnn_adv import networks
from bnn_adv.attacks import pgd, run_attack
from bnn_adv.attacks.objectives import get_objective
from bnn_adv.networks.layers import list_layers
from bnn_adv.posteriors.posterior import predict_log_probs

SHAPE = (6, 6, 1)
SETTINGS = bnn_adv.CertificationSettings(method="crown-ibp")


def make(convolution, num_draws=2):
    """Return draws of a tiny network; its second kernel is as small as what it is laid on."""
    network = networks.SmallConvNet((3, 4), 6, 3, "leaky_relu", convolution)
    keys = jax.random.split(jax.random.key(0), num_draws)
    draws = jax.vmap(lambda key: networks.init_params(key, network, SHAPE))(keys)
    return bnn_adv.Posterior(networks.get_apply_fn(network), jax.tree.map(lambda w: 3 * w, draws))


def images(count):
    return np.random.default_rng(1).uniform(size=(count, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_network_of_the_registry_has_the_same_members(name):
    module = networks.find_network(name)
    config, shape = module.Config(), (28, 28, 1)
    network = module.build(config, 3)
    assert module.describe(config)
    layers = list_layers(network, shape)
    assert layers[-1].outputs == (3,)
    # Flax numbers what has no name of its own: Dense_0.
    assert all(layer.name == layer.name.lower() for layer in layers)
    assert "convolution" not in module.Config.__annotations__ or config.convolution == "auto"


def test_small_network_is_the_published_one():
    """16 and 32 channels of 4x4, 100 units: 28x28 becomes 13x13, then 10x10."""
    network = networks.find_network("small_conv").build(networks.small_convnet.Config(), 10)
    shapes = flatten_dict(
        jax.eval_shape(lambda: networks.init_params(jax.random.key(0), network, (28, 28, 1)))
    )
    kernels = {name[0]: leaf.shape for name, leaf in shapes.items() if name[1] == "kernel"}
    assert kernels == {
        "conv_0": (4, 4, 1, 16),
        "conv_1": (4, 4, 16, 32),
        "hidden_0": (3200, 100),
        "logits": (100, 10),
    }
    first, second, *_ = list_layers(network, (28, 28, 1))
    assert (first.stride, first.outputs) == (2, (13, 13, 16))
    assert (second.stride, second.outputs) == (1, (10, 10, 32))
    # On the embedded digits three by three pixels are left, on which no kernel of four fits.
    assert list_layers(network, (8, 8, 1))[1].outputs == (1, 1, 32)


@pytest.mark.parametrize("stride", [2, 3])
def test_strided_patches_are_every_nth_patch_and_so_is_their_gradient(stride):
    x, size = jax.random.normal(jax.random.key(0), (2, 8, 7, 3)), (3, 2)
    every = networks.take_patches(x, size)[:, ::stride, ::stride]
    np.testing.assert_array_equal(networks.take_patches(x, size, stride), every)
    weights = jax.random.normal(jax.random.key(1), every.shape)

    def gradient(patches):
        return jax.grad(lambda x: jnp.sum(weights * patches(x)))(x)

    own = gradient(lambda x: networks.take_patches(x, size, stride))
    slow = gradient(lambda x: networks.take_patches(x, size)[:, ::stride, ::stride])
    np.testing.assert_allclose(own, slow, atol=1e-6)


def test_patches_equal_native_convolutions_with_gradients():
    x, posteriors = images(3), (make("patches", 1), make("native", 1))

    def loss(posterior):
        def total(samples, x):
            logits = jax.vmap(posterior.apply_fn, (0, None))(samples, x)
            return jnp.sum(jnp.sin(logits))

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(posterior.samples, jnp.asarray(x))

    patches, native = map(loss, posteriors)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *(patches, native)
    )
    assert np.abs(patches[1][1]).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("convolution", ["patches", "native"])
def test_bounds_hold_on_the_ball_and_attacks_run(convolution):
    posterior, x, epsilon = make(convolution), images(4), 0.01
    threat = bnn_adv.LInf(epsilon)

    def predict(x):
        return np.exp(np.asarray(predict_log_probs(posterior, jnp.asarray(x)), np.float64))

    def margins(x):
        own = np.take_along_axis(probs := predict(x), y[:, None], 1)[:, 0]
        others = np.where(np.arange(3) == y[:, None], -np.inf, probs).max(axis=1)
        return own - others

    y = predict(x).argmax(axis=1)
    found = bnn_adv.certify(posterior, x, y, threat=threat, settings=SETTINGS)
    rng, least = np.random.default_rng(0), margins(x)
    for _ in range(200):
        moved = (
            x + epsilon * rng.choice([-1.0, 1.0], x.shape) * rng.uniform(0, 1, (4, 1, 1, 1)) ** 0.2
        )
        least = np.minimum(least, margins(np.clip(moved, 0, 1).astype(np.float32)))
    x_adv = run_attack(
        jax.random.key(0),
        pgd.build(num_steps=5),
        get_objective("loss_of_mean"),
        posterior,
        x,
        y,
        threat=threat,
    )
    assert 0 < np.abs(x_adv - x).max() <= epsilon + 1e-6
    attacked = margins(x_adv)
    assert (attacked <= margins(x)).all()
    assert (found.margin - found.rounding <= np.minimum(least, attacked)).all()
    # A bound of nothing would hold too: it gives away less than the attack takes, twice over.
    assert (margins(x) - found.margin < 2 * (margins(x) - attacked)).all()
