"""``experiments.attack`` on the run of ``experiments.compare`` and on a file of draws."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import bnn_adv
from bnn_adv import load_shift
from bnn_adv.compute import files
from experiments import attack
from experiments.launch.attack_config import make_target
from tests.experiments.command import run_here

SETTINGS = {
    "suite": "fast",
    "num_test": 10,
    "num_probe": 0,
    "num_curve": 0,
    "seed": 3,
    "checkpoint_every": 0.0,
}
NETWORK = {"network": "mlp", "mlp.hidden": 8, "mlp.activation": "relu"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "trained"
    run_here(
        folder,
        compilation_cache="off",
        dataset="digits",
        num_train=200,
        num_test=10,
        methods="deterministic",
        suites="corrected",
        **{"mlp.hidden": 8, "deterministic.num_epochs": 3},
    )
    return folder


@pytest.mark.slow
def test_reads_the_run_and_fills_its_own(trained, tmp_path, capsys):
    """Flags are those of a command line, in a process of its own."""
    workdir = tmp_path / "attack"
    command = [
        *(sys.executable, "-m", "experiments.attack", f"--posterior={trained}"),
        *("--model=deterministic", "--suite=fast", "--num_probe=0", "--num_curve=0"),
        *(f"--workdir={workdir}", "--compilation_cache=off", "--seed=3"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    assert "adversarial accuracy" in done.stdout
    results = files.read_json(workdir / "results.json")
    assert (results["dataset"], results["epsilon"], results["norm"]) == ("digits", 0.2, "linf")
    assert results["config"]["mlp.hidden"] == 8
    assert results["decision_rule"] == "mean_logits"
    assert set(os.listdir(workdir)) >= {"adversarial.npz", "report.html", "config.json"}
    arrays = files.read_arrays(workdir / "adversarial.npz")
    assert 1 - np.mean(arrays["broken"]) == pytest.approx(results["adversarial_accuracy"])

    # The same from Python, and reprinted.
    target = make_target({**SETTINGS, "posterior": str(trained), "model": "deterministic"})
    other = attack.attack(target, str(tmp_path / "again"))
    assert other["adversarial_accuracy"] == results["adversarial_accuracy"]
    capsys.readouterr()
    attack.attack(target, str(tmp_path / "again"))
    assert "finished run" in capsys.readouterr().out


@pytest.mark.slow
def test_semantic_shift_is_part_of_the_run_where_it_is_asked_for(
    trained, tmp_path, capsys, monkeypatch
):
    keepers, real = [], bnn_adv.evaluate_shift

    def spy(*args, settings, **options):
        keepers.append(settings.checkpoints.directory)
        return real(*args, settings=settings, **options)

    monkeypatch.setattr(bnn_adv, "evaluate_shift", spy)
    given = {**SETTINGS, "posterior": str(trained), "num_test": 8, "shift": ("noise",)}
    given["checkpoint_every"] = 60.0
    own = {name: value for name, value in given.items() if name != "suite"}
    target = make_target({**own, "attack": "fgsm", "num_shift": 8})
    results = attack.attack(target, str(tmp_path / "shift"))
    assert keepers == [tmp_path / "shift" / "checkpoints" / "shift-noise"]
    found = results["shift"]["noise"]
    assert (found["num_in"], found["num_out"], found["epsilon"]) == (8, 8, 0.2)
    assert found["scores"]["entropy"]["both_attacked"]["value"] <= 0.5
    assert results["config"]["shift"] == ["noise"]
    stored = load_shift(tmp_path / "shift" / "shift" / "noise.npz")
    assert json.loads(stored.to_json()) == found
    page = (tmp_path / "shift" / "report.html").read_text("utf-8")
    assert "<h2>Semantic shift: noise</h2>" in page
    assert "Out of distribution: noise" in capsys.readouterr().out
    assert (tmp_path / "shift" / "figures" / "shift_noise.png").exists()
    # Where it is not, the run's record is what it was.
    plain = make_target({**SETTINGS, "posterior": str(trained)}).to_json()
    assert not {"shift", "num_shift"} & set(plain)
    with pytest.raises(ValueError, match="Besides data sets there are"):
        attack.attack(make_target({**given, "shift": ("letters",)}), str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_reads_a_file_of_draws(trained, tmp_path):
    given = {**SETTINGS, **NETWORK, "dataset": "digits", "norm": "l2", "epsilon": 0.5}
    path = str(trained / "posterior" / "deterministic.npz")
    results = attack.attack(make_target({**given, "posterior": path}), str(tmp_path / "file"))
    assert (results["norm"], results["epsilon"], results["num_test"]) == ("l2", 0.5, 10)
    assert json.loads((tmp_path / "file" / "config.json").read_text("utf-8"))["norm"] == "l2"


@pytest.mark.slow
def test_a_posterior_that_was_replaced_is_another_run(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    draws = run / "posterior" / "deterministic.npz"
    shutil.copy(draws, tmp_path / "draws.npz")
    given = {**SETTINGS, **NETWORK, "dataset": "digits", "epsilon": 0.2}
    target = make_target({**given, "posterior": str(tmp_path / "draws.npz")})
    results = attack.attack(target, str(tmp_path / "attack"))
    hashed = results["provenance"]["draws_hash"]
    arrays = {name: leaf + 0.25 for name, leaf in files.read_arrays(draws).items()}
    files.write_arrays(tmp_path / "draws.npz", arrays)
    with pytest.raises(ValueError, match=rf"draws_hash is '{hashed}' there, '[0-9a-f]+' here"):
        attack.attack(target, str(tmp_path / "attack"))
    # Of a run, whose training says what it wrote, they are refused whatever the folder.
    files.write_arrays(draws, arrays)
    target = make_target({**SETTINGS, "posterior": str(run), "model": "deterministic"})
    with pytest.raises(ValueError, match=r"draws of deterministic in .* were replaced"):
        attack.attack(target, str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"posterior": ""}, "--posterior is missing"),
        ({"model": "vi"}, r"--model=vi must be one of .*deterministic"),
        ({"suite": "weak"}, "Unknown suite 'weak'"),
        ({"norm": "l7"}, "--norm must be one of , linf, l2, l1, got 'l7'"),
        ({"decision_rule": "vote"}, "--decision_rule must be one of .*, got 'vote'"),
        ({"num_probe": -1}, "--num_probe must be at least 0"),
        ({"network": "conv"}, "trained with --network=mlp"),
        ({"mlp.hidden": 16}, "--mlp.hidden=16: .* trained with --mlp.hidden=8"),
        # Parameters do not tell; the run's record does.
        ({"mlp.activation": "tanh"}, "--mlp.activation=tanh: .* with --mlp.activation=relu"),
        ({"conv.hidden": 16}, "--conv.hidden=16: .* trained with --network=mlp"),
    ],
)
def test_errors_come_before_work(change, message, trained):
    given = {**SETTINGS, "posterior": str(trained), "model": "deterministic"}
    with pytest.raises(ValueError, match=message):
        make_target({**given, **change})


def test_a_run_of_one_posterior_needs_no_model(trained):
    target = make_target({**SETTINGS, "posterior": str(trained)})
    assert (target.config.model, target.config.epsilon) == ("deterministic", 0.2)
    assert target.network.hidden == 8


def test_a_file_needs_its_network(trained):
    path = str(trained / "posterior" / "deterministic.npz")
    with pytest.raises(ValueError, match="give --dataset, --network, --epsilon"):
        make_target({**SETTINGS, "posterior": path})
