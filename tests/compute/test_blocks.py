"""Blocks of inputs: the same values and gradients, in bounded memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv import networks
from bnn_adv.attacks.objectives import OBJECTIVES, value_and_gradient
from bnn_adv.compute import blocks
from bnn_adv.inference.densities import LIKELIHOODS, Data, log_likelihood
from bnn_adv.posteriors.posterior import log_probs, predict_log_probs

NETWORK = networks.MLP((4,), 3, "tanh")
APPLY = networks.get_apply_fn(NETWORK)
PARAMS = networks.init_params(jax.random.key(0), NETWORK, (6,))


def images(count):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(size=(count, 6)), jnp.float32)
    return Data(x, jnp.asarray(rng.integers(0, 3, count), jnp.int32))


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 2, 3, 4, 10, 11, 99])
def test_rows_keep_their_places(block):
    xs = {"a": jnp.arange(22.0).reshape(11, 2), "b": jnp.arange(11)}
    mapped = blocks.map_blocks(lambda r: (r["a"] * 2, r["b"] + 1), xs, block)
    np.testing.assert_array_equal(mapped[0], xs["a"] * 2)
    np.testing.assert_array_equal(mapped[1], xs["b"] + 1)
    summed = blocks.sum_blocks(lambda r: r["a"].sum(axis=0), xs, block)
    np.testing.assert_array_equal(summed, xs["a"].sum(axis=0))


@pytest.mark.slow
def test_bytes_are_those_of_one_input():
    """One hidden layer of 5 on 3 inputs: products, biases, activation, each float32."""
    network = networks.MLP((5,), 2, "tanh")
    params = networks.init_params(jax.random.key(0), network, (3,))
    found = blocks.bytes_per_input(networks.get_apply_fn(network), params, jnp.ones((7, 3)))
    # reshape (3), product, broadcast bias and sum (3 x 5), tanh (5), the same of the logits (3 x 2)
    assert 4 * (5 + 5 + 5 + 2 + 2) <= found <= 4 * (3 + 15 + 5 + 6)
    wider = networks.MLP((500,), 2, "tanh")
    params = networks.init_params(jax.random.key(0), wider, (3,))
    more = blocks.bytes_per_input(networks.get_apply_fn(wider), params, jnp.ones((7, 3)))
    assert 50 < more / found < 120


@pytest.mark.parametrize(
    ("each", "batch", "size"),
    [
        (1, 128, 128),
        (100, 128, 32),
        (100, 100, 25),
        (99, 37, 35),
        (10**9, 64, 16),
        (10**9, 100, 20),
    ],
)
def test_choice(each, batch, size):
    """Room for 35 inputs of 100 bytes: the largest divisor near it, where there is one."""
    assert blocks.choose_block(each, batch, most_bytes=3500) == size


@pytest.mark.slow
@pytest.mark.parametrize("block", [3, 5])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihood_in_blocks_equals_the_whole(name, block):
    data = images(12)
    if name == "gaussian":
        data = Data(data.x, jax.nn.one_hot(data.y, 3))
    both = jax.jit(
        jax.value_and_grad(log_likelihood), static_argnums=(2, 3), static_argnames="block"
    )
    value, gradient = both(PARAMS, data, APPLY, name, block=block)
    expected, expected_gradient = both(PARAMS, data, APPLY, name, block=12)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4),
        gradient,
        expected_gradient,
    )


@pytest.mark.slow
def test_likelihood_in_blocks_has_the_gradient_of_the_inputs_too():
    """A silent zero there would make any attack on it look weak."""
    data = images(6)

    def of_inputs(x, block):
        return log_likelihood(PARAMS, Data(x, data.y), APPLY, block=block)

    blocked, whole = (jax.grad(of_inputs)(data.x, block) for block in (2, 6))
    assert float(jnp.abs(whole).max()) > 0
    np.testing.assert_allclose(blocked, whole, rtol=1e-4, atol=1e-6)

    def of_both(params, x):
        return log_likelihood(params, Data(x, data.y), APPLY, block=2)

    for a, b in zip(
        jax.tree.leaves(jax.grad(of_both, argnums=(0, 1))(PARAMS, data.x)),
        [*jax.tree.leaves(jax.grad(of_both)(PARAMS, data.x)), whole],
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_memory_of_a_full_batch_gradient_does_not_grow_with_the_data():
    def temporary(count):
        data = jax.eval_shape(lambda: images(8))
        data = jax.tree.map(lambda a: jax.ShapeDtypeStruct((count, *a.shape[1:]), a.dtype), data)
        gradient = jax.jit(lambda p, d: jax.grad(log_likelihood)(p, d, APPLY, block=16))
        return gradient.lower(PARAMS, data).compile().memory_analysis().temp_size_in_bytes

    # Neither the hidden values of all examples nor a copy of their inputs.
    assert temporary(1600) < temporary(160) + 0.5 * 1440 * 4 * 4


@pytest.mark.slow
def test_objectives_and_predictions_in_blocks(posterior, batch, monkeypatch):
    x, y = batch

    def compute():
        names = ("expected_loss", "scaled_margin", "loss_of_mean")
        found = {name: value_and_gradient(OBJECTIVES[name], posterior, x, y) for name in names}
        return found, predict_log_probs(posterior, x), log_probs(posterior, x)

    whole = compute()
    monkeypatch.setattr(blocks, "_SMALLEST", 2)
    monkeypatch.setattr(blocks, "budget", lambda: 1)
    jax.clear_caches()
    assert blocks.choose_block(100, len(y)) == 2
    in_blocks = compute()
    jax.clear_caches()  # the tests after this one have room again
    for a, b in zip(jax.tree.leaves(in_blocks), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
