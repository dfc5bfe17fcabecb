"""What a fork adds is one file each, outside this repository, named on the command line."""

import inspect
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from bnn_adv.compute import files
from bnn_adv.compute.checkpoint import Checkpoints
from experiments import attack, compare, train
from experiments.readme.__main__ import ROOT
from tests.experiments.command import arguments, run_here
from tests.experiments.fork import FILES


@pytest.fixture(scope="module")
def fork(tmp_path_factory):
    root = tmp_path_factory.mktemp("fork")
    (root / "my_fork").mkdir()
    for name, text in FILES.items():
        (root / "my_fork" / name).write_text(textwrap.dedent(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        yield root
    for name in [name for name in sys.modules if name.startswith("my_fork")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def trained(fork):
    return fork / "train", run_here(
        fork / "train",
        module=train,
        method="my_fork.my_sampler",
        network="my_fork.my_network:Linear",
        dataset="my_fork.my_data",
        compilation_cache="off",
        **{"my_sampler.num_samples": 3, "my_sampler.noise": 0.5, "Linear.scale": 2.0},
    )


@pytest.mark.slow
def test_a_method_a_network_and_a_data_set_of_ones_own(trained):
    folder, results = trained
    assert (results["method"], results["num_samples"]) == ("my_sampler", 3)
    assert results["network"] == "Linear, scale=2.0"
    assert results["diagnostics"]["noise"] == 0.5
    assert results["config"]["my_sampler.noise"] == 0.5
    assert files.read_arrays(folder / "posterior" / "my_sampler.npz")


@pytest.mark.slow
def test_a_kernel_of_ones_own_is_trained_and_resumed_by_flags_alone(
    fork, tmp_path, monkeypatch, capsys
):
    flags = {
        "method": "my_fork.my_kernel",
        "dataset": "my_fork.my_data",
        "compilation_cache": "off",
        "mlp.hidden": 4,
        "my_kernel.num_samples": 30,
        "my_kernel.num_warmup": 5,
        "my_kernel.num_chains": 2,
        "my_kernel.init": "network",
        "checkpoint_every": 1e-6,
    }
    whole = run_here(tmp_path / "whole", module=train, **flags)
    assert whole["diagnostics"]["num_chains"] == 2
    assert whole["diagnostics"]["acceptance_rate"] > 0.5
    ticks = []

    def unplug(self, step, *rest, tick=Checkpoints.tick):
        tick(self, step, *rest)
        ticks.append(step)
        if step > 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "tick", unplug)
        with pytest.raises(KeyboardInterrupt):
            run_here(tmp_path / "resumed", module=train, **flags)
    assert 10 < ticks[-1] < 35
    with monkeypatch.context() as patch:
        own = sys.modules["my_fork.my_kernel"]
        names, text = dict(vars(own)), inspect.getsource(own)
        exec(text.replace("config.step_size)", "2 * config.step_size)"), names)
        patch.setattr(own, "build", names["build"])
        with pytest.raises(SystemExit):
            run_here(tmp_path / "resumed", module=train, **flags)
    assert "kernel" in capsys.readouterr().err
    run_here(tmp_path / "resumed", module=train, **flags)
    found, expected = (
        files.read_arrays(tmp_path / name / "posterior" / "my_kernel.npz")
        for name in ("resumed", "whole")
    )
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf)


@pytest.mark.slow
def test_a_kernel_of_ones_own_survives_being_killed(fork, tmp_path):
    """By flags alone, in processes of its own, as a fork's users run it."""
    flags = {
        "method": "my_fork.my_kernel",
        "dataset": "my_fork.my_data",
        "mlp.hidden": 4,
        "my_kernel.num_samples": 300,
        "my_kernel.num_warmup": 5,
        "my_kernel.num_chains": 2,
        "my_kernel.init": "network",
    }

    errors = (tmp_path / "errors").open("w")

    def start(name, **more):
        path = os.pathsep.join([str(fork), str(ROOT)])
        programs = str(tmp_path / "programs")
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "experiments.train",
                *arguments(tmp_path / name, **flags, **more),
            ],
            env={
                **os.environ,
                **{
                    "PYTHONPATH": path,
                    "JAX_PLATFORMS": "cpu",
                    "JAX_COMPILATION_CACHE_DIR": programs,
                },
            },
            stdout=subprocess.DEVNULL,
            # A pipe that nobody reads would stop it once it is full.
            stderr=errors,
        )

    run_here(tmp_path / "whole", module=train, compilation_cache="off", **flags)
    often = {"checkpoint_every": 1e-6}
    with start("killed", **often) as process:
        steps = tmp_path / "killed" / "checkpoints"
        while process.poll() is None:
            # Those that are being written have other names.
            if any(path.name.isdigit() for path in steps.glob("*/steps/*")):
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "posterior").exists()
    with errors, start("killed", **often) as process:
        process.wait()
    assert process.returncode == 0, (tmp_path / "errors").read_text()
    assert "Resuming from checkpoint" in (tmp_path / "killed" / "metrics.jsonl").read_text()
    found, expected = (
        files.read_arrays(tmp_path / name / "posterior" / "my_kernel.npz")
        for name in ("killed", "whole")
    )
    assert {len(leaf) for leaf in expected.values()} == {600}
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf)


