"""Draws sharded over 1, 2, 4 and 8 devices: the same work, so the time should not rise.

Where there are fewer than two accelerators the devices are virtual: they share the CPU's cores,
and an efficiency of t(1) / t(N) = 1 says that sharding costs nothing. On real devices it is
t(1) / (N t(N)), and 1 says that it scales perfectly.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import jax

from bnn_adv.attacks.objectives import get_objective
from bnn_adv.compute import parallel
from bnn_adv.posteriors.posterior import shard_posterior
from experiments.benchmark import children, workloads
from experiments.benchmark.rows import Row, Say
from experiments.benchmark.sizes import Size
from experiments.benchmark.timing import Timing, measure

NAME = "devices"


def run(size: Size, say: Say) -> list[Row]:
    """Time the expected gradient of the fully connected network on growing meshes."""
    is_real = jax.default_backend() != "cpu" and jax.local_device_count() > 1
    available = jax.local_device_count() if is_real else max(size.device_counts)
    counts = [count for count in size.device_counts if count <= available]
    num_draws = max(size.device_counts) * size.fixed_draws
    work = f"MLP {size.units}, {size.images} images x {num_draws} draws"
    request = {
        "units": size.units,
        "images": size.images,
        "draws": num_draws,
        "budget": size.budget,
    }
    kind = "real" if is_real else "virtual"
    rows: list[Row] = []
    alone = 0.0
    for count in counts:
        say(f"{work}, {count} {kind} devices")
        environment = _real(count) if is_real else _virtual(count)
        timing = Timing(**children.call(__name__, request | {"devices": count}, environment))
        alone = alone or timing.median
        ideal = alone / count if is_real else alone
        rows.append(
            Row(
                NAME,
                f"{work}, {count} {kind}",
                "efficiency",
                ideal / timing.median,
                "t(1)/(N t(N))" if is_real else "t(1)/t(N)",
                ideal / timing.high,
                ideal / timing.low,
                timing.repeats,
                details={"seconds": timing.median, "devices": count, "kind": kind},
            )
        )
    return rows


def time_gradient(request: dict[str, Any]) -> Timing:
    """Time the gradient in this process, with the draws on as many devices as requested."""
    network = workloads.mlp(request["units"])
    posterior = workloads.draw_posterior(network, workloads.MNIST, request["draws"])
    if request["devices"] > 1:
        mesh = parallel.make_mesh(f"draws:{request['devices']}")
        posterior = shard_posterior(posterior, mesh)
    x, y = workloads.images(request["images"], workloads.MNIST), workloads.labels(request["images"])
    objective = get_objective("expected_loss")
    return measure(lambda: workloads.evaluate(objective, posterior, x, y), budget=request["budget"])


def _virtual(count: int) -> dict[str, str]:
    # The last of several equal XLA flags counts.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip()}


def _real(count: int) -> dict[str, str]:
    # This process holds most of every device's memory: take what is needed, not a share.
    visible = ",".join(str(device.id) for device in jax.local_devices()[:count])
    return {"CUDA_VISIBLE_DEVICES": visible, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


if __name__ == "__main__":
    print(json.dumps(time_gradient(json.loads(sys.argv[1]))._asdict()))
