"""Diagnostics: chains that went wrong say so, and only chains that agree have mixed."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv import networks
from bnn_adv.inference import hmc, mixing
from bnn_adv.inference.densities import Data
from bnn_adv.inference.diagnostics import (
    MIXING_KEYS,
    describe_mixing,
    has_mixed,
    predict_held_out,
    summarise_chains,
)
from bnn_adv.inference.mixing import ESS_LEAST, RHAT_LIMIT, measure_mixing
from bnn_adv.posteriors.distinct import count_distinct
from bnn_adv.posteriors.posterior import Posterior

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


def summarise(predictions, density=None):
    """Summarise draws of predictions' logits, [chains, draws, points], and of the log density."""
    chains, draws, points = np.shape(predictions)
    if density is None:
        density = np.random.default_rng(9).normal(size=(chains, draws))
    posterior = Posterior(
        lambda params, x: jnp.stack([x @ params, jnp.zeros(len(x))], axis=-1),
        jnp.asarray(np.reshape(predictions, (-1, points)), jnp.float32),
    )
    held_out = Data(jnp.eye(points), jnp.zeros(points, jnp.int32))
    record = info(draws, chains, logdensity=np.transpose(density)[:, None])
    predictions = predict_held_out(posterior, held_out, chains)
    found = summarise_chains(posterior, record, chains, predictions)
    json.dumps(found, allow_nan=False)
    return found


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def test_independent_chains_have_mixed_without_a_warning():
    summary = summarise(normal(2, 300, 20))
    assert summary["warnings"] == []
    assert summary["max_rhat"] < 1.02
    assert min(summary["min_ess"], summary["log_density_ess"], summary["min_tail_ess"]) > 300
    assert summary["num_distinct_draws"] == 600
    assert has_mixed(summary) is True
    assert describe_mixing({name: summary[name] for name in MIXING_KEYS}) == "mixed"


def test_chains_that_disagree_on_some_points_have_not_mixed():
    """The median over points does not see what happens at 45 % of them."""
    values = normal(2, 300, 20)
    values[1, :, :9] += 20
    summary = summarise(values)
    assert summary["median_rhat"] < RHAT_LIMIT < 1.8 < summary["max_rhat"]
    assert has_mixed(summary) is False
    assert describe_mixing(summary) == (
        f"unmixed: not judged (maximum R-hat {summary['max_rhat']:.2f}, "
        f"smallest ESS {summary['min_ess']:.0f})"
    )
    assert "Chains have not mixed" in " ".join(summary["warnings"])


def test_the_log_density_counts_too():
    values = normal(2, 300, 3)
    summary = summarise(values, values[..., 0] + np.linspace(0, 3, 300))
    assert summary["max_rhat"] < 1.02 < 1.2 < summary["log_density_rhat"]
    assert has_mixed(summary) is False
    assert "log density has not settled" in " ".join(summary["warnings"])


@pytest.mark.parametrize(
    ("known", "advice"),
    [
        ({}, "Warm up longer, or draw longer."),
        # Of Hamiltonian chains the energy with a new momentum is known.
        ({"energy": normal(300, 1, 2)}, "Warm up longer, or lengthen its trajectories where"),
    ],
)
def test_advice_fits_the_kind_of_chain(known, advice):
    """Stochastic gradients have no trajectories that could be longer."""
    drifting = normal(300, 1, 2) + np.linspace(0, 3, 300)[:, None, None]
    record = info(300, 2, logdensity=drifting, **known)
    (text,) = (
        text
        for text in summarise_chains(bias_posterior(normal(600)), record, 2, None)["warnings"]
        if "has not settled" in text
    )
    assert advice in text


def test_chains_that_stand_still_have_not_mixed():
    apart = np.broadcast_to(np.array([0.0, 1.0])[:, None, None], (2, 300, 3))
    summary = summarise(apart, apart[..., 0])
    # R-hat is infinite: no variance within, some between.
    assert (summary["num_undefined_rhats"], summary["num_still_chains"]) == (4, 2)
    assert "log_density_rhat" not in summary
    assert has_mixed(summary) is False
    text = "2 of 2 chains stand still, maximum R-hat infinite or not defined, smallest ESS"
    assert text in describe_mixing(summary)
    together = summarise(np.zeros((2, 300, 3)), np.zeros((2, 300)))
    assert (together["num_undefined_rhats"], has_mixed(together)) == (0, False)
    # One of two, in the middle of where the other one goes: only its spread gives it away.
    moving = normal(2, 300, 3)
    moving[0] = 0
    half = summarise(moving)
    assert half["num_still_chains"] == 1
    assert half["max_rhat"] > RHAT_LIMIT
    assert "1 of 2 chains never moved" in " ".join(half["warnings"])


def test_copies_of_a_chain_have_not_mixed():
    """They agree as nothing else does, and count every draw twice."""
    one = normal(1, 300, 3)
    copies = summarise(np.concatenate([one, one]))
    assert copies["max_rhat"] < RHAT_LIMIT
    assert copies["num_equal_chains"] == 1
    assert has_mixed(copies) is False
    assert "1 chains equal to another" in describe_mixing(copies)
    assert summarise(normal(2, 300, 3))["num_equal_chains"] == 0


