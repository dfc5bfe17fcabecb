"""Bound one network's margins by auto_LiRPA; run by an interpreter that has it, not imported.

  python auto_lirpa_child.py network.npz bounds.npz

``network.npz`` holds weights ``w0``, ``b0``, ``w1``, ... of a fully connected relu network, boxes
``lower`` and ``upper`` [N, d], labels ``y`` and ``iterations``. What is written: of every method
the smallest lower bound of ``z_y - z_k``, float64 [N].
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import warnings
from typing import Any

import numpy as np
import torch
import torch.onnx.symbolic_helper

warnings.filterwarnings("ignore")


def adapt_torch() -> None:
    """Give back two names of PyTorch before 1.13, for which version 0.3 was written."""
    if not hasattr(torch.onnx.symbolic_helper, "_set_opset_version"):
        torch.onnx.symbolic_helper._set_opset_version = lambda version: None
    if not hasattr(torch._C.Node, "__getitem__"):
        torch._C.Node.__getitem__ = lambda node, key: getattr(node, node.kindOf(key))(key)


def read_network(arrays: dict[str, np.ndarray]) -> Any:
    """Return the network in float64."""
    layers: list[Any] = []
    while f"w{len(layers) // 2}" in arrays:
        number = len(layers) // 2
        weight = torch.tensor(arrays[f"w{number}"], dtype=torch.float64)
        layer = torch.nn.Linear(*weight.shape)
        layer.weight.data = weight.T.contiguous()
        layer.bias.data = torch.tensor(arrays[f"b{number}"], dtype=torch.float64)
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def main(source: str, target: str) -> None:
    """Read, bound, write; print versions."""
    adapt_torch()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm

    with np.load(source, allow_pickle=False) as stored:
        arrays = dict(stored)
    network, y = read_network(arrays), arrays["y"]
    lower, upper = torch.tensor(arrays["lower"]), torch.tensor(arrays["upper"])
    x, count = (lower + upper) / 2, network[-1].out_features
    rows = np.eye(count)[y][:, None] - np.eye(count)[None]
    others = np.array([[k for k in range(count) if k != label] for label in y])
    specification = torch.tensor(np.take_along_axis(rows, others[:, :, None], axis=1))
    options = {
        # Its sparse storage of slopes ends in an error under this PyTorch.
        "sparse_features_alpha": False,
        "sparse_spec_alpha": False,
        "optimize_bound_args": {"iteration": int(arrays["iterations"])},
    }
    found = {}
    for name, method in (("ibp", "IBP"), ("crown", "CROWN"), ("alpha-crown", "CROWN-Optimized")):
        module = BoundedModule(network, x, bound_opts=dict(options), verbose=False)
        ball = PerturbationLpNorm(norm=np.inf, x_L=lower, x_U=upper)
        bound, _ = module.compute_bounds(
            x=(BoundedTensor(x, ball),), C=specification, method=method, bound_upper=False
        )
        found[name] = bound.min(dim=1).values.detach().numpy()
    np.savez(target, **found)
    versions = {name: importlib.metadata.version(name) for name in ("auto_LiRPA", "torch", "numpy")}
    print(json.dumps({"versions": versions}))


if __name__ == "__main__":
    main(*sys.argv[1:])
