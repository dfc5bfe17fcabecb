"""Stochastic-gradient chains on posteriors known in closed form or by quadrature."""

import jax
import numpy as np
import pytest
from scipy.linalg import block_diag, solve_discrete_lyapunov

from bnn_adv.inference import METHODS
from bnn_adv.inference.densities import Prior
from tests.linear_regression import (
    COVARIANCE,
    DATA,
    MEAN,
    NETWORK,
    SCALE,
    assert_within_five_standard_errors,
    flatten,
)

PRECISION = np.linalg.inv(COVARIANCE)
EYE = np.eye(3)


def run_regression(method, **options):
    config = METHODS[method].Config(
        num_chains=2, prior=Prior(SCALE), likelihood="gaussian", **options
    )
    result = METHODS[method].run(jax.random.key(1), NETWORK, DATA, config)
    return config, flatten(result.posterior)


def covariance_of(method, config):
    """Return the covariance of draws whose gradients are exact, at any step."""
    size, temperature = config.step_size, config.temperature
    if method == "sgld":
        return solve_discrete_lyapunov(EYE - size * PRECISION, 2 * size * temperature * EYE)
    if method == "sghmc":
        keep = 1 - config.friction * size
        matrix = np.block(
            [[EYE, size * EYE], [-size * PRECISION, keep * EYE - size**2 * PRECISION]]
        )
        noise = 2 * config.friction - size * temperature * config.gradient_variance
        spread = block_diag(0 * EYE, size * temperature * noise * EYE)
        return solve_discrete_lyapunov(matrix, spread)[:3, :3]
    cycle, covariance, found = config.cycle, 0 * EYE, []
    for index in range(3 * cycle.length):  # the later cycles are stationary
        place = index % cycle.length
        step = size / 2 * (1 + np.cos(np.pi * place / cycle.length))
        matrix = EYE - step * PRECISION
        noise = 2 * step * temperature * (place >= cycle.exploration)
        covariance = matrix @ covariance @ matrix.T + noise * EYE
        if cycle.count_draws(index + 1) > cycle.count_draws(index):
            found.append(covariance)
    return np.mean(found[-cycle.num_draws :], axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("sgld", {"step_size": 0.02, "thinning": 3}),
        ("sghmc", {"step_size": 0.1, "friction": 5.0, "thinning": 4}),
        ("sghmc", {"step_size": 0.1, "friction": 5.0, "thinning": 4, "gradient_variance": 60.0}),
        ("csgmcmc", {"step_size": 0.03, "thinning": 4, "exploration": 0.3}),
    ],
)
def test_exact_gradients_give_the_law_of_the_discretised_dynamics(method, options, temperature):
    """Steps are so long that the posterior itself would fail: the noise is right to a few %."""
    config, draws = run_regression(
        method,
        num_samples=2000,
        num_warmup=200,
        minibatch_size=40,
        temperature=temperature,
        **options,
    )
    expected = covariance_of(method, config)
    assert_within_five_standard_errors(draws, 2, expected)
    assert np.abs(expected / (temperature * COVARIANCE) - 1).max() > 0.1


SHORT = {
    "sgld": {"step_size": 5e-4, "thinning": 100},
    "sghmc": {"step_size": 0.01, "friction": 15.0, "thinning": 100},
    "csgmcmc": {"step_size": 2e-3, "thinning": 100, "exploration": 0.3},
}
SHORT_STEPS = pytest.mark.parametrize("method", SHORT)


@pytest.mark.slow
@SHORT_STEPS
def test_short_steps_on_minibatches_give_the_posterior(method):
    """A quarter of the data each; all but the step's own bias must be gone."""
    _, draws = run_regression(
        method, num_samples=1000, num_warmup=1000, minibatch_size=10, **SHORT[method]
    )
    spread = np.sqrt(np.diag(COVARIANCE))
    assert (np.abs(draws.mean(axis=0) - MEAN) < 0.12 * spread).all()
    ratio = np.cov(draws.T) / np.outer(spread, spread)
    np.testing.assert_allclose(ratio, COVARIANCE / np.outer(spread, spread), atol=0.12)
