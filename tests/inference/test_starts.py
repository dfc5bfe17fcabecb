"""Where chains start: the prior, the network's initialiser, or a network of their own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv import networks
from bnn_adv.inference import METHODS, hmc, mcmc, sgd, sgld, sgmcmc
from bnn_adv.inference.base import RunOptions
from bnn_adv.inference.densities import Data, Prior, logdensity_fn
from bnn_adv.inference.states import Ensemble

NETWORK = networks.MLP((4,), 3, "tanh")
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.uniform(size=(60, 2)), jnp.float32)
DATA = Data(X, (X[:, 0] > 0.5).astype(jnp.int32) + (X[:, 1] > 0.5))
KEY = jax.random.key(4)
TRAINING = Ensemble(num_epochs=40, learning_rate=0.02, minibatch_size=20)
STILL = {"num_samples": 2, "num_warmup": 0, "num_chains": 3, "step_size": 1e-12}
KERNELS = [name for name, module in METHODS.items() if hasattr(module, "build")]


def starts(init, module=hmc, **options):
    """Return where the chains start: draws of chains that cannot move, [chains, ...]."""
    config = module.Config(**STILL, init=init, ensemble=TRAINING, **options)
    samples = module.run(KEY, NETWORK, DATA, config).posterior.samples
    return jax.tree.map(lambda leaf: leaf[:: config.num_samples], samples)


def log_density(params, prior=None):
    def one(own):
        apply_fn = networks.get_apply_fn(NETWORK)
        return logdensity_fn(own, DATA, apply_fn=apply_fn, prior=prior or Prior())

    return jax.vmap(one)(params)


@pytest.mark.slow
def test_an_ensemble_starts_near_modes_of_the_posterior():
    found = {init: starts(init, adapt="none") for init in ("prior", "network", "ensemble")}
    density = {init: log_density(params) for init, params in found.items()}
    assert density["ensemble"].min() > max(density["prior"].max(), density["network"].max()) + 5
    # Each chain has a network of its own.
    weights = found["ensemble"]["logits"]["kernel"].reshape(3, -1)
    assert min(np.linalg.norm(weights[i] - weights[i - 1]) for i in range(3)) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("module", "number"), [(hmc, 4), (sgld, 2)])
def test_members_are_those_of_an_ensemble_under_the_prior(module, number):
    """The prior counts, at any temperature; keys of the chains are other ones."""
    own = {key: value for key, value in vars(TRAINING).items() if key != "warmup"}
    training = sgd.Config(num_members=3, map_prior=True, prior=Prior(0.3), **own)
    options = {"adapt": "none"} if module is hmc else {"thinning": 1, "minibatch_size": 60}
    found = starts("ensemble", module, prior=Prior(0.3), temperature=1e-6, **options)
    key = jax.random.fold_in(KEY, number)
    expected = sgd.run(key, NETWORK, DATA, training).posterior.samples
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_starts_where_it_is_told_to(name):
    module, trained = METHODS[name], sgd.Config(num_members=2, num_epochs=1)
    params = sgd.run(KEY, NETWORK, DATA, trained).posterior.samples
    driver = sgmcmc if issubclass(module.Config, sgmcmc.Config) else mcmc
    options = {} if driver is sgmcmc else {"num_warmup": 2}
    target = driver.Target(module.build, NETWORK, module.Config(num_chains=2, **options), None)
    state = driver.init(KEY, DATA, params, target=target)
    kernel = target.kernel(DATA if driver is mcmc else len(DATA.y))
    own = state.own if driver is mcmc else state
    jax.tree.map(np.testing.assert_array_equal, kernel.position(own), params)


@pytest.mark.slow
def test_gradients_of_the_training_are_counted():
    """Three networks, forty epochs of three minibatches of 25 of 60 examples."""
    training = dataclasses.replace(TRAINING, minibatch_size=25)
    for module in (hmc, sgld):
        options = {"adapt": "none"} if module is hmc else {"thinning": 1}
        config = module.Config(**STILL, init="ensemble", ensemble=training, **options)
        found = module.run(KEY, NETWORK, DATA, config).diagnostics
        assert found["num_starting_gradients"] == pytest.approx(3 * 40 * 3 * 25 / 60)
        assert found["num_warmup_gradients"] == 0
    without = dataclasses.replace(config, init="prior")
    assert "num_starting_gradients" not in sgld.run(KEY, NETWORK, DATA, without).diagnostics


def test_progress_shows_the_training_before_the_first_transition():
    calls = []
    config = hmc.Config(**STILL, init="ensemble", ensemble=TRAINING, adapt="none")
    options = RunOptions(progress=lambda *call: calls.append(call))
    hmc.run(KEY, NETWORK, DATA, config, options)
    first, last = calls[0], calls[-1]
    assert (first[:2], last[:2]) == ((0, 2), (2, 2))
    assert set(first[2]) == {"loss"}
