"""Stages and studies: computed once, resumed, reprinted."""

import dataclasses
import importlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.compute import files, settings
from bnn_adv.compute.settings import SettingError, Settings, seed, setting
from bnn_adv.data import Dataset
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.inference import InferenceResult
from bnn_adv.networks import MLP, get_apply_fn, init_params
from bnn_adv.posteriors.posterior import Posterior, hash_draws, save_posterior
from bnn_adv.report.table import Table
from experiments.launch import stages
from experiments.launch.config import make
from experiments.launch.run_directory import RunDirectory
from experiments.launch.study import run_study
from experiments.launch.tables import Study


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    seed: int = seed()
    data_dir: str = setting("", "Folder.", is_path=True)


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "run", "test", {"seed": 0}, "command")


def _never():
    raise AssertionError("computed again")


def test_a_stage_is_computed_once(run):
    first = stages.cached(run, "values", lambda: {"pair": (1, 2.5)})
    assert first == stages.cached(run, "values", _never) == {"pair": [1, 2.5]}
    arrays = stages.cached_arrays(run, "arrays", lambda: {"x": np.arange(3.0)})
    np.testing.assert_array_equal(stages.cached_arrays(run, "arrays", _never)["x"], arrays["x"])
    assert stages.spent(run) >= 0
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_stage_that_fails_is_computed_again(run):
    with pytest.raises(AssertionError, match="computed again"):
        stages.cached(run, "values", _never)
    assert stages.cached(run, "values", lambda: {"a": 1}) == {"a": 1}


@pytest.mark.slow
def test_a_posterior_comes_back_bit_equal(run):
    network = MLP((3,), num_classes=2)
    keys = jax.random.split(jax.random.key(0), 4)
    draws = jax.vmap(lambda key: init_params(key, network, (2,)))(keys)
    found = InferenceResult(Posterior(get_apply_fn(network), draws), {"loss": 0.5}, None)
    for train in (lambda: found, _never):
        posterior, diagnostics = stages.cached_posterior(run, "net", network, (2,), train)
        assert diagnostics["loss"] == 0.5
        assert diagnostics["training_seconds"] >= 0
        jax.tree.map(np.testing.assert_array_equal, posterior.samples, draws)
        assert posterior.apply_fn(jax.tree.map(lambda w: w[0], draws), jnp.ones((5, 2))).shape == (
            5,
            2,
        )


def test_a_posterior_that_was_replaced_is_refused(run):
    network = MLP((3,), num_classes=2)
    draws = init_params(jax.random.key(0), network, (2,))
    one, other = (
        Posterior(get_apply_fn(network), jax.tree.map(lambda w, c=c: w[None] + c, draws))
        for c in (0.0, 1.0)
    )

    def get(name="net", train=_never):
        return stages.cached_posterior(run, name, network, (2,), train)

    get(train=lambda: InferenceResult(one, {}, None))
    value = stages.cached(run, "values", lambda: {"a": 1})
    stages.cached_arrays(run, "arrays", lambda: {"x": np.zeros(2)})
    save_posterior(run.path / "posterior" / "net.npz", other)
    with pytest.raises(stages.StageError, match=r"net were replaced: posterior/net.json"):
        get()
    # Its record was replaced as well: what was computed from the first draws is not continued.
    record = files.read_json(run.path / "posterior" / "net.json")
    record["draws_hash"] = {"net": hash_draws(other)}
    files.write_json(run.path / "posterior" / "net.json", record)
    get()
    changed = rf"net '{hash_draws(one)}' there, '{hash_draws(other)}' here"
    with pytest.raises(stages.StageError, match=rf"partial/values.json .*: {changed}"):
        stages.cached(run, "values", _never)
    with pytest.raises(stages.StageError, match=rf"partial/arrays.npz .*: {changed}"):
        stages.cached_arrays(run, "arrays", _never)
    save_posterior(run.path / "posterior" / "net.npz", one)
    files.write_json(
        run.path / "posterior" / "net.json", {**record, "draws_hash": {"net": hash_draws(one)}}
    )
    get()
    assert stages.cached(run, "values", _never) == value


def test_a_stage_of_other_settings_is_refused(run, tmp_path):
    other = RunDirectory(tmp_path / "other", "test", {"seed": 1}, "command")
    stages.cached(other, "values", lambda: {"a": 1})
    shutil.copytree(other.path / "partial", run.path / "partial")
    with pytest.raises(stages.StageError, match="computed from something else: settings"):
        stages.cached(run, "values", _never)
    # One that does not say what it comes from, as older versions wrote.
    files.write_json(run.path / "partial" / "old.json", {"a": 1})
    with pytest.raises(stages.StageError, match="settings 'nothing' there"):
        stages.cached(run, "old", _never)


