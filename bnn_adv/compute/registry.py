"""Things by name: those of a registry, or anyone's as ``package.module[:Name]``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def find(kind: str, name: str, known: Mapping[str, Any], *, members: tuple[str, ...] = ()) -> Any:
    """Return what a name stands for.

    Args:
      kind: What it is, for messages: ``"method"``, ``"network"``, ...
      name: A key of ``known``, or the path of a module or of an object in one.
      known: The registry.
      members: What it must have where it is not of the registry.

    Raises:
      ValueError: There is no such name, module or object, or it lacks a member.
    """
    if name in known:
        return known[name]
    if not is_path(name):
        raise ValueError(
            f"Unknown {kind} {name!r}. Known: {', '.join(known)}; or one of your own as "
            "package.module or package.module:Name."
        )
    found = load(kind, name)
    missing = [member for member in members if not hasattr(found, member)]
    if missing:
        raise ValueError(
            f"{name} is no {kind}: it has no {' and no '.join(missing)}. Of a {kind} these are "
            f"needed: {', '.join(members)}."
        )
    return found


def is_path(name: str) -> bool:
    """Return whether a name is the path of a module or of an object in one."""
    return "." in name or ":" in name


def short_name(name: str) -> str:
    """Return the last part of a path: the prefix of its flags, and its name in tables."""
    return name.replace(":", ".").rpartition(".")[2]


def load(kind: str, name: str) -> Any:
    """Import ``package.module`` or ``package.module:Name``.

    Raises:
      ValueError: There is no such module or object, or the module cannot be imported.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise ValueError(f"{name!r} is no path of a {kind}: package.module:Name.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # What the module itself fails to import is its own error.
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise ValueError(
            f"No module {module_name!r} for {kind} {name!r}: is its folder on PYTHONPATH, or the "
            "current one?"
        ) from error
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(
            f"{module_name}, of {kind} {name!r}, cannot be imported: {type(error).__name__}: "
            f"{error}"
        ) from error
    if not attribute:
        return module
    if not hasattr(module, attribute):
        raise ValueError(f"{module_name} has no {attribute!r}, which {kind} {name!r} names.")
    return getattr(module, attribute)
