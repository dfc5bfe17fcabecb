"""Flags that every experiment shares."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from bnn_adv.compute.settings import SettingError
from experiments import compare, reproduce, train
from experiments.autoattack import __main__ as autoattack
from experiments.ensembles import __main__ as ensembles
from experiments.launch import runtime
from experiments.launch.config import make
from experiments.launch.runtime import CacheConfig, RuntimeConfig, start
from experiments.loss_gradients import __main__ as loss_gradients
from experiments.protocol_ablation import __main__ as protocol_ablation
from experiments.robustness_accuracy import __main__ as robustness_accuracy
from experiments.table2 import __main__ as table2
from tests.experiments.command import refuse

ROOT = Path(__file__).parents[3]

PROGRAM = """
import collections, sys
import jax
from experiments.launch.runtime import RuntimeConfig, start
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.split("/")[-1]]))
start(RuntimeConfig(compilation_cache=sys.argv[1]))
from bnn_adv import networks
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
network = networks.MLP((3,), 2)
params = networks.init_params(jax.random.key(0), network, (4,))
draws = jax.tree.map(lambda w: jax.numpy.stack([w, w]), params)
predict_log_probs(Posterior(networks.get_apply_fn(network), draws), jax.numpy.ones((3, 4)))
print(events["cache_hits"], events["cache_misses"])
"""


def compile_in_a_new_process(choice, **environment):
    # Not with the programs that the tests share.
    plain = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, choice],
        cwd=ROOT,
        env={**plain, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    hits, misses = map(int, result.stdout.split())
    return hits, misses


@pytest.mark.slow
def test_a_second_start_compiles_nothing(tmp_path):
    """In the user's cache folder, the default."""
    first = compile_in_a_new_process("auto", XDG_CACHE_HOME=str(tmp_path))
    second = compile_in_a_new_process("auto", XDG_CACHE_HOME=str(tmp_path))
    assert first[0] == 0
    assert first[1] > 5
    assert second == (first[1], 0)
    assert list((tmp_path / "bnn_adv" / "programs").iterdir())


@pytest.mark.slow
def test_the_cache_can_be_put_elsewhere_or_left_out(tmp_path):
    compile_in_a_new_process(f"{tmp_path}/mine", XDG_CACHE_HOME=str(tmp_path / "home"))
    assert list((tmp_path / "mine").iterdir())
    assert compile_in_a_new_process("off", XDG_CACHE_HOME=str(tmp_path / "home")) == (0, 0)
    assert not (tmp_path / "home").exists()


def test_mesh_flags():
    assert start(RuntimeConfig(compilation_cache="off")) is None
    mesh = start(RuntimeConfig(mesh="draws:2,data:2", compilation_cache="off"))
    assert dict(mesh.shape) == {"draws": 2, "data": 2}


BAD = [
    ({"mesh": "model:2"}, "--mesh is no mesh. Cannot read 'model:2'"),
    ({"mesh": "draws:0"}, "--mesh is no mesh. Cannot read 'draws:0'"),
    ({"num_processes": 2}, "--num_processes is for several processes and needs distributed, got 2"),
    ({"process_id": 0}, "--process_id is for several processes and needs distributed, got 0"),
    (
        {"coordinator_address": "host:1"},
        "--coordinator_address is for several processes and needs distributed, got 'host:1'",
    ),
    (
        {"distributed": "true", "num_processes": 2},
        "--num_processes needs coordinator_address and process_id too",
    ),
    (
        {"distributed": "true", "process_id": 1},
        "--process_id needs coordinator_address and num_processes too",
    ),
    (
        {"distributed": "true", "coordinator_address": "host:1", "num_processes": 2},
        "--coordinator_address needs process_id too",
    ),
    (
        {
            "distributed": "true",
            "coordinator_address": "host",
            "num_processes": 2,
            "process_id": 0,
        },
        "--coordinator_address must be host:port, got 'host'",
    ),
    (
        {
            "distributed": "true",
            "coordinator_address": "host:1",
            "num_processes": 2,
            "process_id": 2,
        },
        "--process_id must be below num_processes (2), got 2",
    ),
    ({"num_processes": -1}, "--num_processes must be at least 0, got -1"),
    ({"process_id": -2}, "--process_id must be at least -1, got -2"),
    ({"compilation_cache": ""}, "--compilation_cache must be auto, off or a folder, got ''"),
    ({"compilation_cache": __file__}, "--compilation_cache must be auto, off or a folder, got '/"),
]


