"""Samplers on a posterior known in closed form: Bayesian linear regression."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.inference import METHODS, hmc, laplace, sgd, svi, swag
from bnn_adv.inference.densities import Data, Prior
from tests.linear_regression import (
    COVARIANCE,
    DATA,
    DESIGN,
    MEAN,
    NETWORK,
    SCALE,
    X,
    Y,
    assert_within_five_standard_errors,
    flatten,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("hmc", {"adapt": "window", "num_integration_steps": 3, "target_acceptance_rate": 0.9}),
        (
            "hmc",
            {"adapt": "step_size", "trajectory_length": 0.3125, "target_acceptance_rate": 0.95},
        ),
        (
            "hmc",
            {
                "adapt": "step_size",
                "trajectory_length": 0.6,
                "jitter": 0.9,
                "target_acceptance_rate": 0.9,
                "init": "ensemble",
            },
        ),
        ("hmc", {"adapt": "none", "num_integration_steps": 7, "step_size": 0.04}),
        (
            "hmc",
            {
                "adapt": "step_size",
                "trajectory_length": 1.3,
                "target_acceptance_rate": 0.9,
                "precondition": 1.0,
            },
        ),
        ("nuts", {"adapt": "window"}),
        ("nuts", {"adapt": "step_size", "precondition": 0.5}),
        ("mclmc", {"num_tune": 1000, "thinning": 4}),
        ("mclmc", {"num_tune": 1000, "thinning": 4, "precondition": 0.5}),
        ("adjusted_mclmc", {"num_integration_steps": 3.0, "step_size": 0.02}),
        ("adjusted_mclmc", {"num_integration_steps": 3.0, "adapt": "tuner"}),
    ],
)
def test_chains_recover_mean_and_covariance(method, options):
    """Trajectories are kept clear of the half period, where HMC's draws alternate."""
    module = METHODS[method]
    if not method.endswith("mclmc"):
        options = {"step_size": 0.05, **options}
    config = module.Config(
        num_samples=1000,
        num_warmup=300,
        num_chains=2,
        prior=Prior(SCALE),
        likelihood="gaussian",
        **options,
    )
    result = module.run(jax.random.key(1), NETWORK, DATA, config)
    assert_within_five_standard_errors(flatten(result.posterior), chains=2)
    found = result.diagnostics
    assert found["num_divergent"] == 0
    if getattr(config, "adapt", "none") in ("window", "step_size"):
        # Dual averaging ends above its target in few dimensions; the step has grown from its start.
        assert 0.6 < found["acceptance_rate"] < 0.99
        assert min(found["step_size"]) > 1.2 * config.step_size
    if method == "mclmc":
        # Nothing is rejected, and of the energy little is lost.
        assert "acceptance_rate" not in found
        assert found["mean_abs_energy_error"] < 0.1


@pytest.mark.slow
def test_low_rank_guide_recovers_mean_and_covariance():
    """Of two nearly collinear inputs, whose weights a factorised guide cannot describe."""
    x = X @ np.array([[1.0, 0.9], [0.0, 0.3]], np.float32)
    design = np.concatenate([x, np.ones((40, 1))], axis=1).astype(np.float64)
    covariance = np.linalg.inv(design.T @ design + np.eye(3) / SCALE**2)
    mean = covariance @ design.T @ Y[:, 0]
    assert covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]) < -0.8
    config = svi.Config(
        num_epochs=4000,
        learning_rate=0.005,
        minibatch_size=40,
        guide="low_rank",
        rank=2,
        num_samples=4000,
        init_scale=0.1,
        prior=Prior(SCALE),
        likelihood="gaussian",
    )
    data = Data(jnp.asarray(x), DATA.y)
    draws = flatten(svi.run(jax.random.key(0), NETWORK, data, config).posterior)
    # A stochastic optimum, not draws of the target: within a share of a standard deviation.
    spread = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(axis=0) - mean) < 0.25 * spread).all()
    np.testing.assert_allclose(
        np.cov(draws.T) / np.outer(spread, spread), covariance / np.outer(spread, spread), atol=0.25
    )


@pytest.mark.slow
@pytest.mark.parametrize("minibatch_size", [40, 10])
def test_mean_field_guide_recovers_its_closed_form(minibatch_size):
    """The best factorised Gaussian has the exact mean and the inverse diagonal precision."""
    config = svi.Config(
        num_epochs=1200 if minibatch_size == 40 else 400,
        learning_rate=0.005,
        minibatch_size=minibatch_size,
        num_samples=4000,
        init_scale=0.1,
        prior=Prior(SCALE),
        likelihood="gaussian",
    )
    draws = flatten(svi.run(jax.random.key(0), NETWORK, DATA, config).posterior)
    spread = 1 / np.sqrt(np.diag(np.linalg.inv(COVARIANCE)))
    assert (np.abs(draws.mean(axis=0) - MEAN) < 0.2 * spread).all()
    np.testing.assert_allclose(draws.std(axis=0), spread, rtol=0.15)


