"""``experiments.samplers``: a run of every method, resuming, failures, plans and counts."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from bnn_adv.inference import sgld
from bnn_adv.networks import MLP, SmallConvNet
from experiments.launch.config import make
from experiments.samplers import __main__ as samplers
from experiments.samplers import measure
from experiments.samplers.config import (
    METHODS,
    MINIBATCH,
    SCALES,
    TARGETS,
    Config,
    build_posterior,
)
from experiments.samplers.plans import build_plan

SMOKE = make(Config, SCALES["smoke"])
TITLE = "digits, 60 examples, 4 units"
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
    records = results["data"]["posteriors"][TITLE]
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
    assert results["summary"] == f"{TITLE}: none mixed within the budget."


def test_processes_beside_each_other_are_given_all_that_is_computed(tmp_path, monkeypatch):
    given = []

    def apart(work, run, cells, jobs):
        assert jobs == 2
        given.extend(map(str, cells))
        for cell in cells:
            work(run, cell)
        # Nothing is left for the process that asked.
        for name in ("sample", "list_points"):
            monkeypatch.setattr(measure, name, _never)

    monkeypatch.setattr(samplers, "work_apart", apart)
    config = dataclasses.replace(TINY, methods=("mclmc",), jobs=2)
    results = samplers.run(config, str(tmp_path / "run"))
    assert given == ["digits-mclmc"]
    (record,) = results["data"]["posteriors"][TITLE]
    assert record["points"]


@pytest.mark.slow
def test_a_method_that_fails_is_a_row_with_its_reason(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise FloatingPointError("The log density is not finite at minibatch 7.")

    monkeypatch.setattr(sgld, "run", fail)
    config = dataclasses.replace(TINY, methods=("sgld",))
    results = samplers.run(config, str(tmp_path / "run"))
    (record,) = results["data"]["posteriors"][TITLE]
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
    if method in ("hmc", "hmc_curvature"):
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


def test_posteriors_have_the_networks_that_their_rows_name():
    """Whether of the paper or another, as wide as asked."""
    found = {name: build_posterior(Config(hidden=8), name).network(10) for name in TARGETS}
    assert found["digits_conv"] == SmallConvNet((16, 32), 8, 10, "relu")
    assert found["mnist_60000"] == MLP((8,), 10, "relu")
    assert found["half_moons"] == MLP((8, 8), 10, "leaky_relu")
    assert build_posterior(Config(), "digits_conv").network(10) == SmallConvNet()


def test_titles_name_what_was_changed():
    """Else a run of other sizes would be read as one of the posterior's own."""
    titles = [
        build_posterior(config, "mnist_6000").title
        for config in (Config(), Config(hidden=32, num_train=6000), Config(hidden=64))
    ]
    assert titles == ["MNIST 6,000", "MNIST 6,000", "MNIST 6,000, 64 units"]
    smaller = Config(num_train=1000, hidden=8)
    assert build_posterior(smaller, "mnist_6000").title == "MNIST, 1,000 examples, 8 units"
    assert build_posterior(smaller, "digits").title == "digits, 1,000 examples, 8 units"


def test_targets_that_sizes_make_the_same_are_refused(tmp_path):
    """The later one would stand in the place of the earlier."""
    config = Config(targets=("mnist_6000", "mnist_60000"), num_train=1000)
    with pytest.raises(ValueError, match=r"--targets=mnist_6000,mnist_60000 with --num_train=1000"):
        samplers.run(config, str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


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


def test_energy_errors_are_those_of_the_later_half():
    errors = np.array([[90.0, -70.0, 5.0, 6.0], [80.0, 60.0, np.nan, 10.0]])
    assert measure.late_variance(errors) == pytest.approx(14 / 3)


def test_gradients_are_counted_draw_by_draw():
    """Those before the first draw in equal shares, then each chain's own."""
    plan = build_plan(Config(num_chains=2), "digits", "hmc", 1437)
    found = {"num_tuning_gradients": 4, "num_warmup_gradients": 10, "num_gradients": 10}
    found["num_starting_gradients"] = 6
    stats = {"num_gradients": np.array([[1, 2, 3], [4, 0, 0]])}
    np.testing.assert_array_equal(measure._count(plan, found, stats), [[11, 13, 16], [14, 14, 14]])


def test_gradients_of_minibatches_are_shares():
    plan = build_plan(Config(num_chains=2), "digits", "csgmcmc", 1437)
    found = {"num_warmup_gradients": 0, "num_gradients": 10.0}
    counted = measure._count(plan, found, {})
    assert counted.shape == (2, plan.settings.num_samples)
    assert (counted[:, -1] == 5).all()
    assert (np.diff(counted) > 0).all()


def test_a_clock_leaves_out_what_is_compiled_first(monkeypatch):
    now = iter([0.0, 5.0, 25.0, 26.0, 28.0])
    monkeypatch.setattr(measure.time, "monotonic", functools.partial(next, now))
    clock = measure.Clock(lambda *_, **__: None, "hmc", 10)
    for done in (10, 20, 30, 50):
        clock(done, 50, {})
    # From 25 s at transition 20 to 28 s at 50.
    assert clock.seconds() == pytest.approx(0.1)
