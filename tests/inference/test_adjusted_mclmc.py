"""Adjusted microcanonical Langevin: what its warm-up learns."""

import jax
import jax.numpy as jnp
import pytest

from bnn_adv.inference import adjusted_mclmc


@pytest.mark.slow
def test_a_warm_up_finds_a_step_that_is_accepted():
    """From one a thousand times too long, on a Gaussian of 20 dimensions."""
    config = adjusted_mclmc.Config(step_size=100.0, num_integration_steps=4.0, num_warmup=80)
    kernel = adjusted_mclmc.build(lambda w: -0.5 * jnp.sum(w**2), config)

    @jax.jit
    def run(key):
        state = kernel.init(key, jnp.ones(20))
        state, _ = jax.lax.scan(
            lambda now, i: kernel.adapt(jax.random.fold_in(key, i), now, i), state, jnp.arange(80)
        )
        keys = jax.random.split(key, 100)
        state, info = jax.lax.scan(lambda now, k: kernel.step(k, now), state, keys)
        return state.describe()["step_size"], info.acceptance_rate.mean()

    step_size, rate = run(jax.random.key(0))
    assert 0.1 < step_size < 20
    assert 0.6 < rate < 0.95