def test_names_are_file_names(run):
    with pytest.raises(ValueError, match="letters, digits, hyphens"):
        stages.cached(run, "../up", _never)


def test_a_study_resumes_where_it_stopped_and_is_read_back(tmp_path, capsys):
    calls = []

    def work(config, run, *, stop):
        def compute():
            calls.append("stage")
            return {"value": config.seed + 0.25}

        value = stages.cached(run, "stage", compute)["value"]
        if stop:
            raise KeyboardInterrupt
        return Study("Title", "Summary.", (Table("T", ("v",), ((value,),)),))

    config, folder = Config(seed=7), str(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run_study("name", config, folder, lambda c, r: work(c, r, stop=True))
    results = run_study("name", config, folder, lambda c, r: work(c, r, stop=False), scale="")
    again = run_study("name", config, folder, _never)
    assert calls == ["stage"]
    assert results == again
    assert results["tables"][0]["rows"] == [[7.25]]
    assert (results["seed"], results["experiment"], results["scale"]) == (7, "name", None)
    assert "data_dir" not in results["config"]
    assert "7.25" in capsys.readouterr().out
    assert "7.25" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert not (tmp_path / "run" / "partial").exists()
    with pytest.raises(ValueError, match="seed is 7 there, 8 here"):
        run_study("name", Config(seed=8), folder, _never)
    assert files.read_json(tmp_path / "run" / "results.json") == results


def test_a_stage_that_was_edited_is_refused(run):
    stages.cached(run, "values", lambda: {"share": (0.5, 1)})
    stages.cached_arrays(run, "arrays", lambda: {"x": np.zeros(2), "y": np.float32(0.5)})
    path = run.path / "partial" / "values.json"
    path.write_text(path.read_text().replace("0.5", "0.75"))
    with pytest.raises(stages.StageError, match=r"values.json was edited"):
        stages.cached(run, "values", _never)
    path = run.path / "partial" / "arrays.npz"
    files.write_arrays(path, {**files.read_arrays(path), "x": np.ones(2)})
    with pytest.raises(stages.StageError, match=r"arrays.npz was edited"):
        stages.cached_arrays(run, "arrays", _never)


def test_a_training_does_not_depend_on_the_suites(run):
    suite = get_suite("fast")
    stages.note_suites(run, [suite])
    _train_net(run)
    again = RunDirectory(run.path, "test", {"seed": 0}, "command")
    stages.note_suites(again, [dataclasses.replace(suite, entries=suite.entries[:1])])
    _train_net(again)


def _dataset(shift=0.0):
    x, y = np.full((2, 3), 0.5 + shift, np.float32), np.arange(2, dtype=np.int32)
    return Dataset("points", x, y, x, y, 2)


def test_stages_of_other_data_are_refused(run):
    stages.note_data(run, _dataset())
    stages.cached(run, "values", lambda: {"a": 1})
    assert stages.cached(run, "values", _never) == {"a": 1}
    stages.note_data(run, _dataset(0.25))
    with pytest.raises(
        stages.StageError, match=r"values.json .*: data points '.*' there, '.*' here"
    ):
        stages.cached(run, "values", _never)


def test_stages_of_a_suite_that_was_defined_anew_are_refused(run, monkeypatch):
    suite = get_suite("fast")
    stages.note_suites(run, [suite])
    stages.cached(run, "values", lambda: {"a": 1})
    stages.note_suites(run, [dataclasses.replace(suite, description="in other words")])
    assert stages.cached(run, "values", _never) == {"a": 1}
    stages.note_suites(run, [dataclasses.replace(suite, entries=suite.entries[:1])])
    with pytest.raises(stages.StageError, match=r"values.json .*: suite fast '"):
        stages.cached(run, "values", _never)
    objective = OBJECTIVES[suite.entries[0].objective]
    other = dataclasses.replace(objective, head=lambda reduced, y: -reduced.sum())
    monkeypatch.setitem(OBJECTIVES, objective.name, other)
    stages.note_suites(run, [suite])
    with pytest.raises(stages.StageError, match=r"values.json .*: suite fast '"):
        stages.cached(run, "values", _never)


_NETWORK = MLP((3,), num_classes=2)


def _train_net(run, network=_NETWORK, shift=0.0):
    draws = init_params(jax.random.key(0), network, (2,))
    one = Posterior(get_apply_fn(network), jax.tree.map(lambda w: w[None] + shift, draws))
    found = InferenceResult(one, {}, None)
    return stages.cached_posterior(run, "net", network, (2,), lambda: found)


def test_a_posterior_of_another_network_is_refused(run):
    _train_net(run)
    with pytest.raises(
        stages.StageError, match=r"net.json .*: network of net '.*' there, '.*' here"
    ):
        _train_net(run, MLP((3,), num_classes=2, activation="tanh"))


def test_draws_that_are_read_after_their_stages_must_be_theirs(run):
    """Stages are read first, and named draws that the start had not read."""
    _train_net(run)
    stages.cached(run, "values", lambda: {"a": 1})
    for end in ("json", "npz"):
        (run.path / "posterior" / f"net.{end}").unlink()
    again = RunDirectory(run.path, "test", {"seed": 0}, "command")
    assert stages.cached(again, "values", _never) == {"a": 1}
    with pytest.raises(stages.StageError, match=r"values.json was computed from other .*: net '"):
        _train_net(again, shift=1.0)


def test_stages_agree_on_draws_that_nobody_reads(run):
    for name, shift in (("first", 0.0), ("second", 1.0)):
        _train_net(run, shift=shift)
        stages.cached(run, name, lambda: {"a": 1})
        for end in ("json", "npz"):
            (run.path / "posterior" / f"net.{end}").unlink()
    again = RunDirectory(run.path, "test", {"seed": 0}, "command")
    stages.cached(again, "first", _never)
    with pytest.raises(stages.StageError, match=r"first.json was .* than .*second.json: net '"):
        stages.cached(again, "second", _never)


def test_damaged_draws_are_no_failure_of_their_training(run):
    _train_net(run)
    path = run.path / "posterior" / "net.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(stages.StageError, match=r"net.npz cannot be read"):
        _train_net(run)


def test_data_are_checked_before_there_is_a_folder_and_not_once_there_are_results(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))

    def refuse(config):
        raise ValueError(f"no data of seed {config.seed}")

    def run(check):
        return run_study("name", Config(seed=7), "~/run", _work, quiet=True, check=check)

    def _work(config, run):
        return Study("Title", "Summary.", (Table("T", ("v",), ((1,),)),))

    with pytest.raises(ValueError, match="no data of seed 7"):
        run(refuse)
    assert not list(tmp_path.iterdir())
    seen = []
    results = run(seen.append)
    assert seen == [Config(seed=7)]
    assert (tmp_path / "run" / "results.json").exists()
    assert run(refuse) == results


