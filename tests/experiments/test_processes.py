"""Two processes of one job, really started, give what one process gives."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnn_adv.compute import files
from tests.experiments.command import arguments, run_here

ROOT = Path(__file__).parents[2]
TINY = {
    "dataset": "digits",
    "num_train": 120,
    "num_test": 10,
    "mlp.hidden": 6,
    "methods": "hmc",
    "suites": "corrected",
    "hmc.num_samples": 2,
    "hmc.num_warmup": 2,
    "hmc.num_chains": 2,
    "hmc.num_integration_steps": 2,
    "hmc.step_size": 0.005,
    "hmc.adapt": "step_size",
    "batch_size": 8,
    "compilation_cache": "off",
}


def start(workdir, *more, devices=1):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.compare", *arguments(workdir, **TINY), *more],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """Draws and chains over one axis, images and data over the other."""
    cluster = ["--distributed", "--mesh=draws:2,data:2", "--num_processes=2"]
    cluster += [f"--coordinator_address=localhost:{free_port()}"]
    pair = [
        start(tmp_path / "two", *cluster, f"--process_id={index}", devices=2) for index in (0, 1)
    ]
    outputs = [process.communicate(timeout=400) for process in pair]
    for process, (_, errors) in zip(pair, outputs, strict=True):
        assert process.returncode == 0, errors
    assert "Report:" in outputs[0][0]
    assert "Report:" not in outputs[1][0]  # only process 0 speaks and writes

    run_here(tmp_path / "one", **TINY)
    one, two = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")
    )
    assert two["mesh"] == {"draws": 2, "data": 2}
    for a, b in zip(one["rows"], two["rows"], strict=True):
        assert a["accuracy"] == b["accuracy"]
        # An image on the edge may fall to the other side by rounding.
        found, expected = (row["protocols"]["corrected"]["pgd"] for row in (b, a))
        assert found == pytest.approx(expected, abs=0.1)
    for path in sorted((tmp_path / "one" / "posterior").glob("*.npz")):
        expected = files.read_arrays(path)
        found = files.read_arrays(tmp_path / "two" / "posterior" / path.name)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=5e-3, atol=5e-4, err_msg=name)


PRIMITIVES = """
import sys
import jax, numpy as np
from bnn_adv.compute import parallel
parallel.initialize(coordinator_address=sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
mesh = parallel.make_mesh("draws:2")
values = np.arange(6.0, dtype=np.float32)
state = {"draws": parallel.spread(values, mesh, "draws"), "key": jax.random.key(3)}
assert not state["draws"].is_fully_addressable
np.testing.assert_array_equal(parallel.to_host(state["draws"]), values)
# Typed keys too, as in the state of variational inference.
whole = parallel.gather(parallel.replicate(state, mesh), mesh)
np.testing.assert_array_equal(whole["draws"], values)
assert whole["key"] == jax.random.key(3)
assert parallel.agree(jax.process_index() == 0)
assert not parallel.agree(jax.process_index() == 1)
parallel.barrier("end")
print("writer" if parallel.is_writer() else "reader")
"""


@pytest.mark.slow
def test_arrays_keys_and_decisions_cross_processes():
    address = f"localhost:{free_port()}"
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", PRIMITIVES, address, str(index)],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    outputs = [process.communicate(timeout=200) for process in pair]
    for process, (_, errors) in zip(pair, outputs, strict=True):
        assert process.returncode == 0, errors
    assert [output.split()[-1] for output, _ in outputs] == ["writer", "reader"]


@pytest.mark.slow
def test_one_device_needs_no_mesh_and_several_processes_do(tmp_path):
    cluster = ["--distributed", "--num_processes=1", "--process_id=0"]
    process = start(
        tmp_path / "run",
        *cluster,
        f"--coordinator_address=localhost:{free_port()}",
        "--mesh=draws:9",
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "takes 9 devices and JAX sees 1" in errors
    assert not (tmp_path / "run").exists()
