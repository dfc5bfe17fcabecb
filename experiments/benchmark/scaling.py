"""Cost against draws and against images: both should be straight lines through the origin."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flax import linen as nn

from bnn_adv.attacks.objectives import get_objective
from experiments.benchmark import workloads
from experiments.benchmark.rows import Row, Say, Target
from experiments.benchmark.sizes import Size
from experiments.benchmark.timing import compare

NAME = "scaling"

_ROUNDS = 2


def run(size: Size, say: Say) -> list[Row]:
    """Sweep the number of draws, then the number of images, for both networks."""
    named = {
        f"ConvNet {size.channels}": workloads.conv_net(size.channels),
        f"MLP {size.units}": workloads.mlp(size.units),
    }
    rows = []
    for name, network in named.items():
        sweeps = {
            "draws": [(count, size.fixed_images) for count in size.sweep_draws],
            "images": [(size.fixed_draws, count) for count in size.sweep_images],
        }
        for variable, shapes in sweeps.items():
            rows.append(_sweep(name, network, variable, shapes, size, say))
    return rows


def fit_exponent(counts: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the slope of log seconds against log counts, by least squares.

    Raises:
      ValueError: Fewer than two different counts, or a number that is not positive.
    """
    if len(set(counts)) < 2 or min(*counts, *seconds) <= 0:
        raise ValueError(
            f"An exponent needs two different positive counts and positive seconds, got counts "
            f"{list(counts)} and seconds {list(seconds)}. Give at least two numbers to sweep."
        )
    x, y = [math.log(c) for c in counts], [math.log(s) for s in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def _sweep(
    name: str,
    network: nn.Module,
    variable: str,
    shapes: list[tuple[int, int]],
    size: Size,
    say: Say,
) -> Row:
    objective = get_objective("expected_loss")
    is_draws = variable == "draws"
    counts = [draws if is_draws else images for draws, images in shapes]
    fixed = f"{size.fixed_images} images" if is_draws else f"{size.fixed_draws} draws"
    work = f"{name}, {fixed}, {counts[0]}-{counts[-1]} {variable}"
    say(work)
    works = {}
    for count, (num_draws, num_images) in zip(counts, shapes, strict=True):
        posterior = workloads.draw_posterior(network, workloads.MNIST, num_draws)
        x, y = workloads.images(num_images, workloads.MNIST), workloads.labels(num_images)

        def work_once(posterior: object = posterior, x: object = x, y: object = y) -> object:
            return workloads.evaluate(objective, posterior, x, y)

        works[str(count)] = work_once
    # In turn, and the fastest of each: what else the machine does only adds, and not evenly.
    timings = list(compare(works, budget=size.budget, rounds=_ROUNDS).values())
    return Row(
        NAME,
        work,
        f"exponent of cost in {variable}",
        fit_exponent(counts, [timing.low for timing in timings]),
        "1 is linear",
        repeats=min(timing.repeats for timing in timings),
        target=Target(0.95, 1.05),
        details={
            "network": name,
            "variable": variable,
            "fixed": fixed,
            "counts": counts,
            "seconds": [timing.low for timing in timings],
            "median": [timing.median for timing in timings],
            "low": [timing.low for timing in timings],
            "high": [timing.high for timing in timings],
        },
    )