def test_too_few_draws_are_called_so():
    assert describe_mixing(GOOD | {"max_rhat": None}) == (
        "not judged (too few draws, or nothing that varies)"
    )
    older = GOOD | {"rhat": None, "max_rhat": None}
    assert "of this rule were not recorded" in describe_mixing(older)


def test_draws_that_are_not_finite_have_not_mixed():
    values = normal(2, 300, 3)
    density = values[..., 0].copy()
    density[0, 5] = -np.inf
    summary = summarise(values, density)
    assert (summary["num_undefined_rhats"], summary["num_nonfinite_log_densities"]) == (1, 1)
    assert np.shape(summary["log_density"]) == (2, 300)
    assert summary["log_density"][0][5] is None
    np.testing.assert_allclose(summary["log_density"][1], density[1])
    assert has_mixed(summary) is False


def test_few_effective_draws_have_not_mixed():
    """Slow chains whose halves agree: R-hat is one."""
    waves = np.sin(2 * np.pi * (np.arange(400) / 100 + np.array([[0], [0.25]])))
    summary = summarise(waves[..., None])
    assert summary["max_rhat"] < 1.01
    assert summary["min_ess"] < ESS_LEAST / 2
    assert has_mixed(summary) is False
    assert "Too few effective draws" in " ".join(summary["warnings"])


def test_one_chain_has_never_mixed():
    values = normal(1, 300, 3)
    good = summarise(values)
    assert (has_mixed(good), describe_mixing(good)) == (None, "not judged (one chain)")
    drifting = summarise(values + np.linspace(0, 5, 300)[None, :, None])
    assert has_mixed(drifting) is False


def test_tails_that_differ_are_seen():
    """Cauchy draws, one chain ten times as wide: plain split R-hat is 1 (Vehtari et al. 2021)."""
    draws = np.random.default_rng(0).standard_cauchy((4, 250))
    draws[3] *= 10
    halves = draws.reshape(8, 125)
    between, within = 125 * halves.mean(axis=1).var(ddof=1), halves.var(axis=1, ddof=1).mean()
    assert np.sqrt(124 / 125 + between / within / 125) < 1.01
    assert measure_mixing(draws[..., None]).rhat[0] > 1.15


def test_quantities_that_never_vary_are_left_out():
    values = normal(2, 300, 5)
    values[..., 1:3] = 0.1
    assert measure_mixing(values).rhat.shape == (3,)
    assert measure_mixing(values[..., 1:3]) is None
    assert measure_mixing(values[:, :3]) is None


GOOD = {
    **{"rhat": "rank-normalised split", "num_chains": 2, "num_undefined_rhats": 0},
    **{"max_rhat": 1.05, "log_density_rhat": 1.0, "min_ess": 100, "log_density_ess": 150.0},
}


@pytest.mark.parametrize(
    ("changes", "mixed"),
    [
        ({}, True),
        ({"max_rhat": 1.051}, False),
        ({"log_density_rhat": 2.4}, False),
        ({"log_density_rhat": float("nan")}, False),
        ({"min_ess": 99.9}, False),
        ({"log_density_ess": float("nan")}, False),
        ({"num_undefined_rhats": 1, "max_rhat": None}, False),
        ({"num_still_chains": 1}, False),
        ({"num_equal_chains": 1}, False),
        ({"acceptance_rate": 0.0}, False),
        ({"num_chains": 1}, None),
        ({"max_rhat": None}, None),
        ({"log_density_ess": None}, None),
        # Older runs: R-hat without ranks can show a failure, and never that there is none.
        ({"rhat": None}, None),
        ({"rhat": None, "median_rhat": 1.2}, False),
        (dict.fromkeys(GOOD), None),
    ],
)
def test_mixed_is_said_of_complete_records_only(changes, mixed):
    assert has_mixed(GOOD | changes) is mixed
    words = {True: "mixed", False: "unmixed: not judged (", None: "not judged ("}[mixed]
    assert describe_mixing(GOOD | changes).startswith(words)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"acceptance_rate": np.zeros((50, 1, 1))}, "Nothing was accepted"),
        ({"energy_error": np.full((50, 1, 1), np.nan)}, "50 transitions had a NaN"),
        ({"is_divergent": np.ones((50, 1, 1), bool)}, "50 transitions diverged"),
        ({"energy": np.arange(50.0).reshape(50, 1, 1)}, "E-BFMI of 1 of 1 chains is below 0.3"),
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


@pytest.mark.slow
def test_a_run_that_cannot_move_says_so():
    network = networks.MLP((3,), 2, "tanh")
    data = Data(jnp.asarray(RNG.normal(size=(30, 2)), jnp.float32), jnp.zeros(30, jnp.int32))
    config = hmc.Config(num_samples=8, num_warmup=0, step_size=1e4, adapt="none")
    warnings = " ".join(hmc.run(jax.random.key(0), network, data, config).diagnostics["warnings"])
    assert "Nothing was accepted" in warnings
    assert "Only 1 of 8 draws are distinct" in warnings


@pytest.mark.slow
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


def test_a_number_of_draws_is_never_negative(monkeypatch):
    """Estimated autocorrelations of few draws may add up to less than -1/2."""

    def sizes(kept, **options):
        return np.array([-3.0, np.nan, 7.0])

    monkeypatch.setattr(mixing.array_stats, "ess", sizes)
    found = measure_mixing(normal(2, 10, 3))
    for each in (found.ess, found.tail_ess):
        np.testing.assert_array_equal(each, [0, np.nan, 7])
