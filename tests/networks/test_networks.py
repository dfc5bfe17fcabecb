"""Networks: sizes, equality of the two convolutions, names of layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from bnn_adv import networks


def make(architecture, hidden=8, activation="leaky_relu", shape=(28, 28, 1), **options):
    network = networks.build_network(
        architecture, hidden=hidden, num_classes=10, activation=activation, **options
    )
    return network, networks.init_params(jax.random.key(0), network, shape)


@pytest.mark.parametrize(
    ("architecture", "hidden", "count"),
    [
        ("conv", 512, 661_834),
        ("fc", 1024, 784 * 1024 + 1024 + 10 * 1024 + 10),
        ("fc2", 512, 784 * 512 + 512 + 512 * 512 + 512 + 5130),
        ("fc5", 64, 784 * 64 + 64 + 4 * (64 * 64 + 64) + 650),
    ],
)
def test_parameter_counts(architecture, hidden, count):
    network = networks.build_network(architecture, hidden=hidden, num_classes=10, activation="relu")
    shapes = jax.eval_shape(lambda: networks.init_params(jax.random.key(0), network, (28, 28, 1)))
    assert networks.count_params(shapes) == count


@pytest.mark.slow
def test_patches_equal_native_convolution_with_gradients():
    images = jax.random.uniform(jax.random.key(1), (3, 28, 28, 1))
    patches, params = make("conv", convolution="patches")
    native, _ = make("conv", convolution="native")

    def loss(network):
        return jax.jit(
            jax.value_and_grad(
                lambda p, x: jnp.sum(jnp.sin(network.apply({"params": p}, x))), argnums=(0, 1)
            )
        )

    value, gradients = loss(patches)(params, images)
    other_value, other_gradients = loss(native)(params, images)
    np.testing.assert_allclose(value, other_value, rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        gradients,
        other_gradients,
    )


def test_weights_vmapped_over_draws_stay_matrix_products():
    """A kernel vmapped over draws must not become a grouped convolution."""
    network, params = make("conv", convolution="patches")
    draws = jax.tree.map(lambda w: jnp.stack([w, 2 * w]), params)
    apply_fn = networks.get_apply_fn(network)
    program = jax.jit(jax.vmap(apply_fn, (0, None))).lower(draws, jnp.zeros((2, 28, 28, 1)))
    text = program.as_text()
    assert "convolution" not in text
    assert "dot_general" in text


@pytest.mark.slow
def test_patches_are_convolutions_and_so_is_their_gradient():
    """Against XLA's own patches, whose gradient JAX derives."""
    x, size = jax.random.normal(jax.random.key(0), (2, 7, 6, 3)), (3, 2)
    weights = jax.random.normal(jax.random.key(1), (2, 5, 5, 18))

    def reference(x):
        found = jax.lax.conv_general_dilated_patches(
            x, size, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        # XLA's channels come first.
        return found.reshape(2, 5, 5, 3, 6).swapaxes(-1, -2).reshape(2, 5, 5, 18)

    def gradient(patches):
        return jax.grad(lambda x: jnp.sum(weights * patches(x)))(x)

    np.testing.assert_array_equal(networks.take_patches(x, size), reference(x))
    own = gradient(lambda x: networks.take_patches(x, size))
    np.testing.assert_allclose(own, gradient(reference), atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_max_pool_equals_reduce_window(stride):
    from flax import linen as nn

    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 3))
    expected = nn.max_pool(x, (2, 2), strides=(stride, stride))
    np.testing.assert_array_equal(networks.max_pool(x, stride=stride), expected)


