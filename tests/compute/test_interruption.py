"""Signals that come while the device is busy for longer than anybody wants to wait."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.compute import interruption
from bnn_adv.compute.checkpoint import Checkpoints

PROGRAM = """
import sys, jax, jax.numpy as jnp
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.compute.interruption import exit_on_signals

with exit_on_signals("Come back.", grace_seconds=0.5):
    checkpoints = Checkpoints(sys.argv[1], every_seconds=1000)
    with checkpoints.session("endless"):
        checkpoints.tick(7, {"x": jnp.arange(3)})
        forever = jax.jit(
            lambda x: jax.lax.while_loop(lambda v: v.sum() >= 0, lambda v: v / 2, x)
        ).lower(jnp.ones(3)).compile()
        print("ready", flush=True)
        forever(jnp.ones(3)).block_until_ready()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_endless_call_is_left_in_seconds_with_the_last_state_saved(number, status, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            # A program may be half written when its process is killed.
            "JAX_COMPILATION_CACHE_DIR": f"{tmp_path}-programs",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        sent = time.monotonic()
        error = process.stderr.read()
        assert process.wait(timeout=60) == status
    assert time.monotonic() - sent < 20
    assert error == "Come back.\n"
    with Checkpoints(tmp_path, log=lambda message: None).session("endless") as saved:
        assert saved.step == 7
        np.testing.assert_array_equal(saved.fit({"x": jnp.zeros(3, jnp.int32)})["x"], [0, 1, 2])


def test_a_signal_between_two_calls_saves_at_the_next_tick(tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr(interruption, "_leave", lambda code, message: left.append((code, message)))
    checkpoints = Checkpoints(tmp_path, every_seconds=1000, log=lambda message: None)
    before = signal.getsignal(signal.SIGTERM)
    ticks = []
    with interruption.exit_on_signals("bye", grace_seconds=60), checkpoints.session("s"):
        for step in range(5):
            if step == 2:
                signal.raise_signal(signal.SIGTERM)
            ticks.append(step)
            checkpoints.tick(step, {"x": np.asarray(step)})
    assert left == [(143, "bye")]
    assert ticks == [0, 1, 2]
    assert signal.getsignal(signal.SIGTERM) is before
    assert interruption.requested() is None
    with Checkpoints(tmp_path, log=lambda message: None).session("s") as saved:
        assert saved.fit({"x": np.asarray(0)})["x"] == 2


def test_a_signal_where_nothing_can_be_saved_ends_the_work_at_once(monkeypatch):
    left = []
    monkeypatch.setattr(interruption, "_leave", lambda code, message: left.append(code))
    with interruption.exit_on_signals("bye", grace_seconds=60):
        signal.raise_signal(signal.SIGINT)
        time.sleep(30)
    assert left == [130]
