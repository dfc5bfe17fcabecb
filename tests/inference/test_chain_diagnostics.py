"""Diagnostics: chains that went wrong say so."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv import networks
from bnn_adv.densities import Data
from bnn_adv.inference import hmc
from bnn_adv.inference.diagnostics import count_distinct, has_mixed, summarise_chains
from bnn_adv.posterior import Posterior

RNG = np.random.default_rng(0)
HELD_OUT = Data(jnp.ones((2, 1)), jnp.zeros(2, jnp.int32))


def bias_posterior(values):
    """Draws whose two logits are (v, 0)."""
    samples = jnp.asarray(values, jnp.float32)
    return Posterior(
        lambda params, x: jnp.stack([params + 0 * x[:, 0], 0 * x[:, 0]], axis=-1), samples
    )


def info(draws, chains, **changes):
    shape = (draws, 1, chains)
    record = {
        "acceptance_rate": np.full(shape, 0.8),
        "is_divergent": np.zeros(shape, bool),
        "energy_error": np.full(shape, 0.1),
        "logdensity": np.zeros(shape),
    }
    return SimpleNamespace(**{**record, **changes})


def test_independent_chains_raise_no_warning():
    values = RNG.normal(size=400)
    summary = summarise_chains(bias_posterior(values), info(200, 2), 2, HELD_OUT)
    assert summary["warnings"] == []
    assert summary["max_rhat"] < 1.05
    assert summary["min_ess"] > 200
    assert summary["num_distinct_draws"] == 400


def test_chains_in_different_places_are_told_apart():
    values = np.concatenate([RNG.normal(size=100), 5 + RNG.normal(size=100)])
    summary = summarise_chains(bias_posterior(values), info(100, 2), 2, HELD_OUT)
    assert summary["median_rhat"] > 1.4
    assert "not mixed" in " ".join(summary["warnings"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"acceptance_rate": np.zeros((50, 1, 1))}, "Nothing was accepted"),
        ({"energy_error": np.full((50, 1, 1), np.nan)}, "50 transitions had a NaN"),
        ({"is_divergent": np.ones((50, 1, 1), bool)}, "50 transitions diverged"),
    ],
)
def test_each_fault_has_its_sentence(changes, sentence):
    summary = summarise_chains(bias_posterior(RNG.normal(size=50)), info(50, 1, **changes), 1, None)
    assert sentence in " ".join(summary["warnings"])


def test_duplicate_draws_are_counted_over_all_arrays():
    posterior = Posterior(
        lambda params, x: x,
        {"a": jnp.asarray([1.0, 1.0, 2.0]), "b": jnp.asarray([[1.0], [2.0], [1.0]])},
    )
    assert count_distinct(posterior) == 3
    assert count_distinct(posterior.take([0, 0, 2])) == 2
    summary = summarise_chains(posterior.take([0, 0, 2]), info(3, 1), 1, None)
    assert "Only 2 of 3 draws are distinct" in " ".join(summary["warnings"])


def test_a_run_that_cannot_move_says_so():
    network = networks.MLP((3,), 2, "tanh")
    data = Data(jnp.asarray(RNG.normal(size=(30, 2)), jnp.float32), jnp.zeros(30, jnp.int32))
    config = hmc.Config(num_samples=8, num_warmup=0, step_size=1e4, adapt="none")
    warnings = " ".join(hmc.run(jax.random.key(0), network, data, config).diagnostics["warnings"])
    assert "Nothing was accepted" in warnings
    assert "Only 1 of 8 draws are distinct" in warnings


def test_energy_error_vanishes_with_the_step():
    """Leapfrog's error: of second order in the step, of third over few steps."""
    network = networks.MLP((3,), 2, "tanh")
    data = Data(jnp.asarray(RNG.normal(size=(30, 2)), jnp.float32), jnp.asarray(np.arange(30) % 2))
    errors = [
        hmc.run(
            jax.random.key(0),
            network,
            data,
            hmc.Config(num_samples=40, num_warmup=0, step_size=step, adapt="none"),
        ).diagnostics["mean_abs_energy_error"]
        for step in (0.2, 0.05)
    ]
    assert 16 / 2 < errors[0] / errors[1] < 64 * 2


@pytest.mark.parametrize(
    ("predictions", "density", "mixed"),
    [(1.1, 1.0, True), (1.11, 1.0, False), (1.0, 2.4, False), (None, 1.0, None), (1.0, None, None)],
)
def test_chains_have_mixed_by_both_measures(predictions, density, mixed):
    given = {"median_rhat": predictions, "log_density_rhat": density}
    assert has_mixed({name: value for name, value in given.items() if value}) is mixed
