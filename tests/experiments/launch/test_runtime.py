"""Flags that every experiment shares."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.launch.runtime import RuntimeConfig, start

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
    with pytest.raises(ValueError, match="Cannot read 'model:2'"):
        start(RuntimeConfig(mesh="model:2", compilation_cache="off"))
