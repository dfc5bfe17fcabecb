"""The convolutional network of the paper (Carbone et al. 2020, supplement table 4)."""

from __future__ import annotations

import dataclasses
import functools
import itertools
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
    """Convolve without padding; parameters and results as ``flax.linen.Conv``.

    XLA's CPU convolution is several times slower than a product of patches with the kernel
    matrix, and a convolution whose kernel is vmapped over draws becomes a grouped convolution.
    The matrix form stays a (batched) matrix product; accelerators have fast native ones.

    Args:
      features: Output channels.
      kernel_size: Height and width of the kernel.
      convolution: ``"patches"``, ``"native"``, or ``"auto"`` for patches on CPU, else native.
      stride: Step of the kernel, in pixels, along both axes.
    """

    features: int
    kernel_size: tuple[int, int] = (5, 5)
    convolution: Convolution = "auto"
    stride: int = 1

    @nn.compact
    def __call__(
        self, x: Pictures, *, may_pool: bool = False
    ) -> Float[jax.Array, "B rows columns features"]:
        """Return [B, (H - kh) // stride + 1, (W - kw) // stride + 1, features] of [B, H, W, C].

        Args:
          x: Pictures.
          may_pool: Whether maxima over 2x2 windows (stride 2) may be returned in its place, where
            that is faster; see ``convolve_and_pool``, which asks for it. What records the outputs
            of such a call, as Flax's ``capture_intermediates``, records these.
        """
        height, width = self.kernel_size
        shape = (height, width, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if _uses_patches(self.convolution):
            if may_pool and self.stride == 1:
                return _pooled_products(x, kernel) + bias
            patches = take_patches(x, self.kernel_size, self.stride)
            return patches @ kernel.reshape(-1, self.features) + bias
        strides, order = (self.stride, self.stride), ("NHWC", "HWIO", "NHWC")
        return bias + jax.lax.conv_general_dilated(
            x, kernel, strides, "VALID", dimension_numbers=order
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
        x = convolve_and_pool(Convolve(32, convolution=self.convolution, name="conv_0"), x)
        x = activate(x)
        x = Convolve(self.hidden, convolution=self.convolution, name="conv_1")(x)
        x = activate(max_pool(x, stride=1))
        return nn.Dense(self.num_classes, name="logits")(x.reshape(x.shape[0], -1))


def convolve_and_pool(layer: Convolve, x: Pictures) -> Float[jax.Array, "B rows columns features"]:
    """Return ``max_pool(layer(x), stride=2)``, in one step where nobody looks at the layer.

    Args:
      layer: A convolution. What intercepts its call, see ``layers.visit_layers``, is given its own
        outputs, one at every place.
      x: [B, H, W, C].
    """
    found = layer(x, may_pool=True)
    rows = (x.shape[1] - layer.kernel_size[0]) // layer.stride + 1
    return max_pool(found, stride=2) if found.shape[1] == rows else found


def _pooled_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the maxima over 2x2 windows of patches times the kernel.

    Every second patch by itself, from four starts: a maximum is of four arrays, and not of every
    second place of one, which is slower. Equal patches have equal products, as without pooling.
    """
    height, width, _, features = kernel.shape
    rows, columns = (x.shape[1] - height + 1) // 2, (x.shape[2] - width + 1) // 2
    products = [
        take_patches(x[:, i:, j:], (height, width), 2)[:, :rows, :columns]
        @ kernel.reshape(-1, features)
        for i in (0, 1)
        for j in (0, 1)
    ]
    return functools.reduce(jnp.maximum, products)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def take_patches(
    x: Pictures, kernel_size: tuple[int, int], stride: int = 1
) -> Float[jax.Array, "B rows columns features"]:
    """Cut windows out of an image, one at every place or at every ``stride``-th; no padding.

    The gradient adds the windows up in place. The one that JAX would derive pads every window to
    the size of the image first, at twice the cost; it alone has forward-mode derivatives, which
    ``convolution="native"`` of the networks offers.

    Args:
      x: [B, H, W, C].
      kernel_size: Height and width of a window.
      stride: Step between windows, in pixels, along both axes.

    Returns:
      [B, (H - kh) // stride + 1, (W - kw) // stride + 1, kh * kw * C], in the order of a kernel
      [kh, kw, C, features].
    """
    return jnp.concatenate([x[window] for window in _windows(x.shape, kernel_size, stride)], -1)


def _patches_forward(
    x: jax.Array, kernel_size: tuple[int, int], stride: int
) -> tuple[jax.Array, tuple[int, ...]]:
    return take_patches(x, kernel_size, stride), x.shape


def _patches_backward(
    kernel_size: tuple[int, int], stride: int, shape: tuple[int, ...], cotangent: jax.Array
) -> tuple[jax.Array]:
    height, width = kernel_size
    channels, (rows, columns) = shape[-1], cotangent.shape[1:3]
    # A pixel's place within a stride has axes of its own: what a window adds to is contiguous.
    tall, wide = (-(-size // stride) for size in shape[1:3])
    total = jnp.zeros((shape[0], tall, stride, wide, stride, channels), cotangent.dtype)
    for number, (i, j) in enumerate(itertools.product(range(height), range(width))):
        own = cotangent[..., number * channels : (number + 1) * channels]
        (down, top), (right, left) = divmod(i, stride), divmod(j, stride)
        at = (slice(None), slice(down, down + rows), top, slice(right, right + columns), left)
        total = total.at[at].add(own)
    whole = total.reshape(shape[0], tall * stride, wide * stride, channels)
    return (whole[:, : shape[1], : shape[2]],)


take_patches.defvjp(_patches_forward, _patches_backward)


def _windows(
    shape: tuple[int, ...], kernel_size: tuple[int, int], stride: int
) -> list[tuple[slice, ...]]:
    """Return which pixels each place of the kernel sees."""
    height, width = kernel_size
    # One past the last place at which a window begins.
    rows, columns = shape[1] - height + 1, shape[2] - width + 1
    return [
        (slice(None), slice(i, i + rows, stride), slice(j, j + columns, stride))
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
