"""Settings as frozen dataclasses: bounds, help and flags follow from the fields.

A method, a network or an experiment declares what it can be told as one frozen dataclass that
inherits from ``Settings``. Bounds stand with the field and are checked wherever the record is made,
by a Python user or from flags, with one message:

    @dataclasses.dataclass(frozen=True)
    class Config(Settings):
        '''Settings of my sampler.

Args:
          step_size: Step, in units of the parameters.
        '''

        step_size: float = setting(0.01, above=0)
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import operator
import re
import types
import typing
from typing import Any, Literal

PRECISIONS = ("highest", "tensorfloat32", "bfloat16")
"""Of matrix products: float32; the others are wrong in the third digit where they are faster."""

_LARGEST = 3.4e38
"""Beyond it a number is infinite in float32."""

_LARGEST_INT = 2**63 - 1


class SettingError(ValueError):
    """A setting that is out of range or of another type.

    Args:
      name: The setting, with dots where records are nested.
      problem: What is wrong, as the rest of a sentence that begins with the name.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name, self.problem = name, problem


class Bounds(typing.TypedDict, total=False):
    """What a number may be.

    least: Smallest allowed number.
    above: Number that it must exceed.
    most: Largest allowed number.
    below: Number that it must stay below.
    """

    least: float | None
    above: float | None
    most: float | None
    below: float | None


class Field(typing.NamedTuple):
    """A setting as flags and checks see it.

    name: Its name.
    kind: The type of its value, or of the elements of a tuple.
    is_tuple: Whether it is a tuple of them.
    is_optional: Whether it may be None.
    choices: Allowed values; empty: any.
    default: The default value.
    help: What it is.
    metadata: Bounds, see ``setting``.
    """

    name: str
    kind: Any
    is_tuple: bool
    is_optional: bool
    choices: tuple[Any, ...]
    default: Any
    help: str
    metadata: types.MappingProxyType[Any, Any]


def setting(
    default: Any,
    help_text: str = "",
    *,
    choices: tuple[Any, ...] = (),
    is_distinct: bool = False,
    is_path: bool = False,
    least_length: int = 0,
    **bounds: typing.Unpack[Bounds],
) -> Any:
    """Declare a field with its bounds.

    Args:
      default: The default; its own bounds hold for it too.
      help_text: What it is, with its unit; empty: the class's docstring says it, under ``Args``.
      choices: Allowed values; a ``Literal`` type needs none.
      is_distinct: Of a tuple: no element twice.
      is_path: A folder or file: ``~`` is the user's home.
      least_length: Of a tuple: how many elements at least.
      bounds: Of a number, see ``Bounds``.

    Raises:
      TypeError: A bound of another name.
    """
    if unknown := bounds.keys() - Bounds.__optional_keys__:
        raise TypeError(f"setting has no bounds {', '.join(sorted(unknown))}.")
    metadata = {
        "help": help_text,
        "choices": choices,
        "is_distinct": is_distinct,
        "is_path": is_path,
        "least_length": least_length,
        **{name: bound for name, bound in bounds.items() if bound is not None},
    }
    if dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def seed(help_text: str = "Seed from which every result follows.") -> Any:
    """Declare the field of a seed."""
    # JAX's keys keep 32 bits of a seed: 2^32 + 1 would be the run of 1.
    return setting(0, help_text, least=0, most=2**32 - 1)


def data_folder() -> Any:
    """Declare the field of the folder in which data sets are looked for."""
    text = "Folder with TFDS-prepared sets or the IDX files; empty looks in the usual places."
    return setting("", text, is_path=True)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of records of settings: they are checked as they are made."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
          SettingError: A value is out of range, or of another type than its field.
        """
        check(self)

    def __identity__(self) -> tuple[str, dict[str, Any]]:
        """Return what two equal records have in common, see ``compute.canonical``."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        kept = {name: value for name, value in values.items() if not is_off(value)}
        return type(self).__qualname__, kept


def is_off(value: Any) -> bool:
    """Return whether a nested record says of itself that it changes nothing (``is_off``).

    Records and identities leave it out: they are those of before there was such a record.
    """
    return dataclasses.is_dataclass(value) and bool(getattr(value, "is_off", False))


def check(config: Any) -> None:
    """Raise unless every setting is of its type and within its bounds.

    Raises:
      SettingError: The message names the setting, what is allowed and what was given.
    """
    for field in fields(type(config)):
        value = getattr(config, field.name)
        if value is None and field.is_optional:
            continue
        if isinstance(value, tuple) and field.kind is not Any:
            _check_tuple(field, value)
        elif field.is_tuple:
            raise SettingError(field.name, f"must be a tuple, got {value!r}.")
        else:
            _check_value(field, value)


def fields(config_class: type) -> tuple[Field, ...]:
    """Return the settings of a class in order, nested records as fields of their class's type."""
    return _fields(config_class)


