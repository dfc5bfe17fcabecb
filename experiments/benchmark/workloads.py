"""Networks, draws and images to compute with; their values have no influence on the cost."""

from __future__ import annotations

import functools
import math

import jax
import numpy as np
from flax import linen as nn

from bnn_adv import networks
from bnn_adv.attacks.objectives import Objective, ObjectiveValue, value_and_gradient
from bnn_adv.attacks.threat import THREATS, Threat
from bnn_adv.networks import Params
from bnn_adv.posteriors.posterior import Posterior

MNIST = (28, 28, 1)
DIGITS = (8, 8, 1)


def conv_net(channels: int) -> nn.Module:
    """Return the published convolutional network."""
    return networks.build_network("conv", hidden=channels, num_classes=10, activation="leaky_relu")


def mlp(units: int) -> nn.Module:
    """Return the published fully connected network with one hidden layer."""
    return networks.build_network("fc", hidden=units, num_classes=10, activation="relu")


def draw_params(network: nn.Module, shape: tuple[int, ...]) -> Params:
    """Return random weights of the usual scale, without a program for every kind of layer."""
    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        scale = math.prod(leaf.shape[:-1]) ** -0.5 if len(leaf.shape) > 1 else 0.01
        return rng.normal(0.0, scale, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, _shapes(network, shape))


def draw_posterior(network: nn.Module, shape: tuple[int, ...], num_draws: int) -> Posterior:
    """Return draws that are scaled copies of one network.

    Random weights for 500 networks take longer to draw than their gradients.
    """
    scales = np.linspace(0.8, 1.2, num_draws, dtype=np.float32)

    def copy(leaf: np.ndarray) -> jax.Array:
        return jax.device_put(leaf * scales.reshape(-1, *(1,) * leaf.ndim))

    samples = jax.tree.map(copy, draw_params(network, shape))
    return Posterior(networks.get_apply_fn(network), jax.block_until_ready(samples))


def abstract_posterior(network: nn.Module, shape: tuple[int, ...], num_draws: int) -> Posterior:
    """Return the shapes of a posterior, for programs that are compiled and never run."""
    samples = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((num_draws, *leaf.shape), leaf.dtype),
        _shapes(network, shape),
    )
    return Posterior(networks.get_apply_fn(network), samples)


def images(count: int, shape: tuple[int, ...]) -> jax.Array:
    """Return random images in [0.1, 0.9]: away from the box, so that attacks can move."""
    pixels = np.random.default_rng(1).uniform(0.1, 0.9, (count, *shape))
    return jax.device_put(pixels.astype(np.float32))


def labels(count: int) -> jax.Array:
    """Return random labels of ten classes."""
    return jax.device_put(np.random.default_rng(2).integers(0, 10, count).astype(np.int32))


def linf_ball(epsilon: float) -> Threat:
    """Return the l_inf threat model of that radius."""
    return THREATS["linf"](epsilon)


@functools.partial(jax.jit, static_argnames=("objective",))
def evaluate(
    objective: Objective, posterior: Posterior, x: jax.Array, y: jax.Array
) -> ObjectiveValue:
    """Evaluate an objective and its input gradient, as one compiled program."""
    return value_and_gradient(objective, posterior, x, y)


def _shapes(network: nn.Module, shape: tuple[int, ...]) -> Params:
    return jax.eval_shape(lambda: networks.init_params(jax.random.key(0), network, shape))
