"""SWAG's moments against those of the iterates, and its draws against the moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.inference import moments as moments_
from bnn_adv.inference import swag
from bnn_adv.inference.densities import Data
from bnn_adv.inference.members import Training, posterior_loss
from bnn_adv.networks import MLP

RNG = np.random.default_rng(0)
NETWORK = MLP((3,), 2, "tanh")
DATA = Data(
    jnp.asarray(RNG.uniform(size=(20, 2)), jnp.float32), jnp.asarray(np.arange(20) % 2, jnp.int32)
)
CONFIG = swag.Config(
    num_epochs=2, num_swag_epochs=5, rank=3, minibatch_size=8, num_runs=2, num_samples=1
)


def iterate():
    """Epochs by hand: the iterates that are collected, [epochs, runs, ...], and the last state."""
    training = Training(NETWORK, CONFIG, posterior_loss, swag._OPTIMISER, CONFIG.num_runs)
    key = jax.random.key(5)
    state, iterates = swag.init(jax.random.fold_in(key, 0), DATA, training=training), []
    for epoch in range(7):
        own = jax.random.fold_in(key, 1 + epoch)
        state, batches = swag.start_epoch(own, state, 20, training=training)
        state = swag.step(state, DATA, batches, 0, 3, training=training)
        iterates.append(state.training.params["hidden_0"]["kernel"])
    return np.asarray(iterates[2:], np.float64), state


@pytest.mark.slow
def test_moments_are_those_of_the_iterates_after_training():
    iterates, state = iterate()
    moments = jax.tree.map(lambda leaf: np.asarray(leaf), state.moments)
    means = np.cumsum(iterates, axis=0) / np.arange(1, 6)[:, None, None, None]
    kept = {name: getattr(moments, name)["hidden_0"]["kernel"] for name in moments._fields}
    np.testing.assert_allclose(kept["mean"], means[-1], rtol=1e-5)
    np.testing.assert_allclose(kept["variance"], iterates.var(axis=0), rtol=1e-3, atol=1e-8)
    # Iterates 3, 4, 5 in the places that are theirs: the oldest was replaced first.
    deviations = (iterates - means)[[3, 4, 2]].swapaxes(0, 1)
    np.testing.assert_allclose(kept["deviations"], deviations, rtol=1e-3, atol=1e-6)
    result = swag.run(jax.random.key(5), NETWORK, DATA, CONFIG)
    (found,) = result.sampler.draw.args
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, moments
    )


@pytest.mark.slow
def test_draws_have_the_covariance_of_the_paper():
    rank, size, count = 3, 4, 20_000
    mean, variance = RNG.normal(size=(1, size)), RNG.uniform(0.5, 2, size=(1, size))
    deviations = RNG.normal(size=(1, rank, size))
    moments = moments_.Moments(*({"w": jnp.asarray(a)} for a in (mean, variance, deviations)))
    keys = jax.random.split(jax.random.key(0), count)
    draws = np.asarray(jax.vmap(lambda key: moments_.draw(moments, key)["w"])(keys), np.float64)
    covariance = np.diag(variance[0]) / 2 + deviations[0].T @ deviations[0] / (2 * (rank - 1))
    spread = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(axis=0) - mean[0]) < 5 * spread / np.sqrt(count)).all()
    error = np.sqrt((np.outer(spread, spread) ** 2 + covariance**2) / count)
    assert (np.abs(np.cov(draws.T) - covariance) < 5 * error).all()


@pytest.mark.slow
def test_every_run_is_drawn_from_alike():
    zeros = jnp.zeros((3, 2, 1))
    moments = moments_.Moments(
        {"w": jnp.arange(3.0)[:, None]}, {"w": jnp.zeros((3, 1))}, {"w": zeros}
    )
    keys = jax.random.split(jax.random.key(0), 3000)
    draws = np.asarray(jax.vmap(lambda key: moments_.draw(moments, key)["w"])(keys))[:, 0]
    counts = np.bincount(draws.astype(int))
    assert (np.abs(counts - 1000) < 5 * np.sqrt(1000 * 2 / 3)).all()
