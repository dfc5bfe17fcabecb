"""Chains of minibatches: what each transition sees, which are draws, and their log densities."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn_adv.inference import csgmcmc, sghmc, sgld, sgmcmc
from bnn_adv.inference.cycles import Cycle
from bnn_adv.inference.densities import Data, Prior, logdensity_fn
from bnn_adv.networks import MLP, get_apply_fn

NETWORK = MLP((), 1)
NUM_DATA = 10
# Every example is named by its target.
DATA = Data(jnp.ones((NUM_DATA, 2)), jnp.arange(NUM_DATA, dtype=jnp.float32)[:, None])


class Seen(NamedTuple):
    position: dict
    counts: jax.Array
    first: jax.Array
    index: jax.Array


def build_witness(gradient, config):
    """Return a kernel that stands still and counts the examples it is shown."""

    def init(rng_key, position):
        return Seen(position, jnp.zeros(NUM_DATA, jnp.int32), jnp.zeros(3), jnp.zeros((), int))

    def step(rng_key, state, minibatch, index):
        counts = state.counts.at[minibatch.y[:, 0].astype(int)].add(1)
        return Seen(state.position, counts, minibatch.y[:, 0], index)

    return sgmcmc.Kernel(init, step, lambda state: state.position)


@pytest.mark.slow
def test_every_epoch_shows_every_chain_all_examples_in_its_own_order():
    """Four minibatches of three; warm-up and draws share the epochs, however they are cut."""
    config = sgmcmc.Config(
        num_samples=4,
        num_warmup=6,
        num_chains=2,
        thinning=2,
        minibatch_size=3,
        likelihood="gaussian",
    )
    target = sgmcmc.Target(build_witness, NETWORK, config, None)
    key = jax.random.key(0)
    states, shown = sgmcmc.init(key, DATA, target=target), []
    for index in range(12):
        if index < 6:
            states, _ = sgmcmc.warm_up(key, states, DATA, index, 1, target=target)
        else:
            states, _ = sgmcmc.step(key, states, DATA, index - 6, 1, target=target)
        np.testing.assert_array_equal(states.index, index - 6)
        shown.append(np.asarray(states.first))
    together = sgmcmc.init(key, DATA, target=target)
    together, _ = sgmcmc.warm_up(key, together, DATA, 0, 6, target=target)
    together, _ = sgmcmc.step(key, together, DATA, 0, 6, target=target)
    jax.tree.map(np.testing.assert_array_equal, together, states)
    epochs = np.stack(shown, axis=1).reshape(2, 3, 12)  # chains, epochs, examples shown
    for each in epochs.reshape(-1, 12):
        assert set(each[:10]) == set(range(NUM_DATA))
    orders = {tuple(each) for each in epochs.reshape(-1, 12)}
    assert len(orders) == 6


@given(
    cycle=st.builds(Cycle, st.integers(0, 7), st.integers(1, 4), st.integers(1, 5)),
    done=st.integers(0, 100),
)
def test_cycles_explore_and_then_draw(cycle, done):
    ends = [
        1 + index
        for index in range(done)
        if (place := index % cycle.length) >= cycle.exploration
        and (place - cycle.exploration) % cycle.thinning == cycle.thinning - 1
    ]
    assert cycle.count_draws(done) == len(ends)
    assert [cycle.end(draw) for draw in range(len(ends))] == ends
    # What a device call has space for ends with the draw that fills it.
    last = done + sgmcmc.most_transitions(done, cycle)
    assert cycle.count_draws(last) - cycle.count_draws(done) == sgmcmc._DRAWS_PER_CALL
    assert cycle.count_draws(last - 1) < cycle.count_draws(last)


def test_cyclical_steps_follow_the_paper():
    """Eq. 1, and no noise before the sampling: 8 of 10 transitions explore."""
    config = csgmcmc.Config(
        num_samples=2, samples_per_cycle=2, thinning=1, step_size=0.5, exploration=0.8
    )
    assert config.cycle == Cycle(8, 2, 1)
    assert csgmcmc.Config().cycle.length == 2500
    kernel = csgmcmc.build(lambda position, batch: jnp.ones_like(position), config)
    for index in range(-10, 20):
        found = [
            kernel.step(key, csgmcmc.State(jnp.zeros(())), DATA, jnp.asarray(index)).position
            for key in jax.random.split(jax.random.key(0))
        ]
        size = 0.25 * (1 + np.cos(np.pi * (index % 10) / 10))
        if index % 10 < 8:
            np.testing.assert_allclose(found, size, rtol=1e-5, atol=1e-7)
        else:
            noise = (np.array(found) - size) / np.sqrt(2 * size)
            draws = [jax.random.normal(key, (1,)) for key in jax.random.split(jax.random.key(0))]
            np.testing.assert_allclose(noise, np.ravel(draws), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "options"),
    [
        (sgld, {"step_size": 0.01}),
        (sghmc, {"step_size": 0.1, "friction": 5.0}),
        (csgmcmc, {"step_size": 0.01, "samples_per_cycle": 2}),
    ],
)
def test_log_densities_of_draws_are_of_all_data_and_of_the_temperature(module, options):
    config = module.Config(
        num_samples=12,
        num_warmup=3,
        num_chains=2,
        thinning=2,
        minibatch_size=4,
        likelihood="gaussian",
        prior=Prior(0.5),
        temperature=0.25,
        **options,
    )
    result = module.run(jax.random.key(0), NETWORK, DATA, config)
    truth = jax.vmap(
        lambda params: logdensity_fn(
            params,
            DATA,
            apply_fn=get_apply_fn(NETWORK),
            prior=config.prior,
            likelihood="gaussian",
            temperature=0.25,
            centred=True,
        )
    )(result.posterior.samples)
    np.testing.assert_allclose(
        np.ravel(result.diagnostics["log_density"]), truth, rtol=1e-5, atol=1e-3
    )
    assert result.diagnostics["num_distinct_draws"] == 24
