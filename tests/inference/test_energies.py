"""Energies of millions of parameters against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.mcmc import metrics

from bnn_adv.inference.densities import Prior, accurate_sum, log_prior
from bnn_adv.inference.energies import centred_metric

SIZE = 11_000_003


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(0).normal(size=SIZE).astype(np.float32)


def moved(weights):
    return (weights * np.float32(1.0001)).astype(np.float32)


@pytest.mark.slow
def test_differences_of_the_kinetic_energy(weights):
    inverse = jnp.full((SIZE,), 0.25, jnp.float32)
    before, after = 2 * weights, 2 * moved(weights)
    exact = float(np.sum(after.astype(np.float64) ** 2 - before.astype(np.float64) ** 2) / 8)
    energy = jax.jit(lambda p: centred_metric(inverse).kinetic_energy({"w": p}))
    assert float(energy(after)) - float(energy(before)) == pytest.approx(exact, abs=0.02)
    # BlackJAX's own, of the order of half the dimension, is off by more than this allows.
    plain = jax.jit(lambda p: metrics.default_metric(inverse).kinetic_energy({"w": p}))
    assert abs(float(plain(after)) - float(plain(before)) - exact) > 0.02


@pytest.mark.slow
def test_differences_of_the_log_prior(weights):
    prior = Prior(2.0)
    before, after = 2 * weights, 2 * moved(weights)
    exact = float(np.sum(before.astype(np.float64) ** 2 - after.astype(np.float64) ** 2)) / 8
    density = jax.jit(lambda w: log_prior({"w": w}, prior, centred=True))
    assert float(density(after)) - float(density(before)) == pytest.approx(exact, abs=0.02)


@pytest.mark.slow
def test_centring_changes_a_constant_and_no_gradient():
    rng = np.random.default_rng(1)
    one, two = ({"k": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)} for _ in range(2))
    prior = Prior(0.7, "fan_in")
    for a, b in ((one, two), (two, one)):
        plain, centred = (
            log_prior(a, prior, centred=c) - log_prior(b, prior, centred=c) for c in (False, True)
        )
        assert float(centred) == pytest.approx(float(plain), rel=1e-4)
    gradients = (
        jax.grad(lambda p, c=c: log_prior(p, prior, centred=c))(one)["k"] for c in (False, True)
    )
    np.testing.assert_allclose(*gradients, rtol=1e-5)
    metric = centred_metric(jnp.asarray([0.5, 2.0, 1.0]))
    momentum = jnp.asarray([1.0, -2.0, 3.0])
    assert float(metric.kinetic_energy(momentum)) == pytest.approx((0.5 + 8 + 9 - 3) / 2)
    np.testing.assert_allclose(jax.grad(metric.kinetic_energy)(momentum), [0.5, -4.0, 3.0])


@pytest.mark.parametrize("size", [0, 1, 2, 10, 101])
def test_accurate_sum_of_any_size(size):
    assert float(accurate_sum(jnp.arange(size, dtype=jnp.float32))) == size * (size - 1) / 2
