"""Grids of hyperparameters of the robustness-accuracy clouds, as data.

Tables 5, 6 and 7 of the supplement (Carbone et al. 2020), with their starred networks, those of
Table 1; and a grid for variational inference around Table 4, for which the paper prints none.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

_SHAPE = ("architecture", "hidden", "activation")


@dataclasses.dataclass(frozen=True)
class Grid:
    """A grid of networks of one method.

    Args:
      source: Where it stands: a table of the supplement, or ``"own"``.
      method: ``"hmc"``, ``"sgd"`` or ``"vi"``.
      axes: Values of every setting that varies.
      starred: Values of the starred network; empty where the table has none.
    """

    source: str
    method: str
    axes: Mapping[str, tuple[Any, ...]]
    starred: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class GridNetwork:
    """One network of a grid.

    Args:
      source: Of its grid.
      method: Of its grid.
      settings: (setting, value) in the order of the grid's axes; hashable.
      is_starred: Whether it is the grid's starred network.
    """

    source: str
    method: str
    settings: tuple[tuple[str, Any], ...]
    is_starred: bool = False

    @property
    def name(self) -> str:
        """Name made of letters, digits, hyphens and underscores; no two of a grid share it."""
        values = (f"{_SHORT[key]}{value}" for key, value in self.settings)
        return "-".join([self.method, self.source, *values]).replace(".", "p")

    def get(self, setting: str) -> Any:
        """Return the value of a setting; None where the method has no such setting."""
        own = {"method": self.method, "source": self.source, "starred": self.is_starred}
        return (own | dict(self.settings)).get(setting)

    @property
    def shape(self) -> tuple[Any, ...]:
        """Architecture, width and activation: networks that share them share programs."""
        return tuple(self.get(name) for name in _SHAPE)


_SHORT = {
    "architecture": "",
    "hidden": "h",
    "activation": "",
    "num_samples": "s",
    "step_size": "eps",
    "num_integration_steps": "l",
    "learning_rate": "lr",
    "minibatch_size": "b",
    "num_epochs": "e",
    "training": "",
    "repeat": "r",
}

GRIDS: Mapping[str, Grid] = {
    "table5": Grid(
        "table5",
        "hmc",
        {
            "architecture": ("fc", "fc2", "fc3"),
            "hidden": (128, 256, 512),
            "activation": ("relu", "tanh", "sigmoid"),
            "num_samples": (250, 500, 750),
            "step_size": (0.01, 0.005, 0.001, 0.0001),
            "num_integration_steps": (10, 15, 20),
        },
        {
            "architecture": "fc",
            "hidden": 512,
            "activation": "relu",
            "num_samples": 750,
            "step_size": 0.005,
            "num_integration_steps": 10,
        },
    ),
    "table6": Grid(
        "table6",
        "sgd",
        {
            "architecture": ("fc", "fc2", "fc3"),
            "hidden": (64, 128, 256, 512, 1024),
            "activation": ("relu", "tanh", "sigmoid"),
            "minibatch_size": (128, 256, 512, 1024),
            "num_epochs": (3, 5, 7, 9, 12, 15),
            "learning_rate": (0.001,),
        },
        {
            "architecture": "fc",
            "hidden": 1024,
            "activation": "relu",
            "minibatch_size": 256,
            "num_epochs": 5,
            "learning_rate": 0.001,
        },
    ),
    # The table gives no size of minibatches; 128 is that of the published code.
    "table7": Grid(
        "table7",
        "sgd",
        {
            "architecture": ("fc2", "fc3", "fc4", "fc5"),
            "hidden": (64, 128, 256, 512),
            "activation": ("relu", "tanh", "sigmoid"),
            "minibatch_size": (128,),
            "num_epochs": (5, 10, 15, 20, 25),
            "learning_rate": (0.001, 0.005, 0.01, 0.05),
        },
    ),
    # The paper shows VI networks and prints no grid: Table 4's settings for both data sets, their
    # neighbours, and training with and without the published departures (weight of the KL term,
    # initialisation). Starred: Table 4's MNIST network, as published.
    "own": Grid(
        "own",
        "vi",
        {
            "architecture": ("fc", "fc2", "conv"),
            "hidden": (128, 256, 512, 1024),
            "activation": ("leaky_relu", "relu"),
            "training": ("published", "corrected"),
            "num_epochs": (5, 10, 15),
            "learning_rate": (0.01, 0.001),
        },
        {
            "architecture": "conv",
            "hidden": 512,
            "activation": "leaky_relu",
            "training": "published",
            "num_epochs": 5,
            "learning_rate": 0.01,
        },
    ),
}


def shrink(grid: Grid, *, widths: int = 1, draws: int = 1) -> Grid:
    """Return the grid with every width and every number of draws divided, at least 1.

    Args:
      grid: A grid.
      widths: Divisor of ``hidden``.
      draws: Divisor of ``num_samples``.
    """
    divisors = {"hidden": widths, "num_samples": draws}

    def divide(name: str, value: Any) -> Any:
        return max(1, value // divisors[name]) if name in divisors else value

    axes = {
        name: tuple(dict.fromkeys(divide(name, value) for value in values))
        for name, values in grid.axes.items()
    }
    starred = {name: divide(name, value) for name, value in grid.starred.items()}
    return dataclasses.replace(grid, axes=axes, starred=starred)


def expand(grid: Grid, *, repeats: int = 1) -> list[GridNetwork]:
    """Return every network of a grid, the last axis running fastest.

    Args:
      grid: A grid.
      repeats: Networks of equal settings, told apart by the setting ``repeat``, that differ in
        initialisation and order of minibatches.
    """
    networks = []
    for values in itertools.product(*grid.axes.values(), range(repeats)):
        settings = dict(zip((*grid.axes, "repeat"), values, strict=True))
        repeat = settings.pop("repeat")
        is_starred = settings == grid.starred and repeat == 0
        if repeats > 1:
            settings["repeat"] = repeat
        network = GridNetwork(grid.source, grid.method, tuple(settings.items()), is_starred)
        networks.append(network)
    return networks


def keep(networks: Sequence[GridNetwork], terms: Sequence[str]) -> list[GridNetwork]:
    """Return the networks that all terms of a filter allow.

    Args:
      networks: Networks.
      terms: ``setting=value`` or ``setting=value|value`` keeps networks with one of the values;
        ``setting!=value`` (``|`` too) drops them; anything else keeps networks whose name holds it.
        Settings are the axes of the grids, ``method``, ``source`` and ``starred``; a network
        without the setting has no value of it.

    Raises:
      ValueError: A term is empty or names no setting.
    """
    for term in terms:
        setting = term.partition("=")[0].removesuffix("!")
        if not term or ("=" in term and setting not in SETTINGS):
            raise ValueError(
                f"A term of the filter is setting=value, setting!=value or a part of a name, got "
                f"{term!r}. Settings: {', '.join(SETTINGS)}."
            )
    return [network for network in networks if all(_allows(term, network) for term in terms)]


SETTINGS = ("method", "source", "starred", *_SHORT)
"""What a filter can ask for."""


def group_by_shape(
    rng: np.random.Generator,
    networks: Sequence[GridNetwork],
    *,
    num_shapes: int = 0,
    per_shape: int = 0,
) -> Iterator[list[GridNetwork]]:
    """Sample shapes, and networks of every shape: by chance, never by outcome.

    Args:
      rng: Decides which.
      networks: Networks of one method.
      num_shapes: Shapes at most; 0 keeps all. That of a starred network comes first.
      per_shape: Networks a shape at most; 0 keeps all. Starred ones come first, then those that
        differ in the rate alone stay together: they train side by side.

    Yields:
      The networks of a shape.
    """
    by_shape: dict[tuple[Any, ...], list[GridNetwork]] = {}
    for network in networks:
        by_shape.setdefault(network.shape, []).append(network)
    shapes = list(by_shape)
    order = [shapes[place] for place in rng.permutation(len(shapes))]
    order.sort(key=lambda shape: not any(network.is_starred for network in by_shape[shape]))
    for shape in order[: num_shapes or None]:
        bundles = list(bundle(by_shape[shape]))
        mixed = [bundles[place] for place in rng.permutation(len(bundles))]
        mixed.sort(key=lambda members: not any(network.is_starred for network in members))
        yield [network for members in mixed for network in members][: per_shape or None]


def bundle(networks: Sequence[GridNetwork]) -> Iterator[list[GridNetwork]]:
    """Group networks that differ in learning rate and repetition alone, in order."""
    alone = ("learning_rate", "repeat")
    bundles: dict[tuple[Any, ...], list[GridNetwork]] = {}
    for network in networks:
        rest = tuple(item for item in network.settings if item[0] not in alone)
        bundles.setdefault((network.method, network.source, *rest), []).append(network)
    yield from bundles.values()


def _allows(term: str, network: GridNetwork) -> bool:
    setting, equals, values = term.partition("=")
    if not equals:
        return term in network.name
    value = network.get(setting.removesuffix("!"))
    matches = value is not None and str(value).lower() in values.lower().split("|")
    return matches != setting.endswith("!")
