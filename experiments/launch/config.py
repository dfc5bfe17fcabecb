"""Every setting of an experiment as one frozen record, its flags, and its presets.

Settings have names with dots where records are nested: ``hmc.prior.scale`` is a flag, a key of a
preset and a key of ``config.json``. A record is made from such values by name, wherever they come
from; what is not given has its default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from bnn_adv.compute import settings
from bnn_adv.compute.settings import Field, SettingError

Values = Mapping[str, Any]
"""Settings by name."""

Presets = Mapping[str, Values]
"""Settings by name of preset."""


def make(config_class: type, values: Values, *, prefix: str = "", defaults: Any = None) -> Any:
    """Return a record of the values that are given, and defaults.

    Args:
      config_class: A frozen dataclass, see ``bnn_adv.compute.settings``.
      values: Settings by name; text is converted; names of other records are not looked at.
      prefix: What this record's names begin with, as ``"hmc."``.
      defaults: A record whose values are the defaults; None: those of the class.

    Raises:
      ValueError: A setting is out of range, or is of a record that is off and that no value says is
        to be off; the message names the flag.
    """
    chosen = {}
    for field, name, default in _walk(config_class, prefix, defaults):
        if dataclasses.is_dataclass(field.kind):
            inner: Any = field.kind
            chosen[field.name] = make(inner, values, prefix=f"{name}.", defaults=default)
            _check_switch(chosen[field.name], values, f"{name}.")
        else:
            chosen[field.name] = _convert(name, field, values[name]) if name in values else default
    try:
        config = config_class(**chosen)
        # Records of others need not inherit from Settings.
        settings.check(config)
        return config
    except SettingError as error:
        raise ValueError(f"--{prefix}{error.name} {error.problem}") from None


def _check_switch(record: Any, values: Values, prefix: str) -> None:
    """Raise where values are given to a record that is off, and none to what turns it on."""
    switch = f"{prefix}{getattr(record, 'switch', '')}"
    given = [name for name in list_names(type(record), prefix=prefix) if name in values]
    if given and settings.is_off(record) and switch not in values:
        raise ValueError(f"--{given[0]} changes nothing without --{switch}: give that too.")


def list_names(config_class: type, *, prefix: str = "") -> list[str]:
    """Return the names of all settings of a class."""
    found = []
    for field, name, _ in _walk(config_class, prefix, None):
        if dataclasses.is_dataclass(field.kind):
            inner: Any = field.kind
            found += list_names(inner, prefix=f"{name}.")
        else:
            found.append(name)
    return found


def define_flags(
    config_class: type,
    *,
    prefix: str = "",
    defaults: Any = None,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
    """Define one absl flag for every setting of a class.

    Args:
      config_class: As for ``make``.
      prefix: As for ``make``.
      defaults: As for ``make``.
      flag_values: Where the flags are defined.

    Raises:
      ValueError: A setting is of a type that no flag gives.
    """
    for field, name, default in _walk(config_class, prefix, defaults):
        if dataclasses.is_dataclass(field.kind):
            inner: Any = field.kind
            define_flags(inner, prefix=f"{name}.", defaults=default, flag_values=flag_values)
        else:
            _define(name, field, default, flag_values)


def read_flags(flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
    """Return the values of the flags that were given on the command line."""
    return {name: flag_values[name].value for name in flag_values if flag_values[name].present}


def peek(argv: Sequence[str], name: str) -> str | None:
    """Return what a command line gives for a flag, before flags are defined; None: nothing.

    What a flag names may have flags of its own.
    """
    found = None
    for number, argument in enumerate(argv):
        flag, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag == name:
            found = value if equals else next(iter(argv[number + 1 : number + 2]), "")
    return found


def choose_preset(presets: Presets, name: str, *, flag: str = "preset") -> Values:
    """Return the values of a preset; none where the name is empty.

    Raises:
      ValueError: There is no such preset.
    """
    if name and name not in presets:
        raise ValueError(f"Unknown {flag} {name!r}. Known: {', '.join(presets)}.")
    return presets[name] if name else {}


def to_json(config: Any, *, prefix: str = "") -> dict[str, Any]:
    """Return a record as plain JSON values by name."""
    record: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if settings.is_off(value):
            continue
        if dataclasses.is_dataclass(value):
            record |= to_json(value, prefix=f"{name}.")
        else:
            record[name] = list(value) if isinstance(value, tuple) else value
    return record


def _walk(config_class: type, prefix: str, defaults: Any) -> Iterator[tuple[Field, str, Any]]:
    for field in settings.fields(config_class):
        default = field.default if defaults is None else getattr(defaults, field.name)
        yield field, prefix + field.name, default


def _define(name: str, field: Field, default: Any, flag_values: flags.FlagValues) -> None:
    if field.kind not in (bool, int, float, str):
        raise ValueError(
            f"{name} can be no flag: a setting is text, a number, true or false, a Literal of "
            f"text, a tuple of one of these, or a frozen dataclass of settings, not {field.kind}."
        )
    text = _describe(field)
    target: Any = {"flag_values": flag_values}
    if field.is_tuple:
        flags.DEFINE_list(name, [str(item) for item in default], text, **target)
    elif field.kind is bool:
        flags.DEFINE_boolean(name, default, text, **target)
    elif field.kind is int:
        flags.DEFINE_integer(name, default, text, **target)
    elif field.kind is float:
        flags.DEFINE_float(name, default, text, **target)
    elif field.choices and default in field.choices:
        flags.DEFINE_enum(name, default, list(field.choices), text, **target)
    else:
        flags.DEFINE_string(name, default, text, **target)


def _describe(field: Field) -> str:
    """Return the help of a flag, with what is allowed."""
    words = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
    bounds = [f"{words[key]} {field.metadata[key]}" for key in words if key in field.metadata]
    allowed = f" ({', '.join(bounds)})" if bounds else ""
    listed = (
        f" Of {', '.join(map(str, field.choices))}." if field.is_tuple and field.choices else ""
    )
    return f"{field.help.rstrip('.')}{allowed}.{listed}"


def _convert(name: str, field: Field, value: Any) -> Any:
    """Return a value of a field's type; what has another type stays, and is refused by name."""
    if field.is_tuple:
        items = value.split("+") if isinstance(value, str) else value
        return tuple(_convert_one(name, field, item) for item in items if item != "")
    return _convert_one(name, field, value)


def _convert_one(name: str, field: Field, value: Any) -> Any:
    if not isinstance(value, str) or field.kind is str:
        is_path = field.metadata.get("is_path") and isinstance(value, str) and value
        return str(Path(value).expanduser()) if is_path else value
    if field.kind is bool:
        if value not in ("true", "false"):
            raise ValueError(f"--{name} is true or false, got {value!r}.")
        return value == "true"
    try:
        return field.kind(value)
    except ValueError:
        kind = {int: "an integer", float: "a number"}[field.kind]
        raise ValueError(f"--{name} must be {kind}, got {value!r}.") from None
