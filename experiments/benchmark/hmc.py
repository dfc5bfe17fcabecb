"""HMC: the full-batch gradient against the ceiling, and draws per second of the sampler."""

from __future__ import annotations

import functools

import jax

from bnn_adv.inference import METHODS
from bnn_adv.inference.densities import Data, Prior, logdensity_fn
from bnn_adv.networks import Params, get_apply_fn
from experiments.benchmark import flops, workloads
from experiments.benchmark.ceiling import bracket
from experiments.benchmark.rows import Row, Say, per_second_row, rate_row
from experiments.benchmark.sizes import Size
from experiments.benchmark.timing import measure

NAME = "hmc"


def run(size: Size, say: Say) -> list[Row]:
    """Time the gradient of the log density, then a chain."""
    network = workloads.mlp(size.hmc_units)
    data = Data(workloads.images(size.hmc_images, (784,)), workloads.labels(size.hmc_images))
    shape = f"MLP {size.hmc_units}, {size.hmc_images} x 784"
    say(f"gradient, {shape}")
    params = workloads.draw_params(network, (784,))
    density = functools.partial(logdensity_fn, apply_fn=get_apply_fn(network), prior=Prior())

    @jax.jit
    def gradient(params: Params, data: Data) -> tuple[jax.Array, Params]:
        with jax.default_matmul_precision("highest"):
            return jax.value_and_grad(density)(params, data)

    timing, ceiling = bracket(
        lambda: measure(lambda: gradient(params, data), budget=2 * size.budget), size
    )
    work = f"full-batch gradient, {shape}"
    count = size.hmc_images * flops.weight_gradient(network, (784,))
    rows = [rate_row(NAME, work, timing, flops=count, ceiling=ceiling, cpu=0.75)]

    steps = size.leapfrog_steps
    work = f"hmc.run, {shape}, {steps} leapfrog steps"
    say(work)
    method = METHODS["hmc"]
    # No adaptation, and steps so short that the random data cannot make the chain diverge.
    config = method.Config(
        num_samples=1,
        num_warmup=0,
        num_integration_steps=steps,
        adapt="none",
        init="network",
        step_size=1e-6,
    )
    chain = measure(
        lambda: method.run(jax.random.key(0), network, data, config).posterior.samples,
        budget=size.budget,
    )
    # The chain's first gradient is its start's.
    own = (steps + 1) * timing.median
    return [
        *rows,
        per_second_row(NAME, work, chain, count=1, unit="draws"),
        Row(
            NAME,
            work,
            "gradients' share of the time",
            own / chain.median,
            "of time",
            own / chain.high,
            own / chain.low,
            chain.repeats,
            None,
            {"gradient_seconds": timing.median, "seconds": chain.median},
        ),
    ]
