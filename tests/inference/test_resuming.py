"""However training is cut into calls and starts, the result is the same to the bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv import networks
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.compute.checkpoint_store import Saved
from bnn_adv.compute.identity import OtherWorkError
from bnn_adv.compute.pacing import Pacer
from bnn_adv.inference import METHODS, RunOptions, chains, mcmc, sgmcmc
from bnn_adv.inference.densities import Data
from bnn_adv.inference.robust import Robust
from bnn_adv.inference.states import Ensemble

NETWORK = networks.MLP((), 3)
RNG = np.random.default_rng(0)
DATA = Data(
    jnp.asarray(RNG.uniform(size=(50, 2)), jnp.float32), jnp.asarray(np.arange(50) % 3, jnp.int32)
)
CHAINS = {"num_samples": 6, "num_warmup": 5, "num_chains": 2}
BATCHES = {**CHAINS, "minibatch_size": 16, "thinning": 3}
HMC = {**CHAINS, "step_size": 0.01}
SGD = {"num_epochs": 3, "minibatch_size": 16}
SVI = {"num_samples": 3, "num_epochs": 3, "minibatch_size": 16}
CASES = {
    "one network": ("sgd", SGD),
    "ensemble": ("sgd", {**SGD, "num_members": 3, "member_chunk": 2}),
    "mean field": ("svi", SVI),
    "attacked": ("svi", {**SVI, "robust": Robust("pgd", num_steps=2, warmup=0.8)}),
    "low rank": ("svi", {**SVI, "guide": "low_rank", "rank": 2}),
    "laplace": ("laplace", SVI),
    "mc_dropout": ("mc_dropout", {**SVI, "input_rate": 0.5}),
    "swag": ("swag", {**SVI, "num_epochs": 1, "num_swag_epochs": 3, "rank": 2, "num_runs": 2}),
    "hmc": ("hmc", {**HMC, "thinning": 3, "num_integration_steps": 3}),
    "hmc from an ensemble": (
        "hmc",
        {
            **{**HMC, "init": "ensemble", "ensemble": Ensemble(num_epochs=2)},
            **{"trajectory_length": 0.03, "jitter": 0.8},
        },
    ),
    "hmc in other coordinates": (
        "hmc",
        {**HMC, "num_integration_steps": 3, "precondition": 0.5},
    ),
    "nuts": ("nuts", {**HMC, "max_num_doublings": 3, "thinning": 2}),
    "mclmc": ("mclmc", {**CHAINS, "num_tune": 20, "thinning": 3}),
    "adjusted_mclmc": ("adjusted_mclmc", {**CHAINS, "step_size": 0.05, "thinning": 2}),
    "sgld": ("sgld", {**BATCHES, "step_size": 1e-3}),
    "sghmc": ("sghmc", {**BATCHES, "step_size": 0.01, "friction": 10.0}),
    "csgmcmc": ("csgmcmc", {**BATCHES, "step_size": 1e-3, "samples_per_cycle": 2}),
}


class Unplugged(Exception):
    """Stands for a process that is gone: nothing is saved on the way out."""


class Unreliable(Checkpoints):
    """Checkpoints of a process that dies after some ticks."""

    def __init__(self, folder, *, ticks, error=Unplugged, **options):
        super().__init__(folder, every_seconds=None, log=lambda message: None, **options)
        self.left, self.error = ticks, error

    def tick(self, step, tree, meta=None):
        super().tick(step, tree, meta)
        self.left -= 1
        if not self.left:
            raise self.error


def run(case, checkpoints=None, **changes):
    method, options = CASES[case]
    module = METHODS[method]
    config = module.Config(**{**options, **changes})
    calls = []
    result = module.run(
        jax.random.key(5),
        NETWORK,
        DATA,
        config,
        RunOptions(
            progress=lambda done, total, numbers: calls.append(done), checkpoints=checkpoints
        ),
    )
    assert calls == sorted(calls)
    return result


def assert_same(one, other):
    assert one.diagnostics == other.diagnostics
    jax.tree.map(np.testing.assert_array_equal, one.chains, other.chains)
    jax.tree.map(np.testing.assert_array_equal, one.posterior.samples, other.posterior.samples)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_cuts_and_restarts_change_nothing(case, tmp_path, monkeypatch):
    whole = run(case)
    # Calls of random lengths, and starts that end after two or three of them, until it is done.
    random = np.random.default_rng(1)
    monkeypatch.setattr(Pacer, "next", lambda self, most: int(random.integers(1, min(most, 3) + 1)))
    for starts in range(1, 100):
        error = (KeyboardInterrupt, Unplugged)[starts % 2]
        checkpoints = Unreliable(
            tmp_path, ticks=int(random.integers(2, 4)), error=error, every_steps=2
        )
        try:
            result = run(case, checkpoints)
            break
        except error:
            pass
    assert starts >= 3
    assert_same(result, whole)


@pytest.mark.slow
def test_checkpoints_of_another_run_are_refused(tmp_path):
    with pytest.raises(Unplugged):
        run("ensemble", Unreliable(tmp_path, ticks=2, every_steps=1))
    with pytest.raises(
        ValueError, match=r"by sgd, settings.learning_rate '[^']*' there, '0.25 #[^']*' here. Give"
    ):
        run("ensemble", Unreliable(tmp_path, ticks=9), learning_rate=0.25)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("NETWORK", networks.MLP((), 3, "tanh")),  # the same shapes
        ("DATA", DATA._replace(y=DATA.y[::-1])),
        ("DATA", DATA._replace(x=DATA.x.at[49, 1].add(1e-6))),
    ],
)
def test_checkpoints_of_another_network_or_other_labels_are_refused(
    name, other, tmp_path, monkeypatch
):
    with pytest.raises(Unplugged):
        run("ensemble", Unreliable(tmp_path, ticks=2, every_steps=1))
    monkeypatch.setitem(globals(), name, other)
    changed = {"NETWORK": "network", "DATA": "(inputs|labels)"}[name]
    with pytest.raises(ValueError, match=rf"something else.*, {changed} '.* there, '.* here"):
        run("ensemble", Unreliable(tmp_path, ticks=9))


def test_the_parts_of_a_chain_follow_one_another():
    part = {"0": np.zeros((2, 1)), "transitions": np.array([0, 2])}
    saved = Saved(5, {}, {"0": part, "3": {**part, "transitions": np.array([3, 5])}}, [])
    with pytest.raises(ValueError, match=r"part 3 holds the transitions 3 to 5 .* from 2 on"):
        chains._recall(saved, jax.tree.structure(0), 5)
    with pytest.raises(ValueError, match="hold 2 transitions where 5 were done"):
        chains._recall(saved._replace(parts={"0": part}), jax.tree.structure(0), 5)


def test_the_pacer_aims_at_a_second_and_grows_step_by_step(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("bnn_adv.compute.pacing.time.perf_counter", lambda: clock[0])
    pacer, counts = Pacer(), []
    for call in range(7):
        count = pacer.next(10_000)
        with pacer.timed(count):
            # The first call compiles for a minute, the others take 1/512 s a unit.
            clock[0] += 60.0 if call == 0 else count / 512
        counts.append(count)
    assert counts == [1, 1, 8, 64, 512, 512, 512]
    assert pacer.next(7) == 7
    with pacer.timed(7):
        clock[0] += 70.0
    assert pacer.next(10_000) == 1


@pytest.mark.slow
@pytest.mark.parametrize("case", ["nuts", "sgld"])
def test_a_kernel_that_was_edited_is_another_run(case, tmp_path):
    """The version of the project does not change with the code of one's own."""
    method, options = CASES[case]
    module = METHODS[method]
    driver = sgmcmc if issubclass(module.Config, sgmcmc.Config) else mcmc

    def sample(factor, checkpoints):
        def build(target, config):
            scale = factor
            return module.build(target, dataclasses.replace(config, step_size=scale * 1e-3))

        config = module.Config(**options)
        return driver.run(
            build, jax.random.key(5), NETWORK, DATA, config, RunOptions(checkpoints=checkpoints)
        )

    with pytest.raises(Unplugged):
        sample(1, Unreliable(tmp_path, ticks=2, every_steps=1))
    with pytest.raises(OtherWorkError, match="kernel"):
        sample(2, Unreliable(tmp_path, ticks=9))
