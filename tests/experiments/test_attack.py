"""``experiments.attack`` on the run of ``experiments.evaluate`` and on a file of draws."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from bnn_adv import files
from experiments import attack
from experiments.attack_config import AttackConfig
from tests.experiments.command import run_here

SETTINGS = AttackConfig(
    suite="fast", num_test=10, num_probe=0, num_curve=0, seed=3, checkpoint_every=0
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "trained"
    run_here(
        folder,
        compilation_cache="off",
        dataset="digits",
        num_train=200,
        num_test=10,
        hidden=8,
        models="deterministic",
        protocol="corrected",
        sgd_epochs=3,
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
    assert results["config"]["hidden"] == 8
    assert results["decision_rule"] == "mean_logits"
    assert set(os.listdir(workdir)) >= {"adversarial.npz", "report.html", "config.json"}
    arrays = files.read_arrays(workdir / "adversarial.npz")
    assert 1 - np.mean(arrays["broken"]) == pytest.approx(results["adversarial_accuracy"])

    # The same from Python, and reprinted.
    config = dataclasses.replace(SETTINGS, posterior=str(trained), model="deterministic")
    other = attack.attack(config, str(tmp_path / "again"))
    assert other["adversarial_accuracy"] == results["adversarial_accuracy"]
    capsys.readouterr()
    attack.attack(config, str(tmp_path / "again"))
    assert "finished run" in capsys.readouterr().out


def test_reads_a_file_of_draws(trained, tmp_path):
    config = dataclasses.replace(
        SETTINGS,
        posterior=str(trained / "posterior" / "deterministic.npz"),
        dataset="digits",
        architecture="fc",
        hidden=8,
        activation="relu",
        norm="l2",
        epsilon=0.5,
    )
    results = attack.attack(config, str(tmp_path / "file"))
    assert (results["norm"], results["epsilon"], results["num_test"]) == ("l2", 0.5, 10)
    assert json.loads((tmp_path / "file" / "config.json").read_text("utf-8"))["norm"] == "l2"


def test_a_posterior_that_was_replaced_is_another_run(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    draws = run / "posterior" / "deterministic.npz"
    shutil.copy(draws, tmp_path / "draws.npz")
    config = dataclasses.replace(
        SETTINGS,
        posterior=str(tmp_path / "draws.npz"),
        dataset="digits",
        architecture="fc",
        hidden=8,
        activation="relu",
        epsilon=0.2,
    )
    results = attack.attack(config, str(tmp_path / "attack"))
    hashed = results["provenance"]["draws_hash"]
    arrays = {name: leaf + 0.25 for name, leaf in files.read_arrays(draws).items()}
    files.write_arrays(tmp_path / "draws.npz", arrays)
    with pytest.raises(ValueError, match=rf"draws_hash is '{hashed}' there, '[0-9a-f]+' here"):
        attack.attack(config, str(tmp_path / "attack"))
    # Of a run, whose training says what it wrote, they are refused whatever the folder.
    files.write_arrays(draws, arrays)
    config = dataclasses.replace(SETTINGS, posterior=str(run), model="deterministic")
    with pytest.raises(ValueError, match=r"draws of deterministic in .* were replaced"):
        attack.attack(config, str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"posterior": ""}, "--posterior is missing"),
        ({"model": "vi"}, r"--model=vi must be one of .*deterministic"),
        ({"model": ""}, "which is missing"),
        ({"suite": "weak"}, "Unknown protocol 'weak'"),
        ({"norm": "l7"}, "Unknown --norm: l7"),
        ({"decision_rule": "vote"}, "Unknown --decision_rule: vote. Known: mean_probabilities"),
        ({"num_probe": -1}, "--num_probe must be at least 0"),
        ({"hidden": 16}, "does not fit the network"),
    ],
)
def test_errors_come_before_work(change, message, trained, tmp_path):
    config = dataclasses.replace(SETTINGS, posterior=str(trained), model="deterministic")
    with pytest.raises(ValueError, match=message):
        attack.attack(dataclasses.replace(config, **change), str(tmp_path / "none"))
    assert not (tmp_path / "none" / "results.json").exists()


def test_a_file_needs_its_network(trained, tmp_path):
    path = str(trained / "posterior" / "deterministic.npz")
    config = dataclasses.replace(SETTINGS, posterior=path)
    with pytest.raises(ValueError, match="give --dataset, --architecture"):
        attack.attack(config, str(tmp_path / "none"))
