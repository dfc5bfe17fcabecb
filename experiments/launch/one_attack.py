"""One attack in place of a suite: by name or path, with flags from the signature of its build."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Sequence
from typing import Any

from absl import flags

from bnn_adv.attacks import ATTACKS, Attack
from bnn_adv.attacks.objectives import get_objective
from bnn_adv.compute import registry, settings
from bnn_adv.evaluation.suites import Entry, Suite
from experiments.launch.config import Values, define_flags, make, peek, to_json

DEFAULT_OBJECTIVE = "mean_logit_margin"
"""What an attack climbs where nothing is said: it never saturates."""


def find_settings(name: str) -> type:
    """Return the settings of an attack as a frozen dataclass: the arguments of its ``build``.

    Args:
      name: Of an attack in ``ATTACKS``, or ``package.module`` of one's own.

    Raises:
      ValueError: There is none, or an argument of its ``build`` has no default.
    """
    return _find_settings(name, registry.find("attack", name, ATTACKS, members=("build",)))


@functools.cache
def _find_settings(name: str, module: Any) -> type:
    docs = settings.describe(getattr(module, "Config", object)) | settings.describe(module.build)
    hints, fields = typing.get_type_hints(module.build), []
    for parameter in inspect.signature(module.build).parameters.values():
        if parameter.default is parameter.empty:
            raise ValueError(
                f"build of the attack {name} needs a default for {parameter.name!r}: its flags "
                "follow from its arguments."
            )
        kind = hints.get(parameter.name, type(parameter.default))
        own = settings.setting(parameter.default, docs.get(parameter.name, ""))
        fields.append((parameter.name, kind, own))
    title = f"{registry.short_name(name)}_settings"
    return dataclasses.make_dataclass(title, fields, bases=(settings.Settings,), frozen=True)


def define_own_flags(argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flags of the attack that a command line names, if it does.

    Raises:
      ValueError: There is no such attack.
    """
    if name := peek(argv, "attack"):
        prefix = f"{registry.short_name(name)}."
        define_flags(find_settings(name), prefix=prefix, flag_values=flag_values)


def make_suite(name: str, objective: str, values: Values) -> tuple[Suite, dict[str, Any]]:
    """Return the suite of one attack, and its settings by name of flag.

    Args:
      name: Of an attack in ``ATTACKS``, or ``package.module`` of one's own.
      objective: Of an objective in ``OBJECTIVES``, or ``package.module:NAME``; empty: the default.
      values: Settings by name, as ``pgd.num_steps``.

    Raises:
      ValueError: There is no such attack or objective, or a setting is out of range.
    """
    climbed = get_objective(objective or DEFAULT_OBJECTIVE)
    short = registry.short_name(name)
    config = make(find_settings(name), values, prefix=f"{short}.")
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    try:
        attack = registry.find("attack", name, ATTACKS).build(**given)
    except ValueError as error:
        # The message begins with the setting, as those of all settings do.
        raise ValueError(f"--{short}.{error}") from None
    if not isinstance(attack, Attack):
        raise ValueError(f"build of {name} returns {type(attack).__name__}, not an Attack.")
    if attack.num_steps < 1:
        raise ValueError(f"The attack that build of {name} returns takes {attack.num_steps} steps.")
    title = f"{attack.name}_{climbed.name}"
    suite = Suite(
        (Entry(title, attack, climbed),),
        name=title,
        description=f"One attack, {attack.name} of {attack.num_steps} steps on {climbed.name}; "
        "per-image worst case.",
        worst_case=True,
    )
    return suite, to_json(config, prefix=f"{short}.")
