"""Networks by name. A new one is a file with ``Config``, ``build`` and ``describe``, and a line."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from flax import linen as nn

from bnn_adv.compute import registry
from bnn_adv.compute.settings import Settings, check_class
from bnn_adv.networks import convnet, mlp, small_convnet
from bnn_adv.networks.activations import ACTIVATIONS
from bnn_adv.networks.convnet import ConvNet, Convolution
from bnn_adv.networks.mlp import MLP

NETWORKS: dict[str, Any] = {"mlp": mlp, "conv": convnet, "small_conv": small_convnet}

_DEPTHS = {"fc": 1, "fc2": 2, "fc3": 3, "fc4": 4, "fc5": 5}

ARCHITECTURES = (*_DEPTHS, "conv")
"""The paper's names, which ``build_network`` takes."""


class Network(NamedTuple):
    """A network that can be asked for by name.

    Config: Its settings.
    build: ``(config, num_classes) -> flax.linen.Module``.
    describe: ``config -> str``, for tables.
    """

    Config: type
    build: Callable[[Any, int], nn.Module]
    describe: Callable[[Any], str]


def find_network(name: str) -> Any:
    """Return a network's ``Config``, ``build`` and ``describe``.

    Args:
      name: A key of ``NETWORKS``; the path of a module with those members; or that of a Flax Linen
        module with a field ``num_classes``, whose other fields are its settings.

    Raises:
      ValueError: There is none.
    """
    if not registry.is_path(name):
        return registry.find("network", name, NETWORKS)
    found = registry.load("network", name)
    if isinstance(found, type) and issubclass(found, nn.Module):
        return _of_module(name, found)
    found = registry.find("network", name, NETWORKS, members=("Config", "build", "describe"))
    check_class(found.Config, f"the network {name}")
    return found


def _of_module(name: str, module: Any) -> Network:
    hints = typing.get_type_hints(module)
    names = {field.name for field in dataclasses.fields(module) if field.init}
    if "num_classes" not in names:
        raise ValueError(f"{name} is no network: it has no field num_classes, its outputs.")
    chosen = [
        (field.name, hints[field.name], dataclasses.field(default=field.default))
        for field in dataclasses.fields(module)
        if field.name not in ("num_classes", "parent", "name")
        and isinstance(field.default, bool | int | float | str | tuple)
    ]
    config = dataclasses.make_dataclass("Config", chosen, bases=(Settings,), frozen=True)
    config.__doc__ = module.__doc__
    short = registry.short_name(name)

    def build(settings: Any, num_classes: int) -> nn.Module:
        built: nn.Module = module(num_classes=num_classes, **dataclasses.asdict(settings))
        return built

    def describe(settings: Any) -> str:
        values = dataclasses.asdict(settings).items()
        return ", ".join([short, *(f"{key}={value}" for key, value in values)])

    return Network(config, build, describe)


def build_network(
    architecture: str,
    *,
    hidden: int,
    num_classes: int,
    activation: str,
    convolution: Convolution = "auto",
) -> nn.Module:
    """Build a network from the paper's names.

    Args:
      architecture: ``"fc"``, ``"fc2"`` .. ``"fc5"`` (that many hidden layers) or ``"conv"``.
      hidden: Width of every hidden layer, or channels of the second convolution.
      num_classes: Number of logits.
      activation: A name in ``ACTIVATIONS``.
      convolution: See ``Convolve``.

    Raises:
      ValueError: An unknown name, or a width below one.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"Unknown activation {activation!r}. Known: {', '.join(ACTIVATIONS)}.")
    if hidden < 1:
        raise ValueError(f"hidden must be at least 1, got {hidden}.")
    if architecture == "conv":
        return ConvNet(hidden, num_classes, activation, convolution)
    if architecture not in _DEPTHS:
        raise ValueError(
            f"Unknown architecture {architecture!r}. Known: {', '.join(ARCHITECTURES)}."
        )
    return MLP((hidden,) * _DEPTHS[architecture], num_classes, activation)
