"""Coordinates of chains: their scales, what they leave alone, and what they are worth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from bnn_adv import networks
from bnn_adv.inference import RunOptions, hmc, preconditioning
from bnn_adv.inference.densities import Data, Prior, logdensity_fn
from bnn_adv.networks import Convolve, get_apply_fn, init_params
from tests.linear_regression import COVARIANCE, DATA, NETWORK, SCALE

KEY = jax.random.key(2)
RNG = np.random.default_rng(0)
ON = {"precondition": 1.0}
LINEAR = hmc.Config(prior=Prior(SCALE), likelihood="gaussian", **ON)


class Mixed(nn.Module):
    """A convolution, a norm whose weights are of no layer, and a dense layer without bias."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(Convolve(2, (2, 2), name="conv")(x))
        x = nn.LayerNorm(name="norm")(x.reshape(len(x), -1))
        return nn.Dense(self.num_classes, use_bias=False, name="out")(x)


class Bare(nn.Module):
    """Has no layer of a known kind."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Conv(3, (2, 2), name="conv")(x).mean(axis=(1, 2))


class Twice(nn.Module):
    """Calls a layer twice."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(3, name="out")
        return layer(nn.tanh(layer(jnp.tile(x, (1, 2))[:, :3])))


class Wide(nn.Module):
    """Sees more inputs than a matrix is kept for."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="out")(jnp.tile(x, (1, 2049)))


def classes(*shape, count=12):
    x = jnp.asarray(RNG.uniform(size=(count, *shape)), jnp.float32)
    return Data(x, jnp.asarray(np.arange(count) % 3))


def test_all_scales_of_a_linear_model_become_the_priors():
    """Its posterior's covariance in v is sigma^2 I exactly."""
    maps = preconditioning.estimate(KEY, NETWORK, DATA, LINEAR)
    inverse = np.asarray(maps.to_coordinates["logits"], np.float64)
    np.testing.assert_allclose(
        inverse @ COVARIANCE @ inverse.T, SCALE**2 * np.eye(3), rtol=1e-4, atol=1e-4
    )


def test_a_power_makes_them_alike_in_part():
    """Half of the way takes the roots of the scales, in units of the prior's."""
    config = dataclasses.replace(LINEAR, precondition=0.5)
    maps = preconditioning.estimate(KEY, NETWORK, DATA, config)
    inverse = np.asarray(maps.to_coordinates["logits"], np.float64)
    found = inverse @ COVARIANCE @ inverse.T / SCALE**2
    np.testing.assert_allclose(found @ found, COVARIANCE / SCALE**2, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.25, 4.0])
