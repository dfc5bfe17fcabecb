"""Every method on Bayesian logistic regression, whose posterior is known by quadrature."""

import jax
import numpy as np
import pytest

from bnn_adv.inference import METHODS, laplace, sgd, svi, swag
from tests.logistic_regression import (
    DATA,
    NETWORK,
    assert_is_posterior,
    find_mode,
    integrate,
    split,
)

CHAINS = {
    "hmc": {"adapt": "step_size", "trajectory_length": 1.3, "step_size": 0.1},
    "nuts": {"adapt": "window", "step_size": 0.1},
    "mclmc": {"num_tune": 1000, "thinning": 4},
    "adjusted_mclmc": {"num_integration_steps": 4.0, "adapt": "tuner"},
}
# Short steps, whose bias is small beside the spread of the posterior.
STOCHASTIC = {
    "sgld": {"step_size": 5e-3},
    "sghmc": {"step_size": 0.05, "friction": 5.0},
    "csgmcmc": {"step_size": 0.02, "exploration": 0.3},
}
OTHERS = {"laplace", "mc_dropout", "sgd", "svi", "swag"}
"""No samplers of the posterior; mc_dropout has its own test in closed form."""


def test_every_method_has_a_target():
    assert {*CHAINS, *STOCHASTIC, *OTHERS} == set(METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("method", CHAINS)
def test_chains_agree_with_quadrature(method):
    module = METHODS[method]
    config = module.Config(num_samples=1000, num_warmup=300, num_chains=2, **CHAINS[method])
    result = module.run(jax.random.key(2), NETWORK, DATA, config)
    # Microcanonical Langevin without a test of Metropolis is biased by its steps.
    assert_is_posterior(result.posterior, 2, tolerance=0.05 if method == "mclmc" else 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("method", STOCHASTIC)
def test_minibatches_agree_with_quadrature(method):
    module = METHODS[method]
    config = module.Config(
        **{"num_samples": 1000, "num_warmup": 2000, "num_chains": 2, "thinning": 100},
        **{"minibatch_size": 10, **STOCHASTIC[method]},
    )
    result = module.run(jax.random.key(2), NETWORK, DATA, config)
    assert_is_posterior(result.posterior, 2, tolerance=0.08)


TRAINED = {"num_epochs": 2000, "minibatch_size": 40, "learning_rate": 0.01}


@pytest.mark.slow
def test_a_network_under_the_prior_is_the_mode():
    config = sgd.Config(**TRAINED, map_prior=True)
    differences, sums = split(sgd.run(jax.random.key(0), NETWORK, DATA, config).posterior)
    mode, _ = find_mode()
    # The posterior's mean is another point.
    assert np.abs(integrate()[0] - mode).max() > 0.01
    np.testing.assert_allclose(differences[0], mode, atol=1e-3)
    np.testing.assert_allclose(sums[0], 0, atol=1e-3)


@pytest.mark.slow
def test_laplace_has_the_curvature_of_the_mode():
    """Of a linear model the generalised Gauss-Newton matrix is the Hessian."""
    config = laplace.Config(**TRAINED, num_samples=4000, structure="last_layer")
    differences, sums = split(laplace.run(jax.random.key(0), NETWORK, DATA, config).posterior)
    mode, curvature = find_mode()
    covariance = np.linalg.inv(curvature)
    for draws, mean, spread in ((differences, mode, covariance), (sums, 0, 2 * np.eye(2))):
        errors = np.sqrt(np.diag(spread) / len(draws))
        assert (np.abs(draws.mean(axis=0) - mean) < 5 * errors).all()
        variances = np.outer(np.diag(spread), np.diag(spread)) + spread**2
        assert (np.abs(np.cov(draws.T) - spread) < 5 * np.sqrt(variances / len(draws))).all()


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["mean_field", "low_rank"])
def test_variational_inference_has_the_spread_of_its_family(guide):
    """The likelihood couples its four weights, by their difference.

    Of the precision h + 1 of each a factorised guide has the variance 1 / (h + 1), whose
    differences are too wide and sums too narrow; two ranks are enough for the posterior.
    """
    config = svi.Config(
        **{"num_epochs": 4000, "minibatch_size": 40, "init_scale": 0.1},
        **{"num_samples": 4000, "guide": guide},
        learning_rate=0.002 if guide == "mean_field" else 0.005,
        **({"rank": 2} if guide == "low_rank" else {}),
    )
    differences, sums = split(svi.run(jax.random.key(0), NETWORK, DATA, config).posterior)
    mean, covariance = integrate()
    spread = np.sqrt(np.diag(covariance))
    # A stochastic optimum, not draws of the target: within a share of a standard deviation.
    assert (np.abs(differences.mean(axis=0) - mean) < 0.25 * spread).all()
    found = np.stack([differences.std(axis=0), sums.std(axis=0)])
    expected = np.stack([spread, np.full(2, np.sqrt(2))])
    if guide == "mean_field":
        _, curvature = find_mode()
        narrow = np.sqrt(2 / (np.diag(curvature) + 0.5))
        assert (np.abs(narrow / expected - 1) > 0.2).all()
        expected = np.stack([narrow, narrow])
    np.testing.assert_allclose(found / expected, 1, atol=0.2)


@pytest.mark.slow
def test_swag_is_centred_on_the_mode():
    config = swag.Config(num_epochs=400, num_swag_epochs=20, minibatch_size=40, num_samples=50)
    differences, _ = split(swag.run(jax.random.key(0), NETWORK, DATA, config).posterior)
    mode, curvature = find_mode()
    spread = np.sqrt(np.diag(np.linalg.inv(curvature)))
    assert (np.abs(differences.mean(axis=0) - mode) < 0.1 * spread).all()
