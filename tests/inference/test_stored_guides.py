"""A trained guide is stored as arrays, and draws as before when it is read back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv import networks
from bnn_adv.inference import stored_guides, svi
from tests.inference.test_methods import DATA, NETWORK, TINY

# As other tests have it: the same programs serve.
CONFIG = svi.Config(**TINY["svi"])


@pytest.fixture(scope="module")
def sampler():
    return svi.run(jax.random.key(0), NETWORK, DATA, CONFIG).sampler


@pytest.mark.slow
def test_a_restored_guide_draws_the_same_networks(sampler):
    stored = {name: np.asarray(v) for name, v in stored_guides.get_guide_params(sampler).items()}
    again = stored_guides.restore_sampler(NETWORK, CONFIG, (2,), stored)
    first, second = (each.sample(jax.random.key(3), 2).samples for each in (sampler, again))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    x = jnp.ones((1, 2))
    np.testing.assert_array_equal(
        *(each.apply_fn(each.draw(jax.random.key(1)), x) for each in (sampler, again))
    )


@pytest.mark.slow
def test_parameters_of_another_network_are_named(sampler):
    stored = stored_guides.get_guide_params(sampler)
    with pytest.raises(ValueError, match=r"hidden_0/bias_auto_loc has the shape \(4,\) where this"):
        stored_guides.restore_sampler(networks.MLP((5,), 3, "tanh"), CONFIG, (2,), stored)
    del stored["logits/bias_auto_scale"]
    with pytest.raises(ValueError, match="logits/bias_auto_scale has the shape None"):
        stored_guides.restore_sampler(NETWORK, CONFIG, (2,), stored)