def test_of_a_tempered_model_they_become_the_tempered_priors(temperature):
    config = dataclasses.replace(LINEAR, temperature=temperature)
    maps = preconditioning.estimate(KEY, NETWORK, DATA, config)
    inverse = np.asarray(maps.to_coordinates["logits"], np.float64)
    expected = temperature * SCALE**2 * np.eye(3)
    np.testing.assert_allclose(
        inverse @ (temperature * COVARIANCE) @ inverse.T, expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", ["isotropic", "fan_in"])
def test_where_data_say_nothing_coordinates_have_the_scale_of_the_prior(kind):
    """Inputs of zero: only the bias is measured. A kernel's own scale is divided out."""
    data = Data(jnp.zeros((5, 4)), jnp.asarray(np.arange(5) % 3))
    config = hmc.Config(prior=Prior(0.5, kind), **ON)
    maps = preconditioning.estimate(KEY, networks.MLP((), 3), data, config)
    found = np.asarray(maps.to_weights["logits"])
    factor = 0.5 if kind == "fan_in" else 1.0  # the root of four inputs
    np.testing.assert_allclose(found[:4, :4], factor * np.eye(4), atol=1e-6)
    np.testing.assert_allclose(found[4, :4], 0, atol=1e-6)
    assert 0 < found[4, 4] < 1


@pytest.mark.parametrize(
    ("network", "shape"), [(networks.MLP((4,), 3, "tanh"), (2,)), (Mixed(), (4, 3, 1))]
)
def test_both_directions_undo_each_other(network, shape):
    """Weights of no layer stay as they are."""
    maps = preconditioning.estimate(KEY, network, classes(*shape), hmc.Config(**ON))
    params = init_params(jax.random.key(1), network, shape)
    coordinates = preconditioning.apply(maps.to_coordinates, params)
    back = preconditioning.apply(maps.to_weights, coordinates)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    there, here = (flatten_dict(tree, sep="/") for tree in (coordinates, params))
    for name, leaf in flatten_dict(back, sep="/").items():
        np.testing.assert_allclose(leaf, here[name], atol=2e-5)
        changed = np.abs(there[name] - here[name]).max()
        assert changed == 0 if name.startswith("norm/") else changed > 1e-3


@pytest.mark.slow
def test_draws_and_log_densities_are_those_of_weights():
    network, data = networks.MLP((4,), 3, "tanh"), classes(2)
    config = hmc.Config(num_samples=6, num_warmup=5, num_chains=2, step_size=0.1, **ON)
    found = hmc.run(KEY, network, data, config)
    densities = jax.vmap(
        lambda own: logdensity_fn(
            own, data, apply_fn=get_apply_fn(network), prior=config.prior, centred=True
        )
    )(found.posterior.samples)
    recorded = np.asarray(found.chains.sample_stats["lp"]).reshape(-1)
    np.testing.assert_allclose(recorded, densities, rtol=1e-4, atol=1e-3)
    assert len(np.unique(recorded)) > 6


@pytest.mark.slow
@pytest.mark.parametrize("init", ["prior", "network", "ensemble"])
def test_chains_start_at_the_same_weights(init):
    """The coordinates are made before them, from a key of their own."""
    network, data = networks.MLP((4,), 3, "tanh"), classes(2)
    still = {"num_samples": 1, "num_warmup": 0, "num_chains": 2, "step_size": 1e-12}
    found = [
        hmc.run(KEY, network, data, hmc.Config(**still, adapt="none", init=init, **options))
        for options in ({}, ON)
    ]
    a, b = (result.posterior.samples for result in found)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), a, b)


@pytest.mark.slow
def test_steps_are_longer_where_inputs_agree():
    """Twenty inputs that are nearly one and the same: the narrowest direction is that of all."""
    common = RNG.uniform(0.5, 1.0, size=(200, 1))
    x = jnp.asarray(common + 0.05 * RNG.normal(size=(200, 20)), jnp.float32)
    data = Data(x, jnp.asarray(common[:, 0] > 0.75, jnp.int32))
    network = networks.MLP((4,), 2, "relu")
    settings = {
        **{"num_samples": 5, "num_warmup": 60, "num_chains": 2, "num_integration_steps": 5},
        **{"adapt": "step_size", "step_size": 0.01},
    }
    sizes = [
        np.mean(hmc.run(KEY, network, data, hmc.Config(**settings, **on)).diagnostics["step_size"])
        for on in ({}, ON)
    ]
    assert sizes[1] > 3 * sizes[0]


@pytest.mark.slow
def test_what_the_coordinates_take_is_counted():
    """One backward pass an output and draw of the prior."""
    config = hmc.Config(num_samples=1, num_warmup=0, num_chains=1, adapt="none", **ON)
    found = hmc.run(KEY, networks.MLP((4,), 3, "tanh"), classes(2), config, RunOptions())
    assert found.diagnostics["num_starting_gradients"] == 3 * preconditioning.NUM_DRAWS
    off = dataclasses.replace(config, precondition=0.0)
    without = hmc.run(KEY, networks.MLP((4,), 3, "tanh"), classes(2), off).diagnostics
    assert "num_starting_gradients" not in without


def test_a_curvature_that_is_not_finite_is_refused():
    config = hmc.Config(prior=Prior(1e25), likelihood="gaussian", **ON)
    data = Data(jnp.ones((4, 2)), jnp.ones((4, 1)))
    with pytest.raises(ValueError, match=r"not finite at draws of this prior\. Give 0"):
        preconditioning.estimate(KEY, networks.MLP((4, 4), 1), data, config)


@pytest.mark.parametrize(
    ("network", "shape", "words"),
    [
        (Bare(), (4, 3, 1), "layers Dense or Convolve, and this one has Conv. Give 0."),
        (Twice(), (2,), "layers that are called once. Give 0."),
        (Wide(), (2,), "of at most 4,096, and out has 4,099. Give 0."),
    ],
)
def test_networks_without_such_layers_are_refused(network, shape, words):
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        hmc.run(KEY, network, classes(*shape), hmc.Config(num_warmup=1, **ON))
