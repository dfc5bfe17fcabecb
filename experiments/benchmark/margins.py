"""Gradients of objectives that need all draws first, beside one that is a mean over them."""

from __future__ import annotations

from flax import linen as nn

from bnn_adv.attacks.objectives import get_objective
from experiments.benchmark import workloads
from experiments.benchmark.rows import Row, Say, Target
from experiments.benchmark.sizes import Size
from experiments.benchmark.timing import compare

NAME = "margins"

_ONE_PASS = "expected_loss"
_TWO_PASSES = ("mean_logit_margin", "log_predictive_margin")
_ROUNDS = 3


def run(size: Size, say: Say) -> list[Row]:
    """Time both published networks; forward and forward again cost half as much more."""
    conv, mlp = workloads.conv_net(size.channels), workloads.mlp(size.units)
    # What convolutions with pooling leave behind is not kept, see ``bnn_adv.attacks.passes``.
    return [
        *_time_network(f"ConvNet {size.channels}", conv, size, say, None),
        *_time_network(f"MLP {size.units}", mlp, size, say, Target(high=1.25)),
    ]


def _time_network(
    name: str, network: nn.Module, size: Size, say: Say, target: Target | None
) -> list[Row]:
    count, num_draws = size.attack_images, size.attack_draws
    work = f"gradient, {name}, {count} images x {num_draws} draws"
    say(work)
    posterior = workloads.draw_posterior(network, workloads.MNIST, num_draws)
    x, y = workloads.images(count, workloads.MNIST), workloads.labels(count)
    works = {
        name: lambda name=name: workloads.evaluate(get_objective(name), posterior, x, y)
        for name in (_ONE_PASS, *_TWO_PASSES)
    }
    timings = compare(works, budget=size.budget, rounds=_ROUNDS)
    mean = timings[_ONE_PASS]
    return [
        Row(
            NAME,
            work,
            f"{name}: time",
            timings[name].median / mean.median,
            "of the expected loss's",
            timings[name].low / mean.high,
            timings[name].high / mean.low,
            mean.repeats,
            target if size.has_targets else None,
            {"seconds": timings[name].median, "seconds_of_the_expected_loss": mean.median},
        )
        for name in _TWO_PASSES
    ]