STUDIES = (
    *("half_moons", "geometry", "ensembles", "loss_gradients", "robustness_accuracy"),
    *(
        "protocol_ablation",
        "table2",
        "autoattack",
        "samplers",
        "bayesian_gain",
        "certifiers",
        "zoo",
    ),
)


REPEATABLE = ("channels",)
"""Settings of several values that may be equal."""


def refuse(config_class, name, value):
    """Return the message that refuses a value, which Python users and flags share."""
    with pytest.raises(ValueError, match=f"^--{name} ") as flag:
        make(config_class, {name: value})
    with pytest.raises(SettingError) as python:
        config_class(**{name: value})
    assert str(flag.value) == f"--{python.value}"
    return python.value.problem


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_refuses_what_no_run_can_mean(name):
    config_class = importlib.import_module(f"experiments.{name}.__main__").Config
    assert config_class.__doc__.startswith(f"Settings of ``experiments.{name}``.")
    for value in (-1, 2**64, 0.5):
        refuse(config_class, "seed", value)
    for field in settings.fields(config_class):
        if field.kind is float:
            for value in (np.inf, -np.inf, np.nan, 1e308):
                given = (value,) if field.is_tuple else value
                assert "finite number of float32" in refuse(config_class, field.name, given)
        if field.is_tuple and field.default:
            assert "nothing" in refuse(config_class, field.name, ())
            first = field.default[0]
            if field.name not in REPEATABLE:
                assert f"got {first}" in refuse(config_class, field.name, (first, first))
        elif field.kind is int:
            given = (-1,) if field.is_tuple else -1
            assert refuse(config_class, field.name, given).startswith("must be at least")
