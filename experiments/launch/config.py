"""Every setting of an experiment as one frozen record, its flags, and its presets."""

from __future__ import annotations

import dataclasses
from typing import Any

from absl import flags, logging


def setting(default: Any, help_text: str, *, choices: tuple[str, ...] = ()) -> Any:
    """Declare a field that is also a flag.

    Args:
      default: The default; its type decides the flag's.
      help_text: What it is, with unit; absl adds the default.
      choices: Allowed values, for text.
    """
    metadata = {"help": help_text, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def define_flags(config_class: type) -> None:
    """Define one absl flag for every field of a config class, and ``--preset``."""
    # What JAX and Orbax say in passing would bury warnings; --verbosity=0 shows it.
    flags.FLAGS.set_default("verbosity", logging.WARNING)
    for field in dataclasses.fields(config_class):
        help_text, choices = field.metadata["help"], field.metadata["choices"]
        default: Any = field.default
        if isinstance(default, bool):
            flags.DEFINE_boolean(field.name, default, help_text)
        elif isinstance(default, int):
            flags.DEFINE_integer(field.name, default, help_text)
        elif isinstance(default, float):
            flags.DEFINE_float(field.name, default, help_text)
        elif isinstance(default, tuple):
            flags.DEFINE_list(field.name, list(default), help_text)
        elif choices:
            flags.DEFINE_enum(field.name, default, list(choices), help_text)
        else:
            flags.DEFINE_string(field.name, default, help_text)


def config_from_flags(
    config_class: type,
    presets: dict[str, dict[str, Any]] | None = None,
    *,
    flag: str = "preset",
) -> Any:
    """Return the config: defaults, overlaid by the preset, overlaid by flags that were given.

    Args:
      config_class: A dataclass whose flags are defined.
      presets: Settings by name of preset; None where the flag has no say.
      flag: Name of the flag that chooses a preset.

    Raises:
      ValueError: The preset is unknown, or names a setting that does not exist.
    """
    values = flags.FLAGS
    name = str(values[flag].value) if presets is not None else ""
    presets = presets or {}
    if name and name not in presets:
        raise ValueError(f"Unknown {flag} {name!r}. Known: {', '.join(presets)}.")
    overlay = presets.get(name, {})
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    unknown = set(overlay) - set(fields)
    if unknown:
        raise ValueError(
            f"{flag.capitalize()} {name!r} sets unknown flags: {', '.join(sorted(unknown))}."
        )
    chosen = {}
    for key in fields:
        given = values[key].present
        value = values[key].value if given or key not in overlay else overlay[key]
        chosen[key] = tuple(value) if isinstance(value, list) else value
    return config_class(**chosen)


def to_json(config: Any) -> dict[str, Any]:
    """Return a config as plain JSON values."""
    record = dataclasses.asdict(config)
    return {key: list(v) if isinstance(v, tuple) else v for key, v in record.items()}
