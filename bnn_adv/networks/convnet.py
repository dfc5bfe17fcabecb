"""The convolutional network of the paper (Carbone et al. 2020, supplement table 4)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from bnn_adv.compute.settings import Settings, setting
from bnn_adv.compute.types import Logits, Pictures
from bnn_adv.networks.activations import ACTIVATIONS

Convolution = Literal["auto", "patches", "native"]


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of the network of two convolutions.

    Args:
      hidden: Channels of the second convolution.
      activation: After every convolution.
      convolution: Convolutions as patches and a matrix product, or native; auto chooses by backend.
    """

    hidden: int = setting(128, least=1)
    activation: str = setting("leaky_relu", choices=tuple(ACTIVATIONS))
    convolution: Convolution = "auto"


def build(config: Config, num_classes: int) -> nn.Module:
    """Return the network."""
    return ConvNet(config.hidden, num_classes, config.activation, config.convolution)


def describe(config: Config) -> str:
    """Return the network in the paper's words."""
    return f"conv, {config.hidden} units, {config.activation}"


class Convolve(nn.Module):
    """Convolve without padding, stride 1; parameters and results as ``flax.linen.Conv``.

    XLA's CPU convolution is several times slower than a product of patches with the kernel
    matrix, and a convolution whose kernel is vmapped over draws becomes a grouped convolution.
    The matrix form stays a (batched) matrix product; accelerators have fast native ones.

    Args:
      features: Output channels.
      kernel_size: Height and width of the kernel.
      convolution: ``"patches"``, ``"native"``, or ``"auto"`` for patches on CPU, else native.
    """

    features: int
    kernel_size: tuple[int, int] = (5, 5)
    convolution: Convolution = "auto"

    @nn.compact
    def __call__(self, x: Pictures) -> Float[jax.Array, "B rows columns features"]:
        """Return [B, H - kh + 1, W - kw + 1, features] for inputs of shape [B, H, W, C]."""
        height, width = self.kernel_size
        shape = (height, width, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if _uses_patches(self.convolution):
            return take_patches(x, self.kernel_size) @ kernel.reshape(-1, self.features) + bias
        return bias + jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


class ConvNet(nn.Module):
    """Apply the published convolutional network.

    Convolution 5x5 to 32 channels, activation, max-pool 2 (stride 2), convolution 5x5 to
    ``hidden`` channels, activation, max-pool 2 (stride 1), linear layer; no padding.

    Args:
      hidden: Channels of the second convolution (512 in the paper's MNIST network).
      num_classes: Number of logits.
      activation: A name in ``ACTIVATIONS``.
      convolution: How convolutions are computed, see ``Convolve``; the result is the same.
    """

    hidden: int
    num_classes: int = 10
    activation: str = "leaky_relu"
    convolution: Convolution = "auto"

    @nn.compact
    def __call__(self, x: Pictures) -> Logits:
        """Return logits of shape [B, num_classes] for images of shape [B, H, W, C]."""
        activate = ACTIVATIONS[self.activation]
        # Every activation rises monotonically, so that it may follow the maximum: fewer values.
        x = Convolve(32, convolution=self.convolution, name="conv_0")(x)
        x = activate(max_pool(x, stride=2))
        x = Convolve(self.hidden, convolution=self.convolution, name="conv_1")(x)
        x = activate(max_pool(x, stride=1))
        return nn.Dense(self.num_classes, name="logits")(x.reshape(x.shape[0], -1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def take_patches(
    x: Pictures, kernel_size: tuple[int, int]
) -> Float[jax.Array, "B rows columns features"]:
    """Cut every window of an image out of it; stride 1, no padding.

    The gradient adds the windows up in place. The one that JAX would derive pads every window to
    the size of the image first, at twice the cost; it alone has forward-mode derivatives, which
    ``ConvNet(convolution="native")`` offers.

    Args:
      x: [B, H, W, C].
      kernel_size: Height and width of a window.

    Returns:
      [B, H - kh + 1, W - kw + 1, kh * kw * C], in the order of a kernel [kh, kw, C, features].
    """
    return jnp.concatenate([x[window] for window in _windows(x.shape, kernel_size)], axis=-1)


def _patches_forward(
    x: jax.Array, kernel_size: tuple[int, int]
) -> tuple[jax.Array, tuple[int, ...]]:
    return take_patches(x, kernel_size), x.shape


def _patches_backward(
    kernel_size: tuple[int, int], shape: tuple[int, ...], cotangent: jax.Array
) -> tuple[jax.Array]:
    channels, total = shape[-1], jnp.zeros(shape, cotangent.dtype)
    for number, window in enumerate(_windows(shape, kernel_size)):
        own = cotangent[..., number * channels : (number + 1) * channels]
        total = total.at[window].add(own)
    return (total,)


take_patches.defvjp(_patches_forward, _patches_backward)


def _windows(shape: tuple[int, ...], kernel_size: tuple[int, int]) -> list[tuple[slice, ...]]:
    """Return which pixels each place of the kernel sees."""
    height, width = kernel_size
    rows, columns = shape[1] - height + 1, shape[2] - width + 1
    return [
        (slice(None), slice(i, i + rows), slice(j, j + columns))
        for i in range(height)
        for j in range(width)
    ]


def max_pool(x: Pictures, *, stride: int) -> Float[jax.Array, "B rows columns channels"]:
    """Return the maximum over 2x2 windows without padding.

    The maximum of four shifted views: ``reduce_window`` has a slow gradient on CPU, and picks one
    of several equal maxima where this shares the gradient among them.

    Args:
      x: [B, H, W, C].
      stride: Step between windows, 1 or 2.
    """
    rows, columns = x.shape[1] - 1, x.shape[2] - 1
    views = [x[:, i : i + rows : stride, j : j + columns : stride] for i in (0, 1) for j in (0, 1)]
    return functools.reduce(jnp.maximum, views)


def _uses_patches(convolution: Convolution) -> bool:
    if convolution not in ("auto", "patches", "native"):
        raise ValueError(f"Unknown convolution {convolution!r}. Known: auto, patches, native.")
    return convolution == "patches" or (convolution == "auto" and jax.default_backend() == "cpu")
