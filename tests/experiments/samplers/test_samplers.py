"""``experiments.samplers``: a run of every method, resuming, failures, plans and counts."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.inference import Data, hmc, mclmc, mcmc, sgmcmc
from bnn_adv.networks import build_network
from experiments.launch.config import make
from experiments.samplers import __main__ as samplers
from experiments.samplers import measure
from experiments.samplers.config import METHODS, MINIBATCH, SCALES, TARGETS, Config
from experiments.samplers.counting import Counting
from experiments.samplers.plans import build_plan

SMOKE = make(Config, SCALES["smoke"])
TINY = dataclasses.replace(SMOKE, budget=160, num_draws=8)


class _Stop(Exception):
    pass


def _never(*_, **__):
    raise AssertionError("computed again")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Every method on a tiny posterior, stopped after the fifth, and started again."""
    folder, sampled = tmp_path_factory.mktemp("samplers") / "run", []

    def sample(config, cell, *rest):
        if cell.method == METHODS[5] and METHODS[5] not in sampled:
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
    assert sampled == [*METHODS[:6], *METHODS[5:]]
    records = results["data"]["posteriors"]["digits"]
    assert [record["method"] for record in records] == list(METHODS)
    for record in records:
        assert record["error"] == ""
        assert record["num_params"] == 64 * 4 + 4 + 4 * 10 + 10
        assert record["seconds_per_gradient"] > 0
        last = record["points"][-1]
        assert last["num_chains"] == 2
        assert last["log_likelihood"] < 0
        # Of transitions that are counted before: the budget, about.
        if record["method"] not in ("hmc", "nuts", "adjusted_mclmc"):
            assert last["gradients"] == pytest.approx(TINY.budget, rel=0.3)
    assert {record["method"] for record in records if "energy_variance" in record} == {"mclmc"}
    assert (folder / "figures" / "mixing.png").exists()
    # Eight draws a chain have not mixed, whatever they are.
    assert results["summary"] == "digits: none mixed within the budget."


def test_a_finished_run_is_read_back(finished, monkeypatch):
    folder, results, _ = finished
    monkeypatch.setattr(measure, "sample", _never)
    (folder / "results.json").unlink()
    again = samplers.run(TINY, str(folder))
    for part in ("data", "tables", "verdicts", "summary"):
        assert again[part] == results[part]


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


@pytest.mark.parametrize("target", TARGETS)
def test_plans_use_up_the_budget(target):
    config = make(Config, SCALES["cpu"])
    num_data = 6000
    for method in METHODS:
        settings = build_plan(config, target, method, num_data).settings
        if method in MINIBATCH:
            end = settings.num_warmup + settings.cycle.end(settings.num_samples - 1)
            gradients = end * settings.minibatch_size / num_data
        else:
            transitions = settings.num_warmup + settings.num_samples * settings.thinning
            each = {
                "hmc_published": 10,
                "hmc": lambda settings=settings: settings.trajectory_length / settings.step_size,
                "nuts": lambda settings=settings: 2 ** (settings.max_num_doublings - 1) - 1,
                "mclmc": 2,
                "adjusted_mclmc": lambda settings=settings: 2 * settings.num_integration_steps,
            }[method]
            gradients = transitions * (each() if callable(each) else each)
        assert gradients == pytest.approx(config.budget, rel=0.1), method
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


@pytest.fixture
def counted():
    """Run a kernel that counts on a small posterior; return its diagnostics."""
    rng = np.random.default_rng(0)
    data = Data(
        jnp.asarray(rng.uniform(size=(20, 3)), jnp.float32), jnp.asarray(rng.integers(2, size=20))
    )
    network = build_network("fc", hidden=2, num_classes=2, activation="relu")

    def run(module, config):
        build = Counting(module.build)
        return mcmc.run(build, jax.random.key(0), network, data, config).diagnostics

    return run


def test_gradients_are_counted_with_those_of_the_warm_up(counted):
    shared = {"num_samples": 3, "thinning": 2, "num_warmup": 5, "num_chains": 2}
    found = counted(hmc, hmc.Config(**shared, num_integration_steps=7, step_size=0.1))
    assert found["num_gradients"] == [77, 77]
    assert found["num_warmup_gradients"] == [35, 35]
    assert len(found["step_size"]) == 2


def test_energy_errors_are_those_of_the_later_half(counted):
    shared = {"num_samples": 40, "num_warmup": 0, "num_chains": 2, "length": 2.0}
    short, long = (
        counted(mclmc, mclmc.Config(**shared, step_size=size))["energy_variance"]
        for size in (0.05, 0.4)
    )
    assert min(short) > 0
    # The error of a step is of third order, its square of sixth: 8^6 = 262,144.
    assert np.mean(long) / np.mean(short) > 1e3


def test_a_tuner_is_refused_where_gradients_are_counted(counted):
    with pytest.raises(ValueError, match="give the step, and the length"):
        counted(mclmc, mclmc.Config(num_samples=2, num_warmup=0))


def test_a_clock_leaves_out_what_is_compiled_first(monkeypatch):
    now = iter([0.0, 5.0, 25.0, 26.0, 28.0])
    monkeypatch.setattr(measure.time, "monotonic", functools.partial(next, now))
    clock = measure.Clock(lambda *_, **__: None, "hmc", 10)
    for done in (10, 20, 30, 50):
        clock(done, 50, {})
    # From 25 s at transition 20 to 28 s at 50.
    assert clock.seconds() == pytest.approx(0.1)
