"""``experiments.certify`` on a file of draws: its folder, its table, its resumption."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import bnn_adv
from bnn_adv.attacks import fgsm
from bnn_adv.compute import files
from bnn_adv.data import load_dataset
from bnn_adv.evaluation.suites import Entry, Suite
from bnn_adv.networks import get_apply_fn, init_params, mlp
from bnn_adv.posteriors.posterior import save_posterior
from experiments import certify
from experiments.readme.one_number import one_number
from experiments.readme.results import describe_result
from tests.experiments.command import arguments, refuse, run_here

ROOT = Path(__file__).parents[2]
SUITE = Suite((Entry("fgsm", fgsm.build(), "mean_logit_margin"),), name="one_step", worst_case=True)
FLAGS = {
    "dataset": "digits",
    "num_test": 8,
    "network": "mlp",
    "mlp.hidden": 5,
    "epsilon": 0.01,
    "method": "ibp",
    "num_halvings": 12,
    "batch_size": 4,
    "num_curve": 0,
    "suite": "tests.experiments.test_certify:SUITE",
    "compilation_cache": "off",
}


@pytest.fixture(scope="module")
def draws(tmp_path_factory):
    """Write draws whose last layer is a fit of the test images, so that some are right."""
    path = tmp_path_factory.mktemp("draws") / "draws.npz"
    network = mlp.build(mlp.Config(hidden=5), 10)
    data = load_dataset("digits", num_test=8)
    params = [init_params(jax.random.key(s), network, data.x_test.shape[1:]) for s in (0, 1)]
    fitted = []
    for one in params:
        layers = {name: dict(layer) for name, layer in one.items()}
        flat = data.x_test.reshape(8, -1)
        hidden = np.maximum(flat @ layers["hidden_0"]["kernel"] + layers["hidden_0"]["bias"], 0)
        wanted = 6.0 * np.eye(10)[data.y_test] - 3
        layers["logits"]["kernel"] = np.linalg.lstsq(hidden, wanted, rcond=0.01)[0].astype("f4")
        fitted.append(layers)
    posterior = bnn_adv.Posterior.stack(get_apply_fn(network), fitted)
    save_posterior(path, posterior)
    return path


def same_certificates(first, second):
    here, there = (files.read_arrays(folder / "certificate.npz") for folder in (first, second))
    assert here.keys() == there.keys()
    for name in here.keys() - {"seconds"}:
        np.testing.assert_array_equal(here[name], there[name], err_msg=name)


def _has_checkpoint(folder):
    return any(path.name.isdigit() for path in folder.glob("checkpoints/certify/steps/*"))


@pytest.mark.slow
def test_fills_a_folder_and_prints_both_sides(draws, tmp_path, capsys):
    results = run_here(tmp_path / "run", module=certify, posterior=draws, **FLAGS)
    printed = capsys.readouterr().out
    assert "<= true <= attacked" in printed
    claimed = results["referee"]["num_claimed"]
    assert 0 < claimed == results["referee"]["num_confirmed"]
    assert f"confirms {claimed} of {claimed} inputs" in printed
    assert set(os.listdir(tmp_path / "run")) >= {
        *("adversarial.npz", "certificate.npz", "config.json", "figures", "report.html"),
        "results.json",
    }
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert 0 <= results["certified_accuracy"] <= results["adversarial_accuracy"]
    assert results["adversarial_accuracy"] <= results["accuracy"]
    assert results["accuracy"] > 0
    assert max(results["certified_radius"]) > 0
    assert sum(results["counts"].values()) == 8
    assert (results["experiment"], results["norm"], results["suite"]) == (
        *("certify", "linf"),
        "one_step",
    )
    assert results["config"]["method"] == "ibp"
    assert "<= true <=" in one_number(results)
    described = describe_result(tmp_path, Path("run"))
    assert printed.partition("Report:")[0].strip() in described
    assert "](run/figures/certified.png)" in described
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "Certified robustness" in page
    assert "data:image/png" in page

    again = run_here(tmp_path / "run", module=certify, posterior=draws, **FLAGS)
    assert again == results
    assert "finished run" in capsys.readouterr().out
    line = refuse(
        tmp_path, capsys, module=certify, posterior=draws, **{**FLAGS, "suite": "nothing"}
    )
    assert "Unknown suite 'nothing'" in line
    with pytest.raises(SystemExit):
        run_here(tmp_path / "run", module=certify, posterior=draws, **{**FLAGS, "epsilon": 0.02})
    assert "epsilon is 0.01 there, 0.02 here" in capsys.readouterr().err

    # Without attacks, in a process that is killed after its first checkpoint.
    flags = {**FLAGS, "suite": "none", "checkpoint_every": 0.0001, "posterior": draws}
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.certify", *arguments(folder, **flags)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not _has_checkpoint(folder):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    capsys.readouterr()
    resumed = run_here(folder, module=certify, **flags)
    printed = capsys.readouterr()
    assert "attacked" not in printed.out
    assert "adversarial_accuracy" not in resumed
    same_certificates(tmp_path / "run", folder)
    assert process.returncode == -signal.SIGKILL
    assert "Resuming from checkpoint" in printed.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"posterior": ""}, "--posterior is missing"),
        ({"method": "milp"}, "method"),
        ({"num_halvings": -1}, "--num_halvings must be at least 0"),
        ({"norm": "l7"}, "norm"),
        ({"dataset": ""}, "give --dataset"),
    ],
)
def test_errors_come_before_work(change, message, draws, tmp_path, capsys):
    assert message in refuse(
        tmp_path, capsys, module=certify, **{**FLAGS, "posterior": draws, **change}
    )
