"""A suite of this library in a process of its own: its first call and those that follow."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import jax
import numpy as np

from bnn_adv import run_suite
from experiments.benchmark import peers_problem, workloads

_PRODUCT = 1024


def attack(request: dict[str, Any]) -> dict[str, Any]:
    """Attack three times at least, and until the budget is spent; write the worst images.

    Args:
      request: ``problem`` (a file of ``peers_problem.save``), ``suite``, ``epsilon``, ``budget``
        [seconds of calls after the first] and ``attacked``, the file to write.

    Returns:
      ``cold``: seconds of the first call, which compiles; ``warm``: of each later one; and the rate
      of a large matrix product.
    """
    problem = peers_problem.load(request["problem"])
    key, threat = jax.random.key(0), workloads.linf_ball(request["epsilon"])
    jax.block_until_ready(problem.posterior.samples)
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds[1:]) < request["budget"]:
        started = time.perf_counter()
        found = run_suite(key, request["suite"], *problem, threat=threat)
        seconds.append(time.perf_counter() - started)
    np.savez(request["attacked"], x_adv=found.adversarial["worst"])
    rate = _measure_product()
    return {"cold": seconds[0], "warm": seconds[1:], "product_gflops_per_second": rate}


def _measure_product() -> float:
    matrix = jax.random.uniform(jax.random.key(0), (_PRODUCT, _PRODUCT))
    multiply = jax.jit(lambda a: a @ a)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        multiply(matrix).block_until_ready()
        times.append(time.perf_counter() - started)
    return 2e-9 * _PRODUCT**3 / min(times[1:])


if __name__ == "__main__":
    print(json.dumps(attack(json.loads(sys.argv[1]))))
