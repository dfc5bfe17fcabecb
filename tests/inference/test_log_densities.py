"""Energies and log densities of chains, against closed forms."""

import numpy as np
import pytest

from bnn_adv.inference.log_densities import compare_log_densities, is_adjusted
from bnn_adv.inference.mixing import measure_bfmi


def walk(rho, chains, draws, seed=0):
    """Stationary AR(1) chains with variance 1."""
    noise = np.random.default_rng(seed).normal(size=(chains, draws))
    values = noise.copy()
    for n in range(1, draws):
        values[:, n] = rho * values[:, n - 1] + np.sqrt(1 - rho**2) * noise[:, n]
    return values


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_bfmi_of_energies_with_known_autocorrelation(rho):
    """E (E_n - E_(n-1))^2 = 2 (1 - rho) var E."""
    found = measure_bfmi(1e4 + 7 * walk(rho, 3, 20_000))
    np.testing.assert_allclose(found, 2 * (1 - rho), rtol=0.08)


def test_bfmi_is_left_open_where_it_is_not_defined():
    energies = np.stack([np.ones(20), np.full(20, np.inf), np.arange(20.0)])
    found = measure_bfmi(energies)
    assert np.isnan(found[:2]).all()
    assert found[2] == pytest.approx(1 / np.var(np.arange(20), ddof=1))
    assert np.isnan(measure_bfmi(energies[:, :3])).all()


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_interval_is_that_of_the_autocorrelation(rho):
    """Var of a mean of n draws: (1 + rho) / (1 - rho) / n."""
    one, other = ({"log_density": walk(rho, 4, 1000, seed).tolist()} for seed in (1, 2))
    found = compare_log_densities(one, other)
    half = 1.96 * np.sqrt(2 * (1 + rho) / (1 - rho) / 4000)
    assert found.is_judged
    assert np.diff(found.interval)[0] / 2 == pytest.approx(half, rel=0.15)
    assert found.nats == pytest.approx(np.mean(one["log_density"]) - np.mean(other["log_density"]))
    assert abs(found.nats) < 2 * half
    assert "is not told from 0" in found.sentence


def test_draws_elsewhere_are_called_so():
    lower, usual = walk(0.5, 2, 500) - 3, walk(0.5, 2, 500, seed=3)
    found = compare_log_densities({"log_density": lower}, {"log_density": usual}, ("mclmc", "nuts"))
    assert abs(found.nats + 3) < 5 * (found.interval[1] - found.nats) / 1.96
    assert found.interval[1] < 0
    assert "log density of mclmc is below that of nuts by -" in found.sentence
    swapped = compare_log_densities({"log_density": usual}, {"log_density": lower})
    assert "above" in swapped.sentence
    assert swapped.nats == -found.nats


def test_nothing_is_said_of_chains_that_have_not_settled():
    usual, apart = walk(0, 2, 300), walk(0, 2, 300) + np.array([[0.0], [5.0]])
    found = compare_log_densities({"log_density": usual}, {"log_density": apart}, ("sgld", "hmc"))
    assert not found.is_judged
    assert found.sentence.startswith("Not judged: the log density of hmc (R-hat")
    lost = {"log_density": walk(0, 2, 300) + 5, "max_rhat": 2.3}
    found = compare_log_densities({"log_density": usual}, lost, ("sgld", "hmc"))
    assert not found.is_judged
    assert found.sentence == "Not judged: hmc has not mixed (maximum R-hat 2.30)."
    holes = {"log_density": [[1.0, None, 2.0, 3.0, 1.0]] * 2}
    assert compare_log_densities({"log_density": usual}, holes) is None
    assert compare_log_densities({"log_density": usual}, {"log_density": [[1.0, 2.0]]}) is None


def test_a_metropolis_test_is_known_by_its_acceptance():
    assert is_adjusted({"log_density": [[1.0]], "acceptance_rate": 0.8}) is True
    assert is_adjusted({"log_density": [[1.0]]}) is False
    assert is_adjusted({"loss": [1.0]}) is None
