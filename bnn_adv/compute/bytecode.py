"""What a function's code reads, and which code belongs to an installed library."""

from __future__ import annotations

import dis
import functools
import importlib.metadata
import sys
import sysconfig
import types
from pathlib import Path

_OWN = "bnn_adv"
_INSTALLED = tuple(
    {
        str(Path(path).resolve())
        for name, path in sysconfig.get_paths().items()
        if name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
)


@functools.cache
def library_of(module: str | None) -> str | None:
    """Return name and version of the library that a module belongs to; None for one's own code.

    This package counts as one's own code: an edited copy of it computes something else.
    """
    top = (module or "").partition(".")[0]
    if not top or top in (_OWN, "__main__"):
        return None
    if top in sys.stdlib_module_names:
        return f"python {sys.version_info[0]}.{sys.version_info[1]}"
    file = getattr(sys.modules.get(top), "__file__", None)
    if file is None or not str(Path(file).resolve()).startswith(_INSTALLED):
        return None
    return f"{top} {version_of(top)}"


def library_object(name: str, value: object) -> str | None:
    """Return what a library calls one of its own objects; None where it is not the library's."""
    library = library_of(type(value).__module__)
    if library is None or isinstance(value, type) or callable(value):
        return None
    top = type(value).__module__.partition(".")[0]
    for module in sorted(key for key in sys.modules if key.partition(".")[0] == top):
        if vars(sys.modules[module]).get(name) is value:
            return f"{library} {module}.{name}"
    return None


@functools.cache
def version_of(package: str) -> str:
    """Return the version of an installed package; ``"unknown"`` where it names none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))


@functools.lru_cache(maxsize=4096)
def names_of(code: types.CodeType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the globals that code reads and the attributes it asks for, nested functions too."""
    names, attributes = set(), set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(str(instruction.argval))
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"):
            attributes.add(str(instruction.argval))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = names_of(constant)
            names.update(inner[0])
            attributes.update(inner[1])
    return tuple(sorted(names)), tuple(sorted(attributes))
