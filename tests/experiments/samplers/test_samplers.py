"""``experiments.samplers``: a run of every method, resuming, failures, plans and counts."""

import dataclasses
import functools
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from bnn_adv.inference import adjusted_mclmc, mcmc, sgmcmc
from experiments.launch.config import make
from experiments.samplers import __main__ as samplers
from experiments.samplers import measure, warming
from experiments.samplers.config import METHODS, MINIBATCH, SCALES, TARGETS, Config
from experiments.samplers.counting import Counting
from experiments.samplers.plans import build_plan

SMOKE = make(Config, SCALES["smoke"])
RUN = ("mclmc", "adjusted_mclmc", "csgmcmc")
"""Methods that are run here: each compiles for seconds, and all are tested by themselves."""
TINY = dataclasses.replace(SMOKE, methods=RUN)


class _Stop(Exception):
    pass


def _never(*_, **__):
    raise AssertionError("computed again")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on a tiny posterior, stopped within the second method, and started again."""
    folder, sampled = tmp_path_factory.mktemp("samplers") / "run", []

    def sample(config, cell, *rest):
        if cell.method == RUN[1] and RUN[1] not in sampled:
            sampled.append(cell.method)
            raise _Stop
        sampled.append(cell.method)
        return once(config, cell, *rest)

    once = measure.sample
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "sample", sample)
        with pytest.raises(_Stop):
            samplers.run(TINY, str(folder))
        results = samplers.run(TINY, str(folder))
    return folder, results, sampled


def test_every_method_is_run_once_and_judged(finished):
    folder, results, sampled = finished
    assert sampled == [*RUN[:2], *RUN[1:]]
    records = results["data"]["posteriors"]["digits"]
    assert [record["method"] for record in records] == list(RUN)
    for record in records:
        assert record["error"] == ""
        assert record["num_params"] == 64 * 4 + 4 + 4 * 10 + 10
        assert record["seconds_per_gradient"] > 0
        last = record["points"][-1]
        assert last["num_chains"] == 2
        assert last["log_likelihood"] < 0
    first, _, third = (record["points"][-1]["gradients"] for record in records)
    # Of steps whose number is known before; the budget, but for a draw that it would not pay.
    assert first == 160
    assert third == pytest.approx(160, rel=0.1)
    assert {record["method"] for record in records if "energy_variance" in record} == {"mclmc"}
    assert (folder / "figures" / "mixing.png").exists()
    # Eight draws a chain have not mixed, whatever they are.
    assert results["summary"] == "digits: none mixed within the budget."


@pytest.mark.slow
def test_a_method_that_fails_is_a_row_with_its_reason(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise FloatingPointError("The log density is not finite at minibatch 7.")

    monkeypatch.setattr(sgmcmc, "run", fail)
    config = dataclasses.replace(TINY, methods=("sgld",))
    results = samplers.run(config, str(tmp_path / "run"))
    (record,) = results["data"]["posteriors"]["digits"]
    assert record["points"] == []
    row = results["tables"][0]["rows"][0]
    assert row[2] == "failed: The log density is not finite at minibatch 7."
    assert row[3] is None
    json.dumps(results, allow_nan=False)


def count_gradients(method, settings, num_data):
    """Return the gradients that a plan takes, of the steps that it expects."""
    if method in MINIBATCH:
        end = settings.num_warmup + settings.cycle.end(settings.num_samples - 1)
        return end * settings.minibatch_size / num_data
    transitions = settings.num_warmup + settings.num_samples * settings.thinning
    if method == "hmc":
        return transitions * settings.trajectory_length / settings.step_size
    if method == "nuts":
        return transitions * (2**settings.max_num_doublings - 1)
    if method == "adjusted_mclmc":
        return transitions * 2 * settings.num_integration_steps
    return transitions * {"hmc_published": 10, "mclmc": 2}[method]


@pytest.mark.parametrize("target", TARGETS)
def test_plans_use_up_the_budget(target):
    config = Config()
    for method in METHODS:
        settings = build_plan(config, target, method, 6000).settings
        share = config.minibatch_share if method in MINIBATCH else 1
        gradients = count_gradients(method, settings, 6000)
        assert gradients == pytest.approx(share * config.budget, rel=0.1), method
        assert settings.num_chains == 4
        assert 8 <= settings.num_samples <= config.num_draws


def test_the_published_setting_is_that_of_table_3():
    settings = build_plan(Config(), "mnist_6000", "hmc_published", 6000).settings
    assert (settings.num_integration_steps, settings.step_size) == (10, 0.002)
    assert (settings.trajectory_length, settings.init, settings.adapt) == (
        None,
        "prior",
        "step_size",
    )


def test_microcanonical_lengths_grow_with_the_root_of_the_width():
    wide = dataclasses.replace(Config(), hidden=512, step_factor=0.5)
    first, second = (build_plan(c, "digits", "mclmc", 1437).settings for c in (Config(), wide))
    assert second.length == 2 * first.length
    assert second.step_size == first.step_size


class Info(NamedTuple):
    """What a kernel of the test says of a transition."""

    num_gradients: int
    energy_error: jax.Array


def _build(logdensity, config):
    """Return a kernel whose n-th transition has the energy error n, and is no number at 7."""

    def step(rng_key, state):
        error = jnp.where(state == 7, jnp.nan, state.astype(jnp.float32))
        return state + 1, Info(3, error)

    tune = (lambda rng_key, state: state) if config.temperature == 2 else None
    return mcmc.Kernel(lambda _, position: position, step, None, lambda state: state, tune)


def test_gradients_and_energy_errors_are_counted():
    """Ten transitions, the later five of errors 5, 6, 8, 9: variance 2.5."""
    config = mcmc.Config(num_warmup=4, num_samples=3, thinning=2)
    kernel, key = Counting(_build)(None, config), jax.random.key(0)
    state = kernel.init(key, jnp.zeros((), jnp.int32))
    for index in range(4):
        state, _ = kernel.adapt(key, state, index)
    for _ in range(6):
        state, _ = kernel.step(key, state)
    assert kernel.position(state) == 10
    found = state.describe()
    assert (found["num_gradients"], found["num_warmup_gradients"]) == (30, 12)
    assert found["energy_variance"] == pytest.approx(2.5)


def test_a_tuner_is_refused_where_gradients_are_counted():
    with pytest.raises(ValueError, match="give the step, and the length"):
        Counting(_build)(None, mcmc.Config(temperature=2.0))


def test_a_warm_up_needs_a_first_step():
    with pytest.raises(ValueError, match="needs a first step_size"):
        warming.build(None, adjusted_mclmc.Config())


@pytest.mark.slow
def test_a_warm_up_finds_a_step_that_is_accepted():
    """From one a thousand times too long, on a Gaussian of 20 dimensions."""
    config = adjusted_mclmc.Config(step_size=100.0, num_integration_steps=4.0, num_warmup=80)
    kernel = warming.build(lambda w: -0.5 * jnp.sum(w**2), config)

    @jax.jit
    def run(key):
        state = kernel.init(key, jnp.ones(20))
        state, _ = jax.lax.scan(
            lambda now, i: kernel.adapt(jax.random.fold_in(key, i), now, i), state, jnp.arange(80)
        )
        keys = jax.random.split(key, 100)
        state, info = jax.lax.scan(lambda now, k: kernel.step(k, now), state, keys)
        return state.describe()["step_size"], info.acceptance_rate.mean()

    step_size, rate = run(jax.random.key(0))
    assert 0.1 < step_size < 20
    assert 0.6 < rate < 0.95


def test_a_clock_leaves_out_what_is_compiled_first(monkeypatch):
    now = iter([0.0, 5.0, 25.0, 26.0, 28.0])
    monkeypatch.setattr(measure.time, "monotonic", functools.partial(next, now))
    clock = measure.Clock(lambda *_, **__: None, "hmc", 10)
    for done in (10, 20, 30, 50):
        clock(done, 50, {})
    # From 25 s at transition 20 to 28 s at 50.
    assert clock.seconds() == pytest.approx(0.1)
