"""Members of one training that have their own learning rates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.inference import sgd
from bnn_adv.inference.densities import Data
from bnn_adv.networks import MLP

NETWORK = MLP((3,), num_classes=2)
DATA = Data(jax.random.normal(jax.random.key(1), (20, 2)), (jnp.arange(20) % 2).astype(jnp.int32))
CONFIG = sgd.Config(num_members=2, num_epochs=2, learning_rate=(0.01, 0.1), minibatch_size=10)


def _train(config):
    return sgd.run(jax.random.key(0), NETWORK, DATA, config).posterior.samples


@pytest.mark.slow
def test_every_member_follows_its_own_rate():
    mixed, alike = _train(CONFIG), _train(dataclasses.replace(CONFIG, learning_rate=0.01))
    for own, other in zip(jax.tree.leaves(mixed), jax.tree.leaves(alike), strict=True):
        np.testing.assert_allclose(own[0], other[0], rtol=1e-6, atol=1e-7)
        assert not np.allclose(own[1], other[1], rtol=1e-3)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((0.1,), "got 1 for 2 members"),
        ((0.1, 0.0), "must be above 0, got 0.0"),
        (-1.0, "must be above 0"),
    ],
)
def test_rates_are_checked(rates, message):
    with pytest.raises(ValueError, match=message):
        _train(dataclasses.replace(CONFIG, learning_rate=rates))
