"""The networks whose posteriors are compared, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import linen as nn

from bnn_adv.networks import mlp, small_convnet


class Architecture(NamedTuple):
    """A network whose width is set.

    words: What it is called, before its width.
    build: Maps the study's settings, hidden units and classes to the network.
    """

    words: str
    build: Callable[[Any, int, int], nn.Module]


def _build_fc(config: Any, hidden: int, num_classes: int) -> nn.Module:
    return mlp.build(mlp.Config(hidden=hidden, activation="relu"), num_classes)


def _build_small_conv(config: Any, hidden: int, num_classes: int) -> nn.Module:
    settings = small_convnet.Config(channels=config.channels, hidden=hidden, activation="relu")
    return small_convnet.build(settings, num_classes)


ARCHITECTURES: dict[str, Architecture] = {
    "fc": Architecture("fc", _build_fc),
    "small_conv": Architecture("small conv", _build_small_conv),
}


def describe(name: str, hidden: int) -> str:
    """Return a network and its width, in words."""
    return f"{ARCHITECTURES[name].words} {hidden}"
