"""Dropout through the weights is dropout of activations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.inference import mc_dropout
from bnn_adv.inference.densities import Data, Prior
from bnn_adv.networks import MLP, ConvNet, get_apply_fn, init_params

RNG = np.random.default_rng(0)
CONFIG = mc_dropout.Config(rate=0.5, input_rate=0.25)


@pytest.mark.slow
def test_masks_on_weights_are_masks_on_activations():
    network = MLP((8, 6), 3, "tanh")
    params = init_params(jax.random.key(0), network, (5,))
    x = jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32)
    keep = mc_dropout.keep_probabilities(network, (5,), CONFIG)
    assert keep == {"hidden_0": 0.75, "hidden_1": 0.5, "logits": 0.5}
    drawn = mc_dropout.draw_weights(params, jax.random.key(1), keep=keep)
    hidden, dropped = x, 0
    for name, probability in keep.items():
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        mask = np.any(drawn[name]["kernel"] != 0, axis=1)
        dropped += (~mask).sum()
        hidden = (hidden * mask / probability) @ kernel + bias
        hidden = np.tanh(hidden) if name != "logits" else hidden
    assert 0 < dropped < 19
    np.testing.assert_allclose(get_apply_fn(network)(drawn, x), hidden, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "shape"), [(MLP((8, 6), 3, "tanh"), (5,)), (ConvNet(4, 3), (16, 16, 1))]
)
def test_predictions_use_the_masks_of_the_training(network, shape):
    """The masks of one example in training are those of a draw with the same key."""
    params = init_params(jax.random.key(0), network, shape)
    x = jnp.asarray(RNG.uniform(size=(1, *shape)), jnp.float32)
    keep = mc_dropout.keep_probabilities(network, shape, CONFIG)
    for seed in range(3):
        key = jax.random.key(seed)
        drawn = mc_dropout.draw_weights(params, key, keep=keep)
        np.testing.assert_allclose(
            get_apply_fn(network)(drawn, x),
            mc_dropout.apply_with_dropout(params, x, key, network, keep),
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.slow
def test_examples_of_a_minibatch_have_masks_of_their_own():
    network = MLP((16,), 3)
    params = init_params(jax.random.key(0), network, (5,))
    keep = mc_dropout.keep_probabilities(network, (5,), CONFIG)
    x = jnp.ones((8, 5))
    found = mc_dropout.apply_with_dropout(params, x, jax.random.key(0), network, keep)
    assert len(np.unique(np.asarray(found)[:, 0])) > 1


def test_draws_have_the_trained_weights_as_mean():
    network = MLP((4,), 3)
    params = init_params(jax.random.key(0), network, (5,))
    keep = mc_dropout.keep_probabilities(network, (5,), CONFIG)
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = jax.vmap(lambda key: mc_dropout.draw_weights(params, key, keep=keep))(keys)
    for name in keep:
        mean, kernel = draws[name]["kernel"].mean(axis=0), params[name]["kernel"]
        error = np.abs(kernel) * np.sqrt((1 - keep[name]) / keep[name] / 4000)
        assert (np.abs(mean - kernel) < 5 * error + 1e-7).all()
        np.testing.assert_array_equal(draws[name]["bias"][0], params[name]["bias"])


@pytest.mark.slow
def test_dropout_of_inputs_is_ridge_regression():
    """In the mean (1 - keep) / keep |x_j|^2 w_j^2 / 2 is added (Srivastava et al. 2014, 9.1).

    The prior's part is w_j^2 / (2 sigma^2 keep).
    """
    x = RNG.normal(size=(40, 2)).astype(np.float32)
    y = (x @ [[1.0], [-0.5]] + 0.3 + RNG.normal(size=(40, 1))).astype(np.float32)
    config = mc_dropout.Config(
        input_rate=0.3,
        num_epochs=4000,
        learning_rate=0.001,
        minibatch_size=40,
        num_samples=1,
        prior=Prior(0.2),
        likelihood="gaussian",
    )
    network, data = MLP((), 1), Data(jnp.asarray(x), jnp.asarray(y))
    sampler = mc_dropout.run(jax.random.key(0), network, data, config).sampler
    (trained,) = sampler.draw.args
    found = np.append(trained["logits"]["kernel"], trained["logits"]["bias"])
    design, keep = np.append(x, np.ones((40, 1)), axis=1).astype(np.float64), 0.7
    ridge = np.append((1 - keep) / keep * (x**2).sum(axis=0) + 25 / keep, 25)
    expected = np.linalg.solve(design.T @ design + np.diag(ridge), design.T @ y[:, 0])
    plain = np.linalg.solve(design.T @ design + 25 * np.eye(3), design.T @ y[:, 0])
    ridge[:2] += 25 - 25 / keep
    other = np.linalg.solve(design.T @ design + np.diag(ridge), design.T @ y[:, 0])
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert np.abs(plain - expected).max() > 0.05
    # The prior of the trained weights in place of that of the draws.
    assert np.abs(other - expected).max() > 0.02