@pytest.mark.slow
def test_a_kernel_on_minibatches_of_ones_own(fork, tmp_path):
    results = run_here(
        tmp_path / "run",
        module=train,
        method="my_fork.my_thermostat",
        dataset="my_fork.my_data",
        compilation_cache="off",
        **{
            "mlp.hidden": 4,
            "my_thermostat.num_samples": 5,
            "my_thermostat.num_warmup": 20,
            "my_thermostat.num_chains": 2,
            "my_thermostat.thinning": 4,
            "my_thermostat.minibatch_size": 32,
        },
    )
    assert results["num_samples"] == 10
    assert results["diagnostics"]["num_distinct_draws"] == 10
    assert results["config"]["my_thermostat.minibatch_size"] == 32


@pytest.mark.slow
def test_its_posterior_is_attacked_like_any_other(trained, tmp_path):
    folder, _ = trained
    results = run_here(
        tmp_path / "attack",
        module=attack,
        posterior=folder,
        suite="fast",
        epsilon=0.05,
        num_probe=0,
        num_curve=0,
        compilation_cache="off",
    )
    assert results["num_samples"] == 3
    assert results["config"]["Linear.scale"] == 2.0


def evaluate(trained, workdir, **given):
    settings = {"posterior": trained[0], "epsilon": 0.2, "num_probe": 0, "num_curve": 0}
    return run_here(workdir, module=attack, compilation_cache="off", **settings, **given)


@pytest.mark.slow
def test_an_attack_and_an_objective_of_ones_own(trained, tmp_path):
    names = {"attack": "my_fork.my_attack", "objective": "my_fork.my_objective:TWICE"}
    results = evaluate(trained, tmp_path / "whole", **names)
    (row,) = results["per_attack"]
    assert (row["attack"], row["objective"]) == ("my_attack", "twice_the_margin")
    assert results["suite"] == "my_attack_twice_the_margin"
    assert results["config"]["my_attack.share"] == 1.0
    assert "suite" not in results["config"]
    assert files.read_json(tmp_path / "whole" / "config.json")["attack"] == "my_fork.my_attack"
    none = evaluate(trained, tmp_path / "tiny", **names, **{"my_attack.share": 1e-3})
    assert none["adversarial_accuracy"] == none["accuracy"] > results["adversarial_accuracy"]


@pytest.mark.slow
def test_a_suite_of_ones_own(trained, tmp_path):
    results = evaluate(trained, tmp_path / "run", suite="my_fork.my_suite:MINE")
    assert (results["suite"], results["per_attack"][0]["name"]) == ("mine", "half")
    assert results["config"]["suite"] == "my_fork.my_suite:MINE"