@functools.cache
def _fields(config_class: type) -> tuple[Field, ...]:
    hints = typing.get_type_hints(config_class)
    docs: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        docs |= describe(base)
    found = []
    for field in dataclasses.fields(config_class):
        kind, is_tuple, is_optional, literal = _read_type(hints[field.name])
        default: Any = field.default
        if default is dataclasses.MISSING:
            make: Any = field.default_factory
            default = None if make is dataclasses.MISSING else make()
        found.append(
            Field(
                field.name,
                kind,
                is_tuple,
                is_optional,
                tuple(field.metadata.get("choices", ())) or literal,
                default,
                field.metadata.get("help", "") or docs.get(field.name, ""),
                field.metadata,
            )
        )
    return tuple(found)


def check_class(config_class: Any, what: str) -> None:
    """Raise unless a class can be a record of settings: a frozen dataclass with defaults.

    Args:
      config_class: The class.
      what: Whose settings they are, for the message.

    Raises:
      ValueError: The message names the class, or the field without a default.
    """
    parameters = getattr(config_class, "__dataclass_params__", None)
    if not isinstance(config_class, type) or parameters is None or not parameters.frozen:
        raise ValueError(f"Config of {what} must be a frozen dataclass, got {config_class!r}.")
    for field in dataclasses.fields(config_class):
        if field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{field.name}, in Config of {what}, needs a default.")


def describe(config_class: type) -> dict[str, str]:
    """Return what the ``Args`` of a class's docstring say of each of its fields."""
    text = inspect.cleandoc(config_class.__doc__ or "")
    _, _, rest = text.partition("Args:\n")
    found: dict[str, str] = {}
    for line in rest.splitlines():
        if line and not line.startswith(" "):
            break
        if match := re.match(r"  (\w+): (.*)", line):
            name = match[1]
            found[name] = match[2]
        elif found and line.strip():
            found[name] += f" {line.strip()}"
    # Markup is for those who read the source.
    return {name: text.replace("``", "") for name, text in found.items()}


def _read_type(hint: Any) -> tuple[Any, bool, bool, tuple[Any, ...]]:
    """Return the kind of a value, whether it is a tuple, whether it may be None, and choices."""
    is_optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = typing.get_args(hint)
        is_optional = type(None) in parts
        # One value, or one an item as a tuple: flags give one.
        hint = next(part for part in parts if part is not type(None))
    if typing.get_origin(hint) is tuple:
        kind, _, _, literal = _read_type(typing.get_args(hint)[0])
        return kind, True, is_optional, literal
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        return type(choices[0]), False, is_optional, choices
    return hint, False, is_optional, ()


def _check_tuple(field: Field, value: tuple[Any, ...]) -> None:
    for item in value:
        _check_value(field, item)
    if len(value) < (least := field.metadata.get("least_length", 0)):
        raise SettingError(field.name, f"needs at least {least} of them, got {_show(value)}.")
    if field.metadata.get("is_distinct") and len(set(value)) < len(value):
        raise SettingError(field.name, f"must not name anything twice, got {_show(value)}.")


def _check_value(field: Field, value: Any) -> None:
    name, kind = field.name, field.kind
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, kind):  # type: ignore[arg-type]
            raise SettingError(name, f"must be a {kind!r}, got {value!r}.")
        try:
            check(value)
        except SettingError as error:
            raise SettingError(f"{name}.{error.name}", error.problem) from None
        return
    if field.choices and value not in field.choices:
        listed = ", ".join(str(choice) for choice in field.choices)
        raise SettingError(name, f"must be one of {listed}, got {value!r}.")
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise SettingError(name, f"must be an integer, got {value!r}.")
        if abs(int(value)) > _LARGEST_INT:
            raise SettingError(name, f"must be below 2**63, got {value!r}.")
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise SettingError(name, f"must be a number, got {value!r}.")
        if not math.isfinite(value) or abs(float(value)) > _LARGEST:
            raise SettingError(name, f"must be a finite number of float32, got {value!r}.")
    elif kind in (str, bool) and not isinstance(value, kind):
        raise SettingError(name, f"must be a {kind.__name__}, got {value!r}.")
    if kind in (int, float):
        _check_bounds(field, value)


def _check_bounds(field: Field, value: Any) -> None:
    bounds = field.metadata
    for name, words, holds in (
        ("least", "at least", operator.ge),
        ("above", "above", operator.gt),
        ("most", "at most", operator.le),
        ("below", "below", operator.lt),
    ):
        if name in bounds and not holds(value, bounds[name]):
            raise SettingError(field.name, f"must be {words} {bounds[name]}, got {value!r}.")


def _show(value: tuple[Any, ...]) -> str:
    return ", ".join(str(item) for item in value) or "nothing"
