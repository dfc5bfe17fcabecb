"""Compilation of the PGD program, by a first start and by one that finds it in the cache."""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

import jax

from bnn_adv.attacks import pgd, run_attack
from bnn_adv.attacks.objectives import get_objective
from experiments.benchmark import children, workloads
from experiments.benchmark.rows import Row, Say
from experiments.benchmark.sizes import Size
from experiments.benchmark.timing import time_once

NAME = "compiling"


def run(size: Size, say: Say) -> list[Row]:
    """Start a process twice on one compilation cache, which is empty at first."""
    request = {"channels": size.channels, "draws": size.attack_draws}
    work = f"PGD program, ConvNet {size.channels}, {size.attack_draws} draws"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        for start in ("cold", "cached"):
            say(f"{work}, {start}")
            reply = children.call(__name__, request, environment)
            rows.append(
                Row(NAME, work, f"compile time, {start}", reply["compile"], "s", details=reply)
            )
    return rows


def time_compilation(request: dict[str, Any]) -> dict[str, float]:
    """Return the seconds of the first call, of the second, and their difference."""
    network = workloads.conv_net(request["channels"])
    posterior = workloads.draw_posterior(network, workloads.MNIST, request["draws"])
    count = 8
    x, y = workloads.images(count, workloads.MNIST), workloads.labels(count)
    # The number of steps is data of the program: few of them leave mostly the compilation.
    attack = pgd.build(num_steps=1)

    objective, threat = get_objective("expected_loss"), workloads.linf_ball(0.1)

    def attack_all() -> object:
        return run_attack(jax.random.key(0), attack, objective, posterior, x, y, threat=threat)

    first, second = time_once(attack_all), time_once(attack_all)
    return {"first_call": first, "second_call": second, "compile": first - second}


if __name__ == "__main__":
    print(json.dumps(time_compilation(json.loads(sys.argv[1]))))
