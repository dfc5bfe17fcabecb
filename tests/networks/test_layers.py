"""What is known of a network's layers, and that visiting them changes nothing by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bnn_adv.networks import MLP, ConvNet, get_apply_fn, init_params
from bnn_adv.networks.layers import list_layers, visit_layers


class Twice(nn.Module):
    """Calls one layer twice."""

    num_classes: int = 2

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(self.num_classes, name="shared")
        return layer(layer(x))


def test_layers_are_listed_in_the_order_of_the_network():
    first, second, last = list_layers(ConvNet(4, 3), (16, 16, 1))
    assert (first.name, second.name, last.name) == ("conv_0", "conv_1", "logits")
    assert (first.kernel_size, first.inputs, first.outputs) == ((5, 5), (16, 16, 1), (12, 12, 32))
    assert (last.kernel_size, last.kind, last.outputs) == (None, "Dense", (3,))
    assert first.has_bias


def test_visits_that_change_nothing_change_nothing_and_others_do():
    network = MLP((4,), 3)
    params = init_params(jax.random.key(0), network, (2,))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)), jnp.float32)
    plain, seen = get_apply_fn(network)(params, x), []

    def visit(name, inputs, layer):
        seen.append(name)
        return layer(inputs)

    np.testing.assert_array_equal(visit_layers(visit, network, params, x), plain)
    assert seen == ["hidden_0", "logits"]
    shifted = visit_layers(lambda name, inputs, layer: layer(inputs) + 1, network, params, x)
    assert not np.allclose(shifted, plain + 1)


def test_a_visit_sees_a_convolution_before_its_outputs_are_pooled():
    network, shape = ConvNet(4, 3), (16, 16, 1)
    params = init_params(jax.random.key(0), network, shape)
    x = jax.random.normal(jax.random.key(1), (2, *shape))
    seen = {}

    def visit(name, inputs, layer):
        seen[name] = layer(inputs)
        return seen[name]

    plain = get_apply_fn(network)(params, x)
    np.testing.assert_allclose(visit_layers(visit, network, params, x), plain, atol=1e-5)
    listed = {layer.name: layer.outputs for layer in list_layers(network, shape)}
    assert {name: found.shape[1:] for name, found in seen.items()} == listed


def test_layers_that_are_called_twice_are_refused():
    with pytest.raises(ValueError, match="shared are called more than once"):
        list_layers(Twice(), (2,))
