"""The first evaluation of a process: a toy posterior, whose work is a fraction of a second."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bnn_adv
from experiments.benchmark import children
from experiments.benchmark.rows import Row, Say, Target
from experiments.benchmark.sizes import Size

NAME = "starting"

MOST_PROGRAMS = 25
"""Of the suite ``fast``."""

_MOST = {
    "fast": {"time": 8.0, "CPU time": 12.0, "programs": MOST_PROGRAMS},
    "strong": {"time": 10.0},
}
_UNITS = {"time": "s", "CPU time": "s", "programs": "programs"}
_EVENT = "/jax/core/compile/backend_compile_duration"
_INPUTS, _FEATURES, _UNITS_HIDDEN, _DRAWS = 40, 20, 16, 8


def run(size: Size, say: Say) -> list[Row]:
    """Evaluate in a fresh process without a compilation cache, and in one that finds it filled."""
    rows = []
    for suite in size.starting_suites:
        work = f"evaluate, {suite}, MLP {_UNITS_HIDDEN}, {_DRAWS} draws, {_INPUTS} inputs"
        with tempfile.TemporaryDirectory() as folder:
            kept = {"JAX_ENABLE_COMPILATION_CACHE": "true", "JAX_COMPILATION_CACHE_DIR": ""}
            starts = {
                "cold": {**kept, "JAX_ENABLE_COMPILATION_CACHE": "false"},
                "filling": {**kept, "BNN_ADV_COMPILATION_CACHE": folder},
                "cached": {**kept, "BNN_ADV_COMPILATION_CACHE": folder},
            }
            for start, environment in starts.items():
                say(f"{work}, {start}")
                reply = children.call(__name__, {"suite": suite}, environment)
                if start == "filling":
                    continue
                for figure, unit in _UNITS.items():
                    most = _MOST.get(suite, {}).get(figure) if size.has_targets else None
                    target = None if most is None or start != "cold" else Target(high=most)
                    value = reply[figure]
                    of = f"{figure}, {start}"
                    rows.append(Row(NAME, work, of, value, unit, target=target, details=reply))
    return rows


def apply_fn(params: dict[str, Any], x: jax.Array) -> jax.Array:
    """Return the logits of one draw of a network with one hidden layer, [B, 2]."""
    hidden = jax.nn.relu(x @ params["hidden"] + params["bias"])
    score = hidden @ params["out"]
    return jnp.stack([-score, score], axis=-1)


def make_problem() -> tuple[bnn_adv.Posterior, np.ndarray, np.ndarray]:
    """Return draws that agree on one direction, inputs in [0, 1], and the labels it gives them."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(_INPUTS, _FEATURES)).astype(np.float32)
    direction = rng.normal(size=_FEATURES)
    y = (x @ direction > direction.sum() / 2).astype(np.int32)
    sides = np.tile([1.0, -1.0], _UNITS_HIDDEN // 2)
    # Of pairs of rectified units the difference is linear; every draw errs in its own way.
    hidden = direction[:, None] * sides + rng.normal(
        scale=0.3, size=(_DRAWS, _FEATURES, _UNITS_HIDDEN)
    )
    samples = {
        "hidden": hidden.astype(np.float32),
        "bias": (-hidden.sum(axis=1) / 2).astype(np.float32),
        "out": np.broadcast_to(sides, (_DRAWS, _UNITS_HIDDEN)).astype(np.float32) / 4,
    }
    return bnn_adv.Posterior(apply_fn, jax.device_put(samples)), x, y


def first_evaluation(suite: str) -> dict[str, float]:
    """Return seconds, CPU seconds and compiled programs of an evaluation, and what it found."""
    programs = []

    def count(event: str, duration_secs: float, **_: Any) -> None:
        if event == _EVENT:
            programs.append(duration_secs)

    bnn_adv.enable_compilation_cache()
    posterior, x, y = make_problem()
    key = jax.random.key(0)
    jax.monitoring.register_event_duration_secs_listener(count)
    started, started_cpu = time.perf_counter(), time.process_time()
    found = bnn_adv.evaluate(
        posterior, x, y, threat=bnn_adv.LInf(0.02), suite=suite, rng_key=key, progress=None
    )
    return {
        "time": time.perf_counter() - started,
        "CPU time": time.process_time() - started_cpu,
        "programs": len(programs),
        "compiling": sum(programs),
        "accuracy": found.accuracy,
        "adversarial_accuracy": found.adversarial_accuracy,
    }


if __name__ == "__main__":
    print(json.dumps(first_evaluation(json.loads(sys.argv[1])["suite"])))
