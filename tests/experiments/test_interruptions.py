"""Runs that are killed for real, at random times, and started again with the same command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bnn_adv.compute import files
from tests.experiments.command import arguments, run_here

ROOT = Path(__file__).parents[2]
# Long thinning: many transitions whose draws need not be attacked.
FLAGS = {
    "dataset": "digits",
    "num_train": 200,
    "num_test": 6,
    "methods": "deterministic,hmc",
    "suites": "corrected",
    "mlp.hidden": 8,
    "deterministic.num_epochs": 250,
    "deterministic.learning_rate": 0.005,
    "deterministic.minibatch_size": 64,
    "hmc.step_size": 0.005,
    "hmc.adapt": "step_size",
    "hmc.num_samples": 12,
    "hmc.num_warmup": 200,
    "hmc.num_chains": 1,
    "hmc.thinning": 40,
    "hmc.num_integration_steps": 20,
    "epsilon": 0.1,
    "checkpoint_every": 0.2,
}


def run_alone(workdir, **flags):
    run_here(workdir, **{**FLAGS, **flags})


def start(workdir):
    """Start the command in a process of its own, as users do."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.compare", *arguments(workdir, **FLAGS)],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            # A program may be half written when its process is killed.
            "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "programs"),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_and_send(workdir, number, seconds):
    """Start the command, send a signal after its first checkpoint, return how it ended."""
    before = newest(workdir)
    with start(workdir) as process:
        while newest(workdir) <= before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        process.send_signal(number)
        sent = time.monotonic()
        error = process.stderr.read()
        status = process.wait(timeout=60)
    return status, error, time.monotonic() - sent


def newest(workdir):
    """Return when the newest checkpoint was finished, in nanoseconds; 0 where there is none."""
    times = [0]
    for path in workdir.glob("checkpoints/*/steps/*"):
        if path.name.isdigit():
            try:
                times.append(path.stat().st_mtime_ns)
            except FileNotFoundError:
                continue
    return max(times)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    run_alone(workdir, checkpoint_every=0)
    return workdir


def assert_same_results(workdir, expected):
    rows, others = (
        json.loads((folder / "results.json").read_text())["rows"] for folder in (workdir, expected)
    )
    for row, other in zip(rows, others, strict=True):
        for record in (row, other):
            del record["seconds"], record["diagnostics"]["training_seconds"]
        assert row == other
    names = {path.name for path in (expected / "posterior").glob("*.npz")}
    assert names == {path.name for path in (workdir / "posterior").glob("*.npz")}
    for name in [*(f"posterior/{name}" for name in names), "adversarial.npz"]:
        found, wanted = (files.read_arrays(folder / name) for folder in (workdir, expected))
        assert set(found) == set(wanted)
        for key in wanted:
            np.testing.assert_array_equal(found[key], wanted[key])
    assert not (workdir / "checkpoints").exists()
    assert not list(workdir.rglob("*tmp*"))


def test_killed_at_random_times_it_ends_with_the_same_results(uninterrupted, tmp_path):
    workdir, random = tmp_path / "killed", np.random.default_rng(3)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        status, error, seconds = run_and_send(workdir, number, random.uniform(0, 1.5))
        if status == 0:
            break
        assert "Traceback" not in error
        if number == signal.SIGTERM:
            assert status == 143
            assert seconds < 20
            assert "Interrupted; the same command continues this run." in error
        else:
            assert status == -signal.SIGKILL
    # Not in this process: its attacks check the shapes of their arguments, which is other code.
    with start(workdir) as process:
        error = process.stderr.read()
    assert process.returncode == 0, error
    messages = [
        json.loads(line)["message"]
        for line in (workdir / "metrics.jsonl").read_text().splitlines()
        if '"message"' in line
    ]
    assert any(message.startswith("Resuming from checkpoint") for message in messages)
    assert not any("damaged" in message for message in messages)
    assert_same_results(workdir, uninterrupted)


def test_another_time_between_checkpoints_is_the_same_run(uninterrupted, capsys):
    run_alone(uninterrupted, checkpoint_every=7)
    assert "finished run" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run_alone(uninterrupted, checkpoint_every=-1)
    assert "--checkpoint_every must be at least 0" in capsys.readouterr().err
