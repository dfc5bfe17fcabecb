"""The published code's HMC data: the last minibatch, and draws with replacement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.inference.densities import Data
from bnn_adv.inference.subsampling import last_minibatch, resample, transitions_per_minibatch
from bnn_adv.posteriors.posterior import Posterior

DATA = Data(jnp.arange(12.0)[:, None], jnp.arange(12))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 4, 5, 12])
def test_last_minibatch_is_a_subset_with_its_labels(size):
    part = last_minibatch(jax.random.key(1), DATA, size)
    assert len(np.unique(part.y)) == size
    np.testing.assert_array_equal(part.x[:, 0], part.y)


def test_minibatch_beyond_the_data_is_refused():
    with pytest.raises(ValueError, match=r"between 1 and the number of examples \(12\), got 13"):
        last_minibatch(jax.random.key(1), DATA, 13)


@pytest.mark.parametrize(("num_samples", "distinct"), [(500, 42), (50, 5), (10, 1), (12, 2)])
def test_few_draws_are_made_of_every_minibatch(num_samples, distinct):
    """60,000 images in 12 minibatches of 5,000: int(S / 12) + 1."""
    assert transitions_per_minibatch(num_samples, 60_000, 5_000) == distinct


def test_more_draws_than_there_are_can_be_resampled():
    posterior = Posterior(lambda params, x: params, jnp.arange(5.0))
    found, indices = resample(jax.random.key(1), posterior, 50)
    assert found.num_samples == 50
    assert set(indices) == set(range(5))


def test_resampling_repeats_draws_as_chance_has_it():
    size = 400
    posterior = Posterior(lambda params, x: params, jnp.arange(float(size)))
    found, indices = resample(jax.random.key(5), posterior, size)
    np.testing.assert_array_equal(found.samples, indices.astype(np.float32))
    # S (1 - (1 - 1/S)^S) = 253 distinct ones are expected; their standard deviation is 6.2.
    assert 253 - 31 < len(np.unique(indices)) < 253 + 31
