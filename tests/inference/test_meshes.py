"""Training on a mesh of four virtual devices gives what one device gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv import networks
from bnn_adv.compute import parallel
from bnn_adv.inference import (
    METHODS,
    RunOptions,
    adjusted_mclmc,
    csgmcmc,
    hmc,
    laplace,
    mc_dropout,
    mclmc,
    mcmc,
    nuts,
    sgd,
    sghmc,
    sgld,
    svi,
    swag,
)
from bnn_adv.inference.densities import Data
from bnn_adv.inference.robust import Robust
from bnn_adv.inference.states import Ensemble

NETWORK = networks.MLP((4,), 3, "tanh")
KEY = jax.random.key(5)
FIT: dict[str, int] = {"num_samples": 2, "num_epochs": 2, "minibatch_size": 8}
CHAINS: dict[str, int] = {"num_samples": 3, "num_warmup": 2, "num_chains": 4}
BATCHES: dict[str, int] = {**CHAINS, "minibatch_size": 8, "thinning": 2}
CASES = {
    "ensemble": (sgd, sgd.Config(num_members=4, num_epochs=2, minibatch_size=8, member_chunk=1)),
    "one network": (sgd, sgd.Config(num_epochs=2, minibatch_size=8)),
    "attacked": (
        sgd,
        sgd.Config(num_epochs=2, minibatch_size=8, robust=Robust("pgd", num_steps=1)),
    ),
    "svi": (svi, svi.Config(**FIT)),
    "laplace": (laplace, laplace.Config(**FIT)),
    "laplace of all layers": (laplace, laplace.Config(**FIT, structure="kronecker")),
    "mc_dropout": (mc_dropout, mc_dropout.Config(**FIT, rate=0.5)),
    "swag": (swag, swag.Config(**FIT, num_runs=2, num_swag_epochs=2)),
    "hmc": (
        hmc,
        hmc.Config(
            num_samples=3, num_warmup=2, num_chains=4, num_integration_steps=2, step_size=0.01
        ),
    ),
    "hmc from an ensemble": (
        hmc,
        hmc.Config(
            **{**CHAINS, "num_samples": 2},
            step_size=0.01,
            trajectory_length=0.03,
            jitter=0.5,
            init="ensemble",
            ensemble=Ensemble(num_epochs=2, minibatch_size=8),
        ),
    ),
    "hmc in other coordinates": (
        hmc,
        hmc.Config(**CHAINS, step_size=0.01, num_integration_steps=2, precondition=0.5),
    ),
    "nuts": (nuts, nuts.Config(**CHAINS, max_num_doublings=2, step_size=0.01)),
    "mclmc": (mclmc, mclmc.Config(**CHAINS, step_size=0.05, length=1.0, num_tune=20)),
    "adjusted_mclmc": (
        adjusted_mclmc,
        adjusted_mclmc.Config(**CHAINS, step_size=0.05, num_integration_steps=2.0),
    ),
    "sgld": (sgld, sgld.Config(**BATCHES, step_size=1e-3)),
    "sghmc": (sghmc, sghmc.Config(**BATCHES, step_size=0.01, friction=10.0)),
    "csgmcmc": (csgmcmc, csgmcmc.Config(**BATCHES, step_size=1e-3, samples_per_cycle=3)),
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(40, 2)).astype(np.float32)
    return Data(jnp.asarray(x), jnp.asarray(np.arange(40) % 3, jnp.int32))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mesh"),
    [
        ("ensemble", "draws:2,data:2"),
        ("one network", "draws:4"),  # cannot be split: it runs whole on every device
        ("attacked", "data:4"),
        ("svi", "draws:2,data:2"),
        ("laplace", "draws:2,data:2"),
        ("laplace of all layers", "data:4"),
        ("mc_dropout", "draws:2,data:2"),
        ("swag", "draws:2,data:2"),
        ("hmc", "draws:2,data:2"),
        ("hmc from an ensemble", "draws:2,data:2"),
        ("hmc in other coordinates", "draws:2,data:2"),
        ("nuts", "draws:4"),
        ("mclmc", "draws:2,data:2"),
        ("adjusted_mclmc", "draws:4"),
        ("sgld", "draws:2,data:2"),
        ("sghmc", "draws:4"),
        ("csgmcmc", "draws:2,data:2"),
    ],
)
def test_equals_one_device(name, mesh, data):
    method, config = CASES[name]
    alone = method.run(KEY, NETWORK, data, config)
    found = method.run(KEY, NETWORK, data, config, RunOptions(mesh=parallel.make_mesh(mesh)))
    for a, b in zip(
        jax.tree.leaves(found.posterior.samples),
        jax.tree.leaves(alone.posterior.samples),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
        assert len(a.sharding.device_set) == 1


def test_every_case_is_covered():
    assert {method for method, _ in CASES.values()} == set(METHODS.values())


@pytest.mark.slow
def test_full_batch_gradients_are_computed_where_the_data_are(data):
    """HMC's program sums over devices and moves no data between them."""
    config = CASES["hmc"][1]
    mesh = parallel.make_mesh("data:4")
    spread = parallel.spread(data, mesh, "data")
    target = mcmc.Target(hmc.build, NETWORK, config, None)
    state = parallel.replicate(mcmc.init(KEY, data, target=target), mesh)
    text = mcmc.step.lower(KEY, state, spread, 0, 1, target=target).compile().as_text()
    assert "all-reduce" in text
    assert "f32[40,2]" not in text  # every device holds ten of the forty examples
    assert "f32[10,2]" in text