@pytest.mark.slow
def test_published_kl_weight_is_as_if_there_were_fewer_data():
    """The likelihood of a minibatch against the full KL: the variance of B data, not of N."""
    config = svi.Config(
        num_epochs=600,
        learning_rate=0.01,
        minibatch_size=10,
        num_samples=4000,
        init_scale=0.1,
        kl_weight="published",
        prior=Prior(SCALE),
        likelihood="gaussian",
    )
    draws = flatten(svi.run(jax.random.key(0), NETWORK, DATA, config).posterior)
    precision = (DESIGN.T @ DESIGN) / 4 + np.eye(3) / SCALE**2
    np.testing.assert_allclose(draws.std(axis=0), 1 / np.sqrt(np.diag(precision)), rtol=0.2)


FULL_BATCH = {"num_epochs": 1500, "minibatch_size": 40, "likelihood": "gaussian"}


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.8, 0.1])
def test_sgd_under_a_prior_finds_the_mode(scale):
    config = sgd.Config(**FULL_BATCH, learning_rate=0.01, map_prior=True, prior=Prior(scale))
    found = flatten(sgd.run(jax.random.key(0), NETWORK, DATA, config).posterior)
    mode = np.linalg.solve(DESIGN.T @ DESIGN + np.eye(3) / scale**2, DESIGN.T @ Y[:, 0])
    np.testing.assert_allclose(found[0], mode, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["last_layer", "kronecker", "diagonal"])
@pytest.mark.parametrize(
    ("prior", "temperature"), [(Prior(SCALE), 1.0), (Prior(0.2, "fan_in"), 0.25)]
)
def test_laplace_is_exact_where_the_posterior_is_gaussian(structure, prior, temperature):
    """One Kronecker block with one output is the whole matrix; the diagonal is its diagonal."""
    config = laplace.Config(
        **FULL_BATCH,
        structure=structure,
        num_samples=4000,
        learning_rate=0.01,
        prior=prior,
        temperature=temperature,
    )
    draws = flatten(laplace.run(jax.random.key(0), NETWORK, DATA, config).posterior)
    scales = prior.scale / np.sqrt([2, 2, 1] if prior.kind == "fan_in" else [1, 1, 1])
    precision = DESIGN.T @ DESIGN + np.diag(scales**-2)
    mean = np.linalg.solve(precision, DESIGN.T @ Y[:, 0])
    kept = np.diag(np.diag(precision)) if structure == "diagonal" else precision
    covariance = temperature * np.linalg.inv(kept)
    assert_within_five_standard_errors(draws, mean=mean, covariance=covariance)


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["last_layer", "kronecker"])
def test_laplace_says_how_far_from_the_mode_it_is(structure):
    config = laplace.Config(
        num_epochs=60,
        minibatch_size=40,
        likelihood="gaussian",
        structure=structure,
        learning_rate=0.01,
        prior=Prior(SCALE),
        temperature=0.01,
    )
    short = laplace.run(jax.random.key(0), NETWORK, DATA, config)
    (mode, _) = short.sampler.draw.args
    off = np.append(mode["logits"]["kernel"], mode["logits"]["bias"]) - MEAN
    gain = off @ np.linalg.inv(COVARIANCE) @ off / 2
    assert gain > 0.15
    # 50 squares of a Gaussian: their mean is right to a fifth.
    assert abs(short.diagnostics["mode_gain"] / gain - 1) < 1
    assert "nats below the posterior's mode" in short.diagnostics["warnings"][0]
    longer = dataclasses.replace(config, num_epochs=1500)
    found = laplace.run(jax.random.key(0), NETWORK, DATA, longer).diagnostics
    assert found["mode_gain"] < 1e-4
    assert not found["warnings"]


@pytest.mark.slow
def test_swag_is_centred_on_the_mode():
    """Full batches: its iterates have nothing but the mode to move around."""
    config = swag.Config(
        num_epochs=200,
        num_swag_epochs=10,
        minibatch_size=40,
        num_samples=20,
        prior=Prior(SCALE),
        likelihood="gaussian",
    )
    draws = flatten(swag.run(jax.random.key(0), NETWORK, DATA, config).posterior)
    np.testing.assert_allclose(draws, np.broadcast_to(MEAN, draws.shape), atol=1e-3)


@pytest.mark.slow
def test_temperature_scales_the_covariance():
    """Steps half as long as at T = 1: of a quarter of the temperature, scales are half as large."""
    config = hmc.Config(
        num_samples=1000,
        num_warmup=200,
        num_chains=2,
        adapt="none",
        step_size=0.02,
        num_integration_steps=7,
        prior=Prior(SCALE),
        likelihood="gaussian",
        temperature=0.25,
    )
    draws = flatten(hmc.run(jax.random.key(2), NETWORK, DATA, config).posterior)
    assert_within_five_standard_errors(draws, chains=2, covariance=0.25 * COVARIANCE)
