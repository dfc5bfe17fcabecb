"""``experiments.robustness_accuracy``: which networks, resuming, budgets, failures, errors."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bnn_adv.compute import files
from bnn_adv.compute.identity import OtherWorkError
from bnn_adv.evaluation import SuiteResult
from bnn_adv.inference import sgd
from bnn_adv.inference.diagnostics import has_mixed
from experiments.launch import stages
from experiments.robustness_accuracy import __main__ as robustness_accuracy
from experiments.robustness_accuracy import measure as robustness_accuracy_stages
from experiments.robustness_accuracy.config import (
    GRIDS,
    SCALES,
    Config,
    list_tasks,
    method_config,
)
from experiments.robustness_accuracy.grids import expand, keep

TINY = Config(
    datasets=("digits",),
    sources=("table7",),
    grid_filter=("architecture=fc2", "activation=relu", "num_epochs=5"),
    num_shapes=1,
    per_shape=2,
    width_divisor=32,
    num_train=60,
    num_test=10,
    batch_size=10,
    checkpoint_every=0.0,
)


class _Stop(Exception):
    pass


def _never(*_, **__):
    raise AssertionError("computed again")


@pytest.fixture(autouse=True)
def _noise(monkeypatch):
    """Attack by noise: the suites compile for seconds, and run in the smoke scale."""

    def attack(rng_key, suite, posterior, x, y, *, threat, **_):
        noisy = np.clip(x + threat.epsilon * np.sign(x - 0.5), 0, 1).astype(np.float32)
        names = ["worst"] if suite.worst_case else [e.name for e in suite.entries]
        shares = dict.fromkeys(names, 0.5)
        return SuiteResult(dict.fromkeys(names, noisy), shares, 0.5, 0.25, None)

    monkeypatch.setattr(robustness_accuracy_stages, "run_suite", attack)


@pytest.mark.slow
def test_networks_that_differ_in_rate_train_together_and_resume(tmp_path, monkeypatch):
    build, calls = robustness_accuracy.build_study, []
    train = sgd.run

    def stop(*_, **__):
        raise _Stop

    def count(*args):
        calls.append(args[3].num_members)
        return train(*args)

    monkeypatch.setattr(sgd, "run", count)
    monkeypatch.setattr(robustness_accuracy, "build_study", stop)
    with pytest.raises(_Stop):
        robustness_accuracy.run(TINY, str(tmp_path / "run"))
    monkeypatch.setattr(robustness_accuracy, "build_study", build)
    monkeypatch.setattr(sgd, "run", _never)
    monkeypatch.setattr(robustness_accuracy_stages, "run_suite", _never)
    results = robustness_accuracy.run(TINY, str(tmp_path / "run"))
    assert calls == [2]
    rows = results["data"]["networks"]
    assert [row["status"] for row in rows] == ["done"] * 2
    assert [row["settings"]["learning_rate"] for row in rows] == [0.001, 0.005]
    for row in rows:
        assert set(row["protocols"]) == {"published", "corrected", "strong"}
        pgd = row["protocols"]["corrected"]["pgd"]
        assert 0 <= pgd["corrected_metric"] <= pgd["published_metric"] <= 1
        assert row["num_params"] == 64 * row["settings"]["hidden"] + sum(
            [row["settings"]["hidden"] * n for n in (1, 1, row["settings"]["hidden"], 10)] + [10]
        )
    # Draws go once their rows are complete.
    assert not list((tmp_path / "run" / "posterior").glob("*"))
    assert {figure["file"] for figure in results["figures"]} == {
        "figures/clouds.png",
        "figures/sizes.png",
    }
    assert robustness_accuracy.run(TINY, str(tmp_path / "run")) == results


@pytest.mark.slow
def test_a_larger_budget_goes_on(tmp_path, monkeypatch):
    spent = [0.0, 5.0]
    monkeypatch.setattr(stages, "spent", lambda run: spent[0] if len(spent) == 1 else spent.pop(0))
    first = robustness_accuracy.run(
        dataclasses.replace(TINY, time_budget=3.0), str(tmp_path / "run")
    )
    done, late = first["data"]["networks"]
    assert (done["status"], late["status"]) == ("done", "not run")
    assert first["tables"][-1]["rows"][0][2:4] == ["not run", "the time budget was spent"]
    with pytest.raises(ValueError, match=r"time_budget is 3\.0 there, 2\.0 here"):
        robustness_accuracy.run(dataclasses.replace(TINY, time_budget=2.0), str(tmp_path / "run"))
    # The first network, and the training of both, are not computed again.
    monkeypatch.setattr(sgd, "run", _never)
    second = robustness_accuracy.run(
        dataclasses.replace(TINY, time_budget=9.0), str(tmp_path / "run")
    )
    assert second["data"]["networks"][0] == done
    assert second["data"]["networks"][1]["status"] == "done"
    with pytest.raises(ValueError, match="seed is 0 there, 1 here"):
        robustness_accuracy.run(
            dataclasses.replace(TINY, time_budget=0.0, seed=1), str(tmp_path / "run")
        )


@pytest.mark.slow
def test_one_network_that_fails_is_a_row_and_spares_the_others(tmp_path, monkeypatch):
    train = sgd.run

    def fail(rng_key, network, data, config, options):
        if 0.005 in config.learning_rate:
            raise FloatingPointError("The training loss is not finite in epoch 1.")
        return train(rng_key, network, data, config, options)

    monkeypatch.setattr(sgd, "run", fail)
    results = robustness_accuracy.run(TINY, str(tmp_path / "run"))
    first, second = results["data"]["networks"]
    assert (first["status"], second["status"]) == ("done", "failed")
    assert second["reason"] == "The training loss is not finite in epoch 1."
    assert files.read_json(tmp_path / "run" / "results.json") == results


@pytest.mark.parametrize("error", [OtherWorkError, stages.StageError])
def test_what_is_not_this_runs_ends_it_and_is_no_row(error, tmp_path, monkeypatch):
    """A checkpoint that was refused became the row of a network that failed."""

    def refuse(*_, **__):
        raise error("a checkpoint of something else")

    monkeypatch.setattr(sgd, "run", refuse)
    with pytest.raises(error, match="something else"):
        robustness_accuracy.run(TINY, str(tmp_path / "run"))
    monkeypatch.undo()
    monkeypatch.setattr(robustness_accuracy_stages._Trainer, "train", lambda *_: (None, {}))
    monkeypatch.setattr(robustness_accuracy_stages, "_attack", refuse)
    with pytest.raises(error, match="something else"):
        robustness_accuracy.run(TINY, str(tmp_path / "run"))
    assert not (tmp_path / "run" / "partial").exists()


def test_paper_scale_is_every_network_of_the_grids_on_both_data_sets():
    tasks = list_tasks(Config(**SCALES["paper"]))
    count = sum(len(expand(grid)) for grid in GRIDS.values())
    assert sum(len(task.members) for task in tasks) == 2 * count
    assert {len(task.members) for task in tasks if task.members[0].source == "table7"} == {4}
    assert {len(task.members) for task in tasks if task.members[0].method == "hmc"} == {1}


def test_small_scales_are_samples_with_the_starred_networks():
    tasks = list_tasks(Config(**SCALES["cpu"]))
    members = [(t.dataset, member) for t in tasks if not t.is_matched for member in t.members]
    assert len(set(members)) == len(members) == 2 * 4 * 3 * 4
    starred = [(dataset, member.method) for dataset, member in members if member.is_starred]
    assert sorted(starred) == [(d, m) for d in ("fashion_mnist", "mnist") for m in ("hmc", "sgd")]
    # Both data sets have the same networks, whose programs are compiled once.
    halves = [[m for d, m in members if d == dataset] for dataset in ("mnist", "fashion_mnist")]
    assert halves[0] == halves[1]
    for overlay in SCALES.values():
        Config(**overlay)


def test_rows_keep_what_mixing_is_judged_by():
    record = {
        **{"rhat": "rank-normalised split", "num_chains": 2, "max_rhat": 1.0, "min_ess": 200.0},
        **{"log_density_rhat": 1.0, "log_density_ess": 200.0},
    }
    kept = {name: record[name] for name in robustness_accuracy_stages._KEPT if name in record}
    assert has_mixed(kept) is True


@pytest.mark.slow
def test_methods_get_the_networks_settings():
    starred = {
        source: tuple(keep(expand(GRIDS[source]), ["starred=true"]))
        for source in ("table5", "table6", "own")
    }
    chain = method_config(Config(), starred["table5"], 60_000)
    assert (chain.num_samples, chain.step_size, chain.num_integration_steps) == (750, 0.005, 10)
    network = method_config(Config(), starred["table6"], 60_000)
    assert (network.learning_rate, network.minibatch_size, network.num_epochs) == ((0.001,), 256, 5)
    assert method_config(Config(), starred["table6"], 100).minibatch_size == 100
    guide = method_config(Config(), starred["own"], 60_000)
    assert (guide.kl_weight, guide.init, guide.learning_rate) == ("published", "published", 0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": ()}, "datasets needs at least 1 of them, got nothing"),
        ({"sources": ("table9",)}, "sources must be one of table5, .*, got 'table9'"),
        ({"grid_filter": ("hidden=3",)}, "grid_filter leaves no network .* got hidden=3"),
        ({"grid_filter": ("width=3",)}, "grid_filter cannot be read: .*Settings: method"),
        ({"epsilon": -0.1}, "epsilon must be at least 0, got -0.1"),
        ({"num_test": 0}, "num_test must be at least 1, got 0"),
        ({"suite": "corrected"}, "suite must be one of strong, fast, full, got 'corrected'"),
        ({"least_accuracy": 2.0}, "least_accuracy must be at most 1, got 2.0"),
    ],
)
def test_errors_come_before_work(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        robustness_accuracy.run(dataclasses.replace(TINY, **change), str(tmp_path / "none"))
    assert not Path(tmp_path / "none").exists()