@pytest.mark.slow
def test_known_attacks_have_flags_from_their_build(trained, tmp_path):
    given = {"pgd.num_steps": 3, "pgd.keep": "last", "pgd.random_start": "false"}
    results = evaluate(trained, tmp_path / "run", attack="pgd", **given)
    (row,) = results["per_attack"]
    assert (row["name"], row["num_steps"]) == ("pgd_mean_logit_margin", 3)
    assert {name: results["config"][name] for name in given} == {
        "pgd.num_steps": 3,
        "pgd.keep": "last",
        "pgd.random_start": False,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"attack": "pgd", "pgd.num_steps": 0}, "--pgd.num_steps must be at least 1, got 0"),
        ({"attack": "pgd", "pgd.keep": "none"}, "pgd.keep"),
        ({"attack": "my_fork.my_attack", "my_attack.share": 2.0}, "--my_attack.share must lie in"),
        ({"attack": "pgdd"}, "Unknown attack 'pgdd'. Known: fgsm, bim"),
        ({"attack": "my_fork.my_data"}, "my_fork.my_data is no attack: it has no build"),
        ({"attack": "pgd", "suite": "fast"}, "--attack=pgd takes the place of a suite"),
        ({"objective": "dlr"}, "--objective=dlr needs --attack"),
        ({"attack": "pgd", "objective": "dlrr"}, "Unknown objective 'dlrr'"),
        ({"attack": "pgd", "objective": "my_fork.my_suite:MINE"}, "is no objective: it is a Suite"),
        ({"suite": "my_fork.my_objective:TWICE"}, "is no suite: it is a Objective"),
    ],
)
def test_attacks_that_are_none_are_refused(given, message, fork, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_here(tmp_path / "run", module=attack, posterior=fork / "train", **given)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_settings_of_ones_own_are_checked_like_any_other(fork, tmp_path, capsys):
    given = {"method": "my_fork.my_sampler", "dataset": "my_fork.my_data"}
    with pytest.raises(SystemExit):
        run_here(tmp_path / "run", module=train, **given, **{"my_sampler.noise": -1.0})
    assert "--my_sampler.noise must be above 0, got -1.0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_here(tmp_path / "run", module=train, method="my_fork.my_data")
    assert "my_fork.my_data is no method: it has no Config" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


PLAIN = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class Config:
    noise: float = 0.1
    {field}

def run(*args, **options):
    raise AssertionError
"""


@pytest.mark.parametrize(
    ("name", "field", "given", "message"),
    [
        ("plain", "", {"plain.noise": "inf"}, "--plain.noise must be a finite number"),
        ("table", "sizes: dict = None", {}, "table.sizes can be no flag"),
        ("bare", "sizes: int = dataclasses.field(kw_only=True)", {}, "sizes, in Config of"),
        ("hmc", "", {"methods": "hmc,my_fork.hmc"}, "Two methods have one name"),
    ],
)
def test_settings_that_inherit_nothing(name, field, given, message, fork, tmp_path, capsys):
    (fork / "my_fork" / f"{name}.py").write_text(PLAIN.format(field=field))
    module = compare if "methods" in given else train
    given = given if "methods" in given else {"method": f"my_fork.{name}", **given}
    with pytest.raises(SystemExit):
        run_here(tmp_path / "run", module=module, **given)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_likelihood_of_real_targets_is_refused_before_work(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_here(tmp_path / "run", module=train, **{"hmc.likelihood": "gaussian"})
    assert "--hmc.likelihood=gaussian is for real targets" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_data_set_that_is_none_is_refused(fork, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_here(tmp_path / "run", module=train, dataset="my_fork.my_network")
    assert "my_fork.my_network is no data set: it has no load" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_its_row_stands_beside_the_others(fork, tmp_path):
    results = run_here(
        tmp_path / "both",
        module=compare,
        methods="deterministic,my_fork.my_sampler",
        dataset="my_fork.my_data",
        suites="published",
        compilation_cache="off",
        **{"my_sampler.num_samples": 1, "mlp.hidden": 4},
    )
    assert [row["model"] for row in results["rows"]] == ["deterministic", "my_sampler"]
