"""Peak memory of the expected gradient beyond the draws: it must not grow with their number.

On a CPU the temporary buffers of the compiled program, which XLA lays out in advance, so that
nothing has to run; on an accelerator the allocator's peak in a fresh process, less the draws.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
from flax import linen as nn

from bnn_adv.attacks.objectives import get_objective
from experiments.benchmark import children, workloads
from experiments.benchmark.rows import Row, Say, Target
from experiments.benchmark.sizes import Size

NAME = "memory"


def run(size: Size, say: Say) -> list[Row]:
    """Compare memory at several numbers of draws, for both networks."""
    return [
        *_compare("conv", size.channels, size, say),
        *_compare("mlp", size.units, size, say),
    ]


def _compare(kind: str, width: int, size: Size, say: Say) -> list[Row]:
    name = f"{'ConvNet' if kind == 'conv' else 'MLP'} {width}, {size.images} images"
    rows, used = [], []
    for num_draws in size.memory_draws:
        work = f"{name} x {num_draws} draws"
        say(work)
        request = {"kind": kind, "width": width, "images": size.images, "draws": num_draws}
        if jax.default_backend() == "cpu":
            used.append(compiled_bytes(request))
            source = "temporary buffers of the compiled program"
        else:
            reply = children.call(__name__, request, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})
            used.append(reply["bytes"])
            source = "allocator's peak less the draws"
        rows.append(
            Row(
                NAME,
                work,
                "bytes beyond the draws",
                used[-1] / 1e6,
                "MB",
                details={"bytes": used[-1], "draws_bytes": _draws_bytes(request), "source": source},
            )
        )
    # Between the larger two: the smallest number may be a single chunk of draws.
    before, last = size.memory_draws[-2:]
    growth = Row(
        NAME,
        name,
        f"growth from {before} to {last} draws",
        used[-1] / used[-2],
        "x",
        target=Target(high=1.05),
        details={"draws": list(size.memory_draws), "bytes": used},
    )
    return [*rows, growth]


def compiled_bytes(request: dict[str, Any]) -> int:
    """Return the bytes that the compiled gradient allocates for itself."""
    posterior = workloads.abstract_posterior(_network(request), workloads.MNIST, request["draws"])
    x = jax.ShapeDtypeStruct((request["images"], *workloads.MNIST), "float32")
    y = jax.ShapeDtypeStruct((request["images"],), "int32")
    objective = get_objective("expected_loss")
    analysis: Any = workloads.evaluate.lower(objective, posterior, x, y).compile().memory_analysis()
    return int(analysis.temp_size_in_bytes)


def peak_bytes(request: dict[str, Any]) -> int:
    """Run the gradient once and return the allocator's peak less the draws; accelerators only."""
    posterior = workloads.draw_posterior(_network(request), workloads.MNIST, request["draws"])
    x = workloads.images(request["images"], workloads.MNIST)
    y = workloads.labels(request["images"])
    jax.block_until_ready(workloads.evaluate(get_objective("expected_loss"), posterior, x, y))
    stats = jax.devices()[0].memory_stats()
    if not stats:
        raise RuntimeError(f"{jax.default_backend()} devices do not report their memory.")
    return int(stats["peak_bytes_in_use"]) - _draws_bytes(request)


def _network(request: dict[str, Any]) -> nn.Module:
    build = workloads.conv_net if request["kind"] == "conv" else workloads.mlp
    return build(request["width"])


def _draws_bytes(request: dict[str, Any]) -> int:
    posterior = workloads.abstract_posterior(_network(request), workloads.MNIST, request["draws"])
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(posterior.samples))


if __name__ == "__main__":
    print(json.dumps({"bytes": peak_bytes(json.loads(sys.argv[1]))}))
