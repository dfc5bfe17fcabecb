"""The ceiling: float32 GFLOP/s of a large matrix product, which no network can beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.rows import Row, Say
from experiments.benchmark.sizes import Size
from experiments.benchmark.timing import Timing, Work, measure

NAME = "ceiling"

_SHARE_OF_BUDGET = 0.4

Result = TypeVar("Result")


def run(size: Size, say: Say) -> list[Row]:
    """Measure the ceiling by itself."""
    rows = matrix_rows(size)
    say(f"float32 product of {rows} x {rows} matrices")
    timing = time_product(size)
    flops = product_flops(size)
    return [
        Row(
            NAME,
            f"float32 jnp.dot, {rows} x {rows}",
            "FLOP rate",
            flops / timing.median / 1e9,
            "GFLOP/s",
            flops / timing.high / 1e9,
            flops / timing.low / 1e9,
            timing.repeats,
            None,
            {"flops": flops, "seconds": timing.median},
        )
    ]


def matrix_rows(size: Size) -> int:
    """Return the rows of the matrices on the machine at hand."""
    return size.matrix if jax.default_backend() == "cpu" else size.accelerator_matrix


def product_flops(size: Size) -> int:
    """Return the operations of the product on the machine at hand."""
    return 2 * matrix_rows(size) ** 3


def make_product(size: Size) -> Work:
    """Return one product at float32's full precision, to be timed."""
    a = jax.device_put(np.ones((matrix_rows(size), matrix_rows(size)), np.float32))
    return lambda: _product(a, a)


def time_product(size: Size) -> Timing:
    """Time the product."""
    return measure(make_product(size), budget=_SHARE_OF_BUDGET * size.budget)


def bracket(work: Callable[[], Result], size: Size) -> tuple[Result, float]:
    """Run some work between two measurements of the ceiling.

    A ratio is then taken under one load, also where the machine is shared.

    Returns:
      What the work returned, and the mean ceiling in FLOP/s.
    """
    before = time_product(size).median
    result = work()
    after = time_product(size).median
    flops = product_flops(size)
    return result, (flops / before + flops / after) / 2


@jax.jit
def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)