@pytest.mark.parametrize("module", [compare, train], ids=["compare", "train"])
@pytest.mark.parametrize(("given", "message"), BAD)
def test_bad_values_are_refused(given, message, module, tmp_path, capsys):
    # Where a description were taken for whole, this process would wait for the others.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.distributed, "initialize", lambda *_: pytest.fail("started"))
        assert message in refuse(tmp_path, capsys, module=module, **given)


def test_python_users_read_the_same_message():
    with pytest.raises(SettingError) as python:
        RuntimeConfig(num_processes=2)
    with pytest.raises(ValueError, match="num_processes") as flag:
        make(RuntimeConfig, {"num_processes": "2"})
    assert str(flag.value) == f"--{python.value}"


def test_a_home_folder_may_hold_the_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = make(CacheConfig, {"compilation_cache": "~/programs"})
    assert config.compilation_cache == str(tmp_path / "programs")
    chosen = {}
    monkeypatch.setattr(jax.config, "update", lambda name, value: chosen.update({name: value}))
    for given in (config, CacheConfig("~/programs")):
        runtime.cache_programs(given)
        assert chosen.pop("jax_compilation_cache_dir") == str(tmp_path / "programs")


@pytest.mark.parametrize(
    ("module", "given", "message"),
    [
        (reproduce, {"scale": "huge"}, "--scale=huge: value should be one of <smoke|cpu|paper>"),
        (reproduce, {"only": "table9"}, "--only must be one of table2, "),
        (reproduce, {"only": "table2,table2"}, "--only must not name anything twice"),
        (reproduce, {"seed": -1}, "--seed must be at least 0, got -1"),
        (reproduce, {"seed": 2**64}, "--seed must be below 2**63, got"),
        (reproduce, {"compilation_cache": ""}, "--compilation_cache must be auto, off or a folder"),
        # What the last experiment lacks is said before the first one has begun.
        (
            reproduce,
            {"only": "half_moons,loss_gradients", "data_dir": "/nowhere"},
            "mnist was not found in /nowhere",
        ),
        (table2, {"preset": "table9"}, "--preset=table9: value should be one of <digits|"),
        (table2, {"data_dir": "/nowhere"}, "mnist was not found in /nowhere"),
        (
            table2,
            {"preset": "digits", "settings": "network=conv,methods=vi"},
            "--network=conv does not take the inputs of digits, of shape [8, 8, 1]",
        ),
        (table2, {"preset": "digits", "settings": "epsilon=inf"}, "--epsilon must be a finite"),
        (table2, {"checkpoint_every": "nan"}, "--checkpoint_every must be a finite number"),
    ],
)
def test_bad_values_of_whole_tables_are_refused(module, given, message, tmp_path, capsys):
    assert message in refuse(tmp_path, capsys, module=module, **given)


@pytest.mark.parametrize(
    ("config_class", "name"),
    [
        *((module.Config, "data_dir") for module in (reproduce, table2, ensembles)),
        *((module.Config, "data_dir") for module in (loss_gradients, protocol_ablation)),
        *((module.Config, "data_dir") for module in (robustness_accuracy, autoattack)),
        (autoattack.ProcessConfig, "torch_python"),
    ],
)
def test_home_folders_are_expanded(config_class, name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert getattr(make(config_class, {name: "~/x"}), name) == str(tmp_path / "x")
    assert getattr(make(config_class, {name: ""}), name) == ""
