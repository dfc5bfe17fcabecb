"""Small posteriors and data that many tests use."""

from __future__ import annotations

import atexit
import gc
import importlib.metadata
import os
import shutil
import tempfile

# Before JAX starts: thousands of small programs compile faster than they would run optimised. The
# older emitters compile in a third of the time, and small programs are not worth splitting. XLA
# ends the process at a flag that it does not know; newer versions have no older emitters.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false"
    * importlib.metadata.version("jaxlib").startswith("0.10."),
)
# Nor does any program compile twice, in this process or in those that it starts: pytest's workers
# inherit the folder of the process that started them, and so do the commands that tests run.
if "bnn_adv_tests_" not in os.environ.get("JAX_COMPILATION_CACHE_DIR", ""):
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="bnn_adv_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
# Source lines within programs are of no use here, and finding them takes a twentieth of the time.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings
from jax._src import lru_cache

from tests import shapes

# Before anything of the package is imported.
shapes.install()

from bnn_adv import networks  # noqa: E402
from bnn_adv.posteriors.posterior import Posterior  # noqa: E402


def _put(self, key, value):
    """Write a program so that another worker reads all of it or nothing; JAX does not."""
    path = self.path / f"{key}{lru_cache._CACHE_SUFFIX}"
    if not path.exists():
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_bytes(value)
        temporary.replace(path)


lru_cache.LRUCache.put = _put

# Before JAX starts: meshes are tested on virtual devices, everything else uses the first one.
if jax.config.jax_num_cpu_devices < 1:
    jax.config.update("jax_num_cpu_devices", 4)


# The same examples at every run: BNN_ADV_RANDOM_EXAMPLES=1 looks at others.
settings.register_profile("repeatable", derandomize=True, database=None)
if not os.environ.get("BNN_ADV_RANDOM_EXAMPLES"):
    settings.load_profile("repeatable")


# What tracing leaves behind lives on in JAX's caches: looking through millions of such objects time
# and again frees nothing.
gc.set_threshold(50_000, 20, 10)

# Whole runs and evaluations, made once for all tests that look at them.
SLOW_FIXTURES = frozenset({"evaluation", "finished", "noisy", "stopped", "uninterrupted"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A test is as slow as what it asks for."""
    for item in items:
        if SLOW_FIXTURES.intersection(item.fixturenames):
            item.add_marker(pytest.mark.slow)


def linear_apply(params, x):
    """Logits of a linear classifier: params ``{"w": [d, C], "b": [C]}``."""
    return x.reshape(x.shape[0], -1) @ params["w"] + params["b"]


def random_posterior(num_samples: int, *, seed: int = 0, scale: float = 1.0, dim: int = 6):
    """Draws of a network with one hidden layer of 5 units and 4 classes."""
    network = networks.MLP((5,), 4, "tanh")
    keys = jax.random.split(jax.random.key(seed), num_samples)
    samples = jax.vmap(lambda key: networks.init_params(key, network, (dim,)))(keys)
    samples = jax.tree.map(lambda w: w * scale, samples)
    return Posterior(networks.get_apply_fn(network), samples)


@pytest.fixture
def posterior() -> Posterior:
    return random_posterior(7)


@pytest.fixture
def batch() -> tuple[jax.Array, jax.Array]:
    x = np.random.default_rng(1).uniform(0.05, 0.95, (9, 6)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(np.arange(9) % 4, jnp.int32)


@pytest.fixture
def saturated() -> Posterior:
    """Networks whose logits are of the order of a thousand: softmax is exactly 0 or 1.

    Logit k of draw s is a large multiple of ``x_k`` minus a small share of the others, so that
    images with a clear largest coordinate are classified by it with a logit gap of hundreds.
    """
    rng = np.random.default_rng(3)
    weights = np.stack(
        [np.eye(4) * rng.uniform(2000, 4000) + rng.normal(0, 100, (4, 4)) for _ in range(6)]
    )
    samples = {
        "w": jnp.asarray(weights, jnp.float32),
        "b": jnp.zeros((6, 4), jnp.float32),
    }
    return Posterior(linear_apply, samples)
