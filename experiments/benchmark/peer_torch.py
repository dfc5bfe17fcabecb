"""The same networks, gradients, PGD and training step in batched PyTorch.

PyTorch is optional and imported on demand. The input gradient exists in three forms, each a way in
which a user would write it: draws in a loop, ``torch.func.vmap`` over all draws, and over chunks
of them. Images are always batched. Float32 without tf32, eager mode.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from bnn_adv.networks import ConvNet, Params

Weights = dict[str, Any]
"""Tensors by name, with a leading axis of draws where there are several."""

Forward = Callable[[Weights, Any], Any]
"""``(weights, x) -> logits`` for one draw and a batch of inputs."""

_CHUNK = 10


def is_installed() -> bool:
    """Whether PyTorch can be imported."""
    return importlib.util.find_spec("torch") is not None


def describe() -> str:
    """Return PyTorch's version and where it computes."""
    return f"PyTorch {_torch().__version__} on {_device()}"


def convert(network: nn.Module, params: Params) -> Weights:
    """Return one draw's, or stacked draws', parameters in PyTorch's layouts.

    Kernels [.., in, out] become [.., out, in]; convolutions [.., h, w, in, out] become
    [.., out, in, h, w]; the rows of the layer after a convolution follow channels first.
    """
    arrays = jax.tree.map(np.asarray, params)
    weights = {}
    for layer, leaves in arrays.items():
        kernel = leaves["kernel"]
        if layer.startswith("conv"):
            kernel = np.moveaxis(kernel, (-1, -2), (-4, -3))
        elif layer == "logits" and isinstance(network, ConvNet):
            side = round((kernel.shape[-2] / network.hidden) ** 0.5)
            split = kernel.reshape(*kernel.shape[:-2], side, side, network.hidden, -1)
            kernel = np.moveaxis(split, -2, -4).reshape(kernel.shape).swapaxes(-1, -2)
        else:
            kernel = kernel.swapaxes(-1, -2)
        weights[f"{layer}.weight"] = _tensor(kernel)
        weights[f"{layer}.bias"] = _tensor(leaves["bias"])
    return weights


def convert_images(x: jax.Array) -> Any:
    """Return images [B, H, W, C] as a tensor [B, C, H, W]."""
    return _tensor(np.moveaxis(np.asarray(x), -1, 1))


def convert_labels(y: jax.Array) -> Any:
    """Return labels as PyTorch wants them."""
    return _tensor(np.asarray(y, np.int64))


def to_numpy(gradient: Any) -> np.ndarray:
    """Return an image-shaped tensor [B, C, H, W] as [B, H, W, C]."""
    return np.moveaxis(gradient.detach().cpu().numpy(), 1, -1)


def get_forward(network: nn.Module) -> Forward:
    """Return the network as a function of weights and images."""
    return _conv_forward if isinstance(network, ConvNet) else _mlp_forward


def expected_gradients(
    forward: Forward, weights: Weights, y: Any
) -> dict[str, Callable[[Any], Any]]:
    """Return the input gradient of the expected loss, ``x -> gradient``, by how it is written."""
    torch = _torch()
    num_draws = next(iter(weights.values())).shape[0]

    def loss(x: Any, draw: Weights) -> Any:
        return torch.nn.functional.cross_entropy(forward(draw, x), y, reduction="sum")

    def loop(x: Any) -> Any:
        total = torch.zeros_like(x)
        for index in range(num_draws):
            leaf = x.detach().requires_grad_(True)
            draw = {name: weight[index] for name, weight in weights.items()}
            total += torch.autograd.grad(loss(leaf, draw), leaf)[0]
        return total / num_draws

    def vmapped(x: Any, chunk: int | None) -> Any:
        per_draw = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0), chunk_size=chunk)
        return per_draw(x, weights).mean(0)

    return {
        "loop": _synchronised(loop),
        "vmap": _synchronised(functools.partial(vmapped, chunk=None)),
        f"vmap, {_CHUNK} at once": _synchronised(functools.partial(vmapped, chunk=_CHUNK)),
    }


def build_pgd(
    gradient: Callable[[Any], Any], *, epsilon: float, num_steps: int
) -> Callable[[Any], Any]:
    """Return PGD in the l_inf ball from a random start, ``x -> adversarial``, last iterate."""
    torch = _torch()

    def attack(x: Any) -> Any:
        step = 2.5 * epsilon / num_steps
        adversarial = (x + epsilon * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        for _ in range(num_steps):
            moved = adversarial + step * gradient(adversarial).sign()
            adversarial = torch.min(torch.max(moved, x - epsilon), x + epsilon).clamp(0, 1)
        return adversarial

    return _synchronised(attack)


def build_epoch(
    forward: Forward, weights: Weights, x: Any, y: Any, batch: int
) -> Callable[[], Any]:
    """Return one epoch of Adam on one network, ``() -> last loss``."""
    torch = _torch()
    leaves = {name: weight.clone().requires_grad_(True) for name, weight in weights.items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=1e-4, fused=True)

    def epoch() -> Any:
        order = torch.randperm(x.shape[0], device=x.device)
        for indices in order.split(batch):
            optimiser.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(forward(leaves, x[indices]), y[indices])
            loss.backward()
            optimiser.step()
        return loss.detach()

    return _synchronised(epoch)


def _mlp_forward(weights: Weights, x: Any) -> Any:
    functional = _torch().nn.functional
    hidden = sorted(name[:-7] for name in weights if name.startswith("hidden") and "weight" in name)
    x = x.flatten(1)
    for layer in hidden:
        x = functional.relu(
            functional.linear(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"])
        )
    return functional.linear(x, weights["logits.weight"], weights["logits.bias"])


def _conv_forward(weights: Weights, x: Any) -> Any:
    functional = _torch().nn.functional
    for layer, stride in (("conv_0", 2), ("conv_1", 1)):
        x = functional.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"])
        x = functional.max_pool2d(functional.leaky_relu(x, 0.01), 2, stride)
    return functional.linear(x.flatten(1), weights["logits.weight"], weights["logits.bias"])


def _torch() -> Any:
    torch = importlib.import_module("torch")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch


def _device() -> str:
    has_gpu = jax.default_backend() == "gpu" and _torch().cuda.is_available()
    return "cuda" if has_gpu else "cpu"


def _tensor(array: np.ndarray) -> Any:
    return _torch().tensor(np.ascontiguousarray(array), device=_device())


def _synchronised(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wait for the GPU, whose calls return before they are done."""
    if _device() == "cpu":
        return function

    @functools.wraps(function)
    def wait(*arguments: Any) -> Any:
        result = function(*arguments)
        _torch().cuda.synchronize()
        return result

    return wait
