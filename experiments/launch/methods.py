"""Methods as rows of a table: by name, each with its network, its settings and its random keys."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from absl import flags
from flax import linen as nn

from bnn_adv.compute import registry, settings
from bnn_adv.inference import METHODS, hmc, mcmc, sgd, sgmcmc, svi
from bnn_adv.networks import NETWORKS, find_network
from bnn_adv.posteriors.decision import DECISION_RULES, check_rule
from experiments.launch.config import Values, define_flags, list_names, make, to_json


class Method(NamedTuple):
    """A way to make a posterior.

    name: Of its row and of its flags.
    module: Has ``Config`` and ``run``, see ``bnn_adv/inference``.
    defaults: Its settings where none is given.
    stream: Number that its random keys are derived with.
    decision_rule: How its draws predict where nothing is said.
    """

    name: str
    module: Any
    defaults: Any
    stream: int
    decision_rule: str


ROWS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("deterministic", sgd, sgd.Config(num_members=1), 0, "mean_logits"),
        # By the mean of its members' logits, as the published code.
        Method("ensemble", sgd, sgd.Config(num_members=10), 1, "mean_logits"),
        Method("vi", svi, svi.Config(), 2, "mean_probabilities"),
        Method("hmc", hmc, hmc.Config(), 3, "mean_probabilities"),
    )
}
"""The rows of the paper's tables; their keys come from numbers, those of all others from names."""


class Row(NamedTuple):
    """A method with all its settings.

    method: The method.
    config: Its settings.
    network_name: As it was asked for.
    network: Settings of the network.
    decision_rule: How the draws predict.
    has_own_network: Whether the row has a network of its own, be it of the same name as that of
      the others.
    """

    method: Method
    config: Any
    network_name: str
    network: Any
    decision_rule: str
    has_own_network: bool = False

    @property
    def name(self) -> str:
        """Name of the row, of its files and of its flags."""
        return self.method.name

    def build(self, num_classes: int) -> nn.Module:
        """Return the network."""
        network: nn.Module = find_network(self.network_name).build(self.network, num_classes)
        return network

    def describe(self) -> str:
        """Return the network in words."""
        return str(find_network(self.network_name).describe(self.network))

    def key(self, seed: int, purpose: int) -> jax.Array:
        """Return the row's key: 0 trains, 1 attacks, 2 draws the fresh samples."""
        return jax.random.fold_in(
            jax.random.fold_in(jax.random.key(seed), self.method.stream), purpose
        )

    def to_json(self) -> dict[str, Any]:
        """Return the settings by name of flag."""
        own = self.has_own_network
        prefix = network_prefix(self.name if own else "", self.network_name)
        return {
            **to_json(self.config, prefix=f"{self.name}."),
            **to_json(self.network, prefix=prefix),
            **({f"{self.name}.network": self.network_name} if own else {}),
            f"{self.name}.decision_rule": self.decision_rule,
        }


def find_method(name: str) -> Method:
    """Return a method by name: a row of the paper's, one of ``METHODS``, or anyone's by its path.

    Raises:
      ValueError: There is none.
    """
    if name in ROWS:
        return ROWS[name]
    module = registry.find("method", name, {**ROWS, **METHODS}, members=("Config",))
    if not hasattr(module, "run"):
        module = _drive(name, module)
    settings.check_class(module.Config, f"the method {name}")
    short = registry.short_name(name)
    return Method(short, module, module.Config(), zlib.crc32(short.encode()), DECISION_RULES[0])


class _Kernel(NamedTuple):
    """A Markov kernel as a method."""

    Config: type
    run: Any
    UNIT: str = mcmc.UNIT


def _drive(name: str, module: Any) -> _Kernel:
    if not hasattr(module, "build"):
        raise ValueError(
            f"{name} is no method: it has no run, and no build of a Markov kernel. See "
            "bnn_adv/inference/README.md."
        )
    if issubclass(module.Config, sgmcmc.Config):
        run = functools.partial(sgmcmc.run, module.build)
        return _Kernel(module.Config, run, sgmcmc.UNIT)
    return _Kernel(module.Config, functools.partial(mcmc.run, module.build))


