"""Where the time of a gradient goes: its matrix products alone, and reading the draws' weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bnn_adv.attacks.objectives import get_objective
from bnn_adv.compute import blocks
from bnn_adv.posteriors.posterior import Posterior, one_draw
from experiments.benchmark import flops, workloads
from experiments.benchmark.rows import Row, Say
from experiments.benchmark.sizes import Size
from experiments.benchmark.timing import compare

NAME = "pieces"

_ROUNDS = 3


def run(size: Size, say: Say) -> list[Row]:
    """Take both networks' gradients apart."""
    conv, mlp = workloads.conv_net(size.channels), workloads.mlp(size.units)
    draws = size.fixed_draws
    return [
        *_take_apart(f"ConvNet {size.channels}", conv, size.images, draws, size, say),
        *_take_apart(f"MLP {size.units}", mlp, size.images, 8 * draws, size, say),
    ]


def _take_apart(
    name: str, network: nn.Module, num_images: int, num_draws: int, size: Size, say: Say
) -> list[Row]:
    posterior = workloads.draw_posterior(network, workloads.MNIST, num_draws)
    x = workloads.images(num_images, workloads.MNIST)
    each = blocks.bytes_per_input(posterior.apply_fn, one_draw(posterior), x)
    # As many images as the library takes at once.
    block = blocks.choose_block(each, num_images)
    x, y = x[:block], workloads.labels(block)
    work = f"{name}, {block} images x {num_draws} draws"
    say(work)
    objective, factors = get_objective("expected_loss"), _factors(network, block)
    works = {
        "whole": lambda: workloads.evaluate(objective, posterior, x, y),
        "matrix products alone": lambda: _multiply(posterior, factors),
        "reading the weights alone": lambda: _read(posterior),
    }
    timings = compare(works, budget=size.budget, rounds=_ROUNDS)
    whole = timings.pop("whole").low
    return [
        Row(
            NAME,
            work,
            piece,
            timing.low / whole,
            "of the gradient's time",
            repeats=timing.repeats,
            details={"seconds": timing.low, "whole_seconds": whole},
        )
        for piece, timing in timings.items()
    ]


def _factors(network: nn.Module, block: int) -> list[tuple[jax.Array, jax.Array]]:
    """Return what every layer's weights are multiplied with: forward, and back to its input."""
    rng = np.random.default_rng(3)

    def random(rows: int, columns: int) -> jax.Array:
        return jax.device_put(rng.normal(size=(rows, columns)).astype(np.float32))

    shapes = flops.layer_products(network, workloads.MNIST)
    return [
        (random(block * rows, before), random(block * rows, after))
        for rows, before, after in shapes
    ]


@jax.jit
def _multiply(posterior: Posterior, factors: list[tuple[jax.Array, jax.Array]]) -> Any:
    def products(params: Any) -> Any:
        kernels = [leaf.reshape(-1, leaf.shape[-1]) for leaf in _kernels(params)]
        return [
            (forward @ kernel, backward @ kernel.T)
            for kernel, (forward, backward) in zip(kernels, factors, strict=True)
        ]

    return _for_each_draw(posterior, products)


@jax.jit
def _read(posterior: Posterior) -> Any:
    return _for_each_draw(posterior, _kernels)


def _for_each_draw(posterior: Posterior, fn: Any) -> Any:
    """Evaluate ``fn`` for one draw after the other, as the library does, and keep the last."""

    def take(index: jax.Array) -> Any:
        return jax.tree.map(
            lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False), posterior.samples
        )

    shapes = jax.eval_shape(lambda: fn(take(jnp.zeros((), jnp.int32))))
    blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.fori_loop(0, posterior.num_samples, lambda i, _: fn(take(i)), blank)


def _kernels(params: Any) -> list[jax.Array]:
    """Return the layers' weights in their order; names sort as the layers do."""
    return [params[layer]["kernel"] for layer in sorted(params)]