@pytest.mark.parametrize("shape", [(8, 7, 2), (9, 8, 1), (7, 9, 3), (8, 8, 4)])
@pytest.mark.parametrize("size", [(3, 3), (2, 4)])
def test_convolving_and_pooling_in_one_step_are_one_after_the_other(shape, size):
    """The outputs, and the gradients of inputs and weights, against XLA's own convolution."""
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    layers = [networks.Convolve(4, size, how) for how in ("patches", "native")]
    variables = layers[0].init(jax.random.key(1), x)
    variables["params"]["bias"] = jnp.arange(4.0)

    def differentiate(layer, pool):
        def loss(variables, x):
            found = pool(layer.bind(variables), x)
            return jnp.sum(jnp.sin(3 * found)), found

        return jax.grad(loss, (0, 1), has_aux=True)(variables, x)

    fused = differentiate(layers[0], networks.convolve_and_pool)
    plain = differentiate(layers[1], lambda layer, x: networks.max_pool(layer(x), stride=2))
    for own, other in zip(jax.tree.leaves(fused), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 32])
def test_equal_windows_share_the_gradient_of_their_maximum(channels):
    """Of constant pictures all windows are equal, whatever the order in which they are summed."""
    layer = networks.Convolve(8, (5, 5), "patches")
    x = jnp.full((1, 12, 12, channels), 0.7)
    variables = layer.init(jax.random.key(1), x)
    weights = jax.random.normal(jax.random.key(2), (1, 4, 4, 8))

    def gradient(pool):
        return jax.grad(lambda x: jnp.sum(weights * pool(layer.bind(variables), x)))(x)

    expected = gradient(lambda layer, x: networks.max_pool(layer(x), stride=2))
    np.testing.assert_allclose(gradient(networks.convolve_and_pool), expected, atol=1e-5)


def test_maxima_replace_outputs_only_where_they_are_asked_for():
    x = jnp.ones((1, 8, 8, 1))
    for how, stride, asked, side in (
        *(("patches", 1, True, 3), ("patches", 1, False, 6)),
        *(("native", 1, True, 6), ("patches", 2, True, 3)),
    ):
        layer = networks.Convolve(2, (3, 3), how, stride)
        variables = layer.init(jax.random.key(0), x)
        assert layer.apply(variables, x, may_pool=asked).shape == (1, side, side, 2)
        pooled = networks.convolve_and_pool(layer.bind(variables), x)
        assert pooled.shape == (1, 3 // stride, 3 // stride, 2)


def test_layers_are_named_by_place():
    _, params = make("fc2")
    assert set(params) == {"hidden_0", "hidden_1", "logits"}
    assert params["hidden_0"]["kernel"].shape == (784, 8)
    assert params["logits"]["kernel"].shape == (8, 10)


@pytest.mark.parametrize("name", networks.ACTIVATIONS)
def test_activations(name):
    expected = {
        "relu": [0.0, 2.0],
        "leaky_relu": [-0.02, 2.0],
        "tanh": np.tanh([-2.0, 2.0]),
        "sigmoid": 1 / (1 + np.exp([2.0, -2.0])),
    }[name]
    found = networks.ACTIVATIONS[name](jnp.asarray([-2.0, 2.0]))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_equal_networks_share_one_function():
    assert networks.get_apply_fn(make("fc")[0]) is networks.get_apply_fn(make("fc")[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "resnet"}, "resnet.*fc2.*conv"),
        ({"activation": "gelu"}, "gelu.*leaky_relu"),
        ({"hidden": 0}, "got 0"),
        ({"convolution": "winograd", "architecture": "conv"}, "winograd.*native"),
    ],
)
def test_unknown_names_list_the_known(options, message):
    arguments = {"architecture": "fc", "hidden": 4, "activation": "relu", **options}

    def build_and_init():
        network = networks.build_network(arguments.pop("architecture"), num_classes=3, **arguments)
        networks.init_params(jax.random.key(0), network, (28, 28, 1))

    with pytest.raises(ValueError, match=message):
        build_and_init()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["fc", "conv"])
def test_parameters_come_in_the_networks_own_order(architecture):
    """Variational inference gives noise to weights in this order; JAX would sort them by name."""
    network, params = make(architecture, hidden=2)
    found = flatten_dict(params)
    own = flatten_dict(network.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"])
    assert list(found) == list(own) != sorted(own)
    for name, value in own.items():
        np.testing.assert_array_equal(found[name], value)
