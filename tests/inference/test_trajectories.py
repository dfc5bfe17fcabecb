"""Trajectories of given length, as Pyro's: the number of steps follows the step size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_adv import networks
from bnn_adv.inference import hmc, nuts
from bnn_adv.inference.densities import Data, Prior
from bnn_adv.inference.trajectories import count_steps, draw_length

NETWORK = networks.MLP((), 3)
RNG = np.random.default_rng(0)
DATA = Data(
    jnp.asarray(RNG.uniform(size=(20, 2)), jnp.float32), jnp.asarray(np.arange(20) % 3, jnp.int32)
)


@pytest.mark.parametrize(
    ("length", "step_size", "steps"),
    [(0.02, 0.002, 10), (0.02, 0.0021, 9), (0.02, 0.001, 20), (0.02, 0.05, 1), (0.02, 1e-9, 100)],
)
def test_steps_are_the_whole_ones_that_fit(length, step_size, steps):
    """max(1, int(length / step)), and at most 100."""
    assert int(count_steps(length, jnp.float32(step_size), most=100)) == steps


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-4, 1.0), st.integers(1, 500))
def test_the_first_step_size_gives_the_number_that_the_length_was_made_of(step_size, steps):
    """Float32 rounding of the product never costs a step."""
    assert int(count_steps(step_size * steps, jnp.float32(step_size), most=1000)) == steps


def run(**options):
    config = hmc.Config(
        num_samples=20, num_warmup=0, num_chains=2, step_size=0.25, adapt="none", **options
    )
    return hmc.run(jax.random.key(2), NETWORK, DATA, config)


def assert_same_draws(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.posterior.samples, other.posterior.samples)


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "temperature"), [(0.5, 1.0), (2.0, 1 / 16)])
def test_lengths_are_in_units_of_the_priors_scale(scale, temperature):
    """Five steps of 0.25 under a prior of scale 0.5, be it tempered."""
    target = {"prior": Prior(scale), "temperature": temperature}
    steps = run(num_integration_steps=5, **target)
    assert_same_draws(run(trajectory_length=2.5, **target), steps)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_lengths_are_in_units_of_the_spread_where_masses_are_learned(scale):
    """With variances as inverse masses every direction of the posterior has scale one."""
    config = hmc.Config(
        num_samples=20,
        num_warmup=100,
        step_size=0.1,
        trajectory_length=1.3,
        adapt="window",
        prior=Prior(scale),
    )
    found = hmc.run(jax.random.key(0), NETWORK, DATA, config).diagnostics
    steps = int(count_steps(1.3, jnp.float32(found["step_size"][0]), most=1000))
    assert found["num_gradients"] == 20 * steps


def test_jittered_lengths_are_uniform_around_their_mean():
    keys = jax.random.split(jax.random.key(0), 4000)
    lengths = jax.vmap(lambda key: draw_length(key, 1.3, 0.4))(keys)
    assert 1.3 * 0.6 <= lengths.min() < 1.3 * 0.61
    assert 1.3 * 1.39 < lengths.max() <= 1.3 * 1.4
    # Standard deviation of a uniform distribution of width 1.04.
    np.testing.assert_allclose(lengths.std(), 1.04 / np.sqrt(12), rtol=0.03)
    counts = count_steps(lengths, jnp.float32(0.1), most=100, nearest=True)
    np.testing.assert_allclose(counts.mean(), 13, atol=5 * 3 / np.sqrt(4000))
    assert set(np.asarray(counts).tolist()) == set(range(8, 19))


@pytest.mark.slow
def test_jitter_changes_nothing_else():
    """Where the nearest number of steps stays the same, so does every bit of the chains."""
    still = run(trajectory_length=1.25)
    assert_same_draws(run(trajectory_length=1.25, jitter=0.01), still)
    other = run(trajectory_length=1.25, jitter=0.5).posterior.samples["logits"]["kernel"]
    assert not np.array_equal(other, still.posterior.samples["logits"]["kernel"])


@pytest.mark.slow
@pytest.mark.parametrize(("most", "longest"), [(6, None), (4, 40)])
def test_trajectories_that_are_cut_short_are_counted(most, longest):
    found = run(trajectory_length=1.25, max_integration_steps=most).diagnostics
    assert found.get("num_longest") == longest
    warned = [text for text in found["warnings"] if "most leapfrog steps allowed" in text]
    assert len(warned) == (longest is not None)


@pytest.mark.slow
def test_full_trees_that_ended_by_themselves_are_not_counted():
    """Against BlackJAX's own record of the same transitions of a normal law."""
    from blackjax.mcmc import nuts as reference

    def density(position):
        return -0.5 * jnp.sum(position**2)

    config = nuts.Config(step_size=0.4, max_num_doublings=3, adapt="none")
    kernel, moves = nuts.build(density, config), reference.build_kernel()
    state = kernel.init(jax.random.key(0), jnp.array([1.0, -0.5]))

    @jax.vmap
    def both(key):
        seen = moves(key, state.chain, density, 0.4, jnp.ones(2), max_num_doublings=3)[1]
        return kernel.step(key, state)[1], seen

    ours, seen = jax.jit(both)(jax.random.split(jax.random.key(1), 200))
    full = seen.num_integration_steps == 2**3 - 1
    limited = (seen.num_trajectory_expansions == 3) & ~seen.is_turning & ~seen.is_divergent
    np.testing.assert_array_equal(ours.num_gradients, seen.num_integration_steps)
    np.testing.assert_array_equal(ours.is_longest, limited)
    # Both kinds of full trees are there.
    assert 10 < limited.sum() < full.sum() - 10
