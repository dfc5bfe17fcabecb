"""Draws made for one prediction: each follows from the key and its number alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.evaluation.redrawn import draw_log_probs
from bnn_adv.posteriors.sampler import Sampler

SAMPLER = Sampler(lambda params, x: x @ params, lambda key: jax.random.normal(key, (3, 4)))
X = np.random.default_rng(0).uniform(size=(5, 3)).astype(np.float32)


@pytest.mark.slow
def test_each_draw_is_that_of_its_key():
    key = jax.random.key(7)
    found = draw_log_probs(key, SAMPLER, X, num_samples=12)
    assert found.shape == (12, 5, 4)
    for index in (0, 9, 10, 11):
        weights = SAMPLER.draw(jax.random.fold_in(key, index))
        expected = jax.nn.log_softmax(jnp.asarray(X) @ weights)
        np.testing.assert_allclose(found[index], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(draw_log_probs(key, SAMPLER, X, num_samples=3), found[:3], rtol=1e-6)


def test_a_number_of_draws_below_one_is_refused():
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        draw_log_probs(jax.random.key(0), SAMPLER, X, num_samples=0)