def network_prefix(row: str, network: str) -> str:
    """Return what the flags of a network begin with: of all rows, or of one that has its own."""
    return ".".join([*filter(None, [row]), registry.short_name(network), ""])


def make_rows(values: Values, methods: Sequence[str], network: str) -> tuple[Row, ...]:
    """Return methods with their settings.

    Args:
      values: Settings by name: ``hmc.step_size``, ``mlp.hidden``; a row has a network of its own
        with ``hmc.network`` and ``hmc.mlp.hidden``.
      methods: Names of the rows.
      network: Name of the network of rows that have none of their own.

    Raises:
      ValueError: A name is unknown, two rows have one name, or a setting is out of range.
    """
    return tuple(_make_row(method, values, network) for method in _find_methods(methods))


def _find_methods(names: Sequence[str]) -> list[Method]:
    found = [find_method(name) for name in names]
    short = [method.name for method in found]
    if len(set(short)) < len(short):
        raise ValueError(
            f"Two methods have one name, by which flags and rows go: {', '.join(names)}."
        )
    return found


def _make_row(method: Method, values: Values, network: str) -> Row:
    own = str(values.get(f"{method.name}.network", ""))
    chosen = own or network
    prefix = network_prefix(method.name if own else "", chosen)
    rule = str(values.get(f"{method.name}.decision_rule", method.decision_rule))
    check_rule(rule)
    config = make(method.module.Config, values, prefix=f"{method.name}.", defaults=method.defaults)
    settings_of_network = make(find_network(chosen).Config, values, prefix=prefix)
    return Row(method, config, chosen, settings_of_network, rule, bool(own))


def define_method_flags(
    methods: Sequence[str],
    own_networks: Values,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
    """Define the flags of methods.

    Args:
      methods: Names of the rows.
      own_networks: Names of networks by method, for those that have their own.
      flag_values: Where the flags are defined.

    Raises:
      ValueError: Two methods have one name.
    """
    for name, method in zip(methods, _find_methods(methods), strict=True):
        prefix = f"{method.name}."
        define_flags(
            method.module.Config, prefix=prefix, defaults=method.defaults, flag_values=flag_values
        )
        flags.DEFINE_string(
            f"{prefix}network",
            "",
            f"Network of the row {method.name}, with its settings at --{prefix}NETWORK.field; "
            "empty: as --network.",
            flag_values=flag_values,
        )
        flags.DEFINE_enum(
            f"{prefix}decision_rule",
            method.decision_rule,
            list(DECISION_RULES),
            "How the draws predict, and what attacks on them differentiate.",
            flag_values=flag_values,
        )
        if own := own_networks.get(name):
            define_network_flags([own], row=method.name, flag_values=flag_values)


def define_network_flags(
    networks: Sequence[str] = tuple(NETWORKS),
    *,
    row: str = "",
    flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
    """Define the flags of networks, for all rows or for one; of two of one name, the last one's."""
    for prefix, name in {network_prefix(row, name): name for name in networks}.items():
        define_flags(find_network(name).Config, prefix=prefix, flag_values=flag_values)


def list_settings(methods: Sequence[str], networks: Sequence[str]) -> set[str]:
    """Return the names of all settings of methods and networks, as presets may name them."""
    found = set()
    for method in map(find_method, methods):
        found |= set(list_names(method.module.Config, prefix=f"{method.name}."))
        found |= {f"{method.name}.network", f"{method.name}.decision_rule"}
        for name in networks:
            config = find_network(name).Config
            found |= set(list_names(config, prefix=network_prefix(method.name, name)))
    for name in networks:
        found |= set(list_names(find_network(name).Config, prefix=network_prefix("", name)))
    return found
