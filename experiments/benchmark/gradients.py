"""Input gradient of the expected loss: seconds per draw-image, and share of the ceiling."""

from __future__ import annotations

from flax import linen as nn

from bnn_adv.attacks.objectives import get_objective
from experiments.benchmark import flops, workloads
from experiments.benchmark.ceiling import make_product, product_flops
from experiments.benchmark.rows import Row, Say, rate_row
from experiments.benchmark.sizes import Size
from experiments.benchmark.timing import compare

NAME = "gradients"

_ROUNDS = 3


def run(size: Size, say: Say) -> list[Row]:
    """Time the gradient of both published networks."""
    conv, mlp = workloads.conv_net(size.channels), workloads.mlp(size.units)
    return [
        *_time_network(f"ConvNet {size.channels}", conv, size.conv_draws, size, say),
        *_time_network(f"MLP {size.units}", mlp, size.mlp_draws, size, say),
    ]


def _time_network(name: str, network: nn.Module, num_draws: int, size: Size, say: Say) -> list[Row]:
    work = f"{name}, {size.images} images x {num_draws} draws"
    say(work)
    posterior = workloads.draw_posterior(network, workloads.MNIST, num_draws)
    x, y = workloads.images(size.images, workloads.MNIST), workloads.labels(size.images)
    objective = get_objective("expected_loss")
    works = {
        "gradient": lambda: workloads.evaluate(objective, posterior, x, y),
        "product": make_product(size),
    }
    # In turn: a change of load while the gradient is measured changes the ceiling with it.
    timings = compare(works, budget=size.budget, rounds=_ROUNDS)
    timing, ceiling = timings["gradient"], product_flops(size) / timings["product"].median
    pairs = size.images * num_draws
    return [
        Row(
            NAME,
            work,
            "time per draw-image",
            timing.median / pairs,
            "s",
            timing.low / pairs,
            timing.high / pairs,
            timing.repeats,
        ),
        rate_row(
            NAME,
            work,
            timing,
            flops=pairs * flops.input_gradient(network, workloads.MNIST),
            ceiling=ceiling,
            cpu=0.7,
            gpu=0.4,
        ),
    ]
