"""One hash of any value: equal in every process, different where the value is.

Arrays count with dtype and shape, containers with their type, functions by their code: bytecode,
constants, defaults, what they close over and the globals that they read, all recursively. Functions
and classes of installed libraries count by name and the library's version. Nothing is hashed by its
``repr`` or its address; a type that is not known here is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import hashlib
import inspect
import logging
import os
import struct
import types
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bnn_adv.compute import bytecode, parallel

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
_CHUNK = 1 << 26
"""Bytes of an array that are copied at once."""

_arrays: dict[int, tuple[weakref.ref[Any], bytes]] = {}
"""Digests of JAX arrays, which never change: draws are looked at by every attack of a suite."""


def digest(value: Any, name: str = "value") -> str:
    """Return the hash of a value, 32 hexadecimal digits.

    Args:
      value: Arrays, typed keys, numbers, text, dataclasses, tuples, mappings, functions, flax
        modules and objects of one's own, however nested. An object may say what it is by a method
        ``__identity__``, whose result is hashed in its place.
      name: What it is, for errors.

    Raises:
      TypeError: Something in it has no hash that another process would find again; the message
        names where it is and its type.
    """
    return _Walk().digest(value, name).hex()


class _Walk:
    """Hash one value; what is met again within it counts by where it was met first."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._done: dict[int, tuple[Any, bytes]] = {}

    def digest(self, value: Any, where: str) -> bytes:
        if type(value) in _PLAIN:
            return _mix(type(value).__name__, [_plain(value)])
        if id(value) in self._done:
            return self._done[id(value)][1]
        if id(value) in self._open:
            return _mix("again", [str(len(self._open) - self._open[id(value)]).encode()])
        self._open[id(value)] = len(self._open)
        try:
            found = self._composite(value, where)
        finally:
            del self._open[id(value)]
        self._done[id(value)] = value, found
        return found

    def _composite(self, value: Any, where: str) -> bytes:
        known = getattr(type(value), "__identity__", None)
        if known is not None:
            return self._object("object", value, known(value), where)
        if isinstance(value, jax.core.Tracer):
            raise TypeError(f"{where} is traced by JAX and has no value yet.")
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return self._array(value, where)
        if isinstance(value, enum.Enum):
            return self._object("enum", value, value.name, where)
        if isinstance(value, np.dtype):
            return _mix("dtype", [value.str.encode(), value.name.encode()])
        if isinstance(value, os.PathLike):
            return _mix("path", [os.fsencode(value)])
        if isinstance(value, jax.ShapeDtypeStruct):
            return _mix("shape", [str(value.shape).encode(), str(value.dtype).encode()])
        if isinstance(value, Mesh):
            return _mix("mesh", [repr(dict(value.shape)).encode()])
        if isinstance(value, logging.Logger):
            return _mix("logger", [value.name.encode()])
        if isinstance(value, jax.tree_util.PyTreeDef):
            node, inner = value.node_data(), value.children()
            return self._all("structure", [str(value.num_leaves), node, inner], where)
        if isinstance(value, range | slice):
            return _mix(type(value).__name__, [repr(value).encode()])
        if isinstance(value, functools.partial):
            parts = value.func, value.args, value.keywords
            return self._object("partial", value, parts, where)
        if isinstance(value, types.CodeType):
            return self._code(value, where)
        if isinstance(value, types.MethodType):
            return self._all("method", [value.__func__, value.__self__], where)
        if isinstance(value, type):
            return self._class(value, where)
        if isinstance(value, types.ModuleType):
            return self._module(value, (), where)
        if callable(value) and callable(inner := getattr(value, "__wrapped__", None)):
            # Checks of arguments, as jaxtyping's import hook adds them, compute nothing.
            if getattr(value, "__globals__", {}).get("__name__", "").startswith("jaxtyping."):
                return self.digest(inner, where)
            # What jit, custom_vjp, functools.cache and decorators have made.
            return self._all("wrapper", [type(value).__qualname__, inner], where)
        if isinstance(value, types.FunctionType):
            return self._function(value, where)
        if isinstance(value, types.BuiltinFunctionType | np.ufunc | types.MethodDescriptorType):
            module = getattr(value, "__module__", None) or "numpy"
            name = getattr(value, "__qualname__", value.__name__)
            owner = getattr(value, "__self__", None)
            if owner is None or isinstance(owner, types.ModuleType):
                return _mix("builtin", [module.encode(), name.encode()])
            return self._all("builtin method", [name, owner], where)
        return self._contents(value, where)

    def _contents(self, value: Any, where: str) -> bytes:
        if isinstance(value, tuple) and (names := getattr(value, "_fields", None)) is not None:
            contents = dict(zip(names, value, strict=True))
            return self._object("fields", value, contents, where)
        if isinstance(value, tuple | list):
            return self._all(type(value).__name__, value, where)
        if isinstance(value, set | frozenset):
            return _mix(type(value).__name__, sorted(self.digest(one, where) for one in value))
        if isinstance(value, Mapping):
            pairs = [
                (self.digest(key, where), self.digest(one, f"{where}[{key!r:.40}]"))
                for key, one in value.items()
            ]
            return _mix("mapping", [part for pair in sorted(pairs) for part in pair])
        if get_origin(value) is not None:
            return self._all("generic", [get_origin(value), get_args(value)], where)
        if dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(value)]
            if hasattr(value, "scope") and hasattr(value, "parent"):
                # A flax module: who holds it says nothing of what it computes.
                names.remove("parent")
            contents = {name: getattr(value, name, None) for name in names}
            return self._object("dataclass", value, contents, where)
        if type(value).__module__ == "typing":
            return _mix("typing", [repr(value).encode()])
        with contextlib.suppress(ValueError, TypeError):
            flat = jax.tree_util.default_registry.flatten_one_level(value)
            if flat is not None:
                return self._object("tree", value, (list(flat[0]), flat[1]), where)
        if bytecode.library_of(type(value).__module__) is None and hasattr(value, "__dict__"):
            return self._object("object", value, vars(value), where)
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(
            f"{where} is a {kind}, which has no hash that another process would find again: what "
            "is computed with it cannot be told from something else, and is not resumed. Leave "
            "out the checkpoints, pass arrays, numbers and functions instead, or give the class a "
            "method __identity__ that returns what it consists of."
        )

    def _array(self, value: Any, where: str) -> bytes:
        if isinstance(value, jax.Array):
            if (stored := _arrays.get(id(value))) is not None and stored[0]() is value:
                return stored[1]
            key, number = value, id(value)
            if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
                data = self._array(jax.random.key_data(value), where)
                found = _mix("key", [str(jax.random.key_impl(value)).encode(), data])
            else:
                found = _array_bytes(parallel.to_host(value))
            with contextlib.suppress(TypeError):
                gone = weakref.ref(key, lambda _: _arrays.pop(number, None))
                _arrays[number] = gone, found
            return found
        if value.dtype.hasobject:
            raise TypeError(
                f"{where} is an array of Python objects. Give it a dtype of numbers or text."
            )
        return _array_bytes(np.asarray(value))

    def _function(self, value: types.FunctionType, where: str) -> bytes:
        where = f"{where} ({value.__qualname__})"
        cells = [_cell(cell) for cell in value.__closure__ or ()]
        bound = {
            "closure": dict(zip(value.__code__.co_freevars, cells, strict=True)),
            "defaults": value.__defaults__,
            "keywords": value.__kwdefaults__,
        }
        library = bytecode.library_of(value.__module__)
        if library is not None:
            name = f"{library} {value.__module__}.{value.__qualname__}"
            return self._all("library", [name, bound], where)
        names, attributes = bytecode.names_of(value.__code__)
        read = []
        for name in names:
            if name in value.__globals__:
                found = value.__globals__[name]
                there = f"{where} reads {name}"
                if isinstance(found, types.ModuleType):
                    one = self._module(found, attributes, there)
                elif (public := bytecode.library_object(name, found)) is not None:
                    one = public.encode()
                else:
                    one = self.digest(found, there)
                read += [name.encode(), one]
        own = [self._code(value.__code__, where), self.digest(bound, where)]
        return _mix("function", own + read)

    def _code(self, value: types.CodeType, where: str) -> bytes:
        numbers = value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount
        flags = value.co_flags, value.co_code, getattr(value, "co_exceptiontable", b"")
        parts = [*numbers, *flags, value.co_consts, value.co_names, value.co_freevars]
        return self._all("code", parts, where)

    def _class(self, value: type, where: str) -> bytes:
        name = f"{value.__module__}.{value.__qualname__}"
        library = bytecode.library_of(value.__module__)
        if library is not None:
            return _mix("class", [library.encode(), name.encode()])
        # What has an identity of its own is made, and checked, before anything is computed with it.
        called = ("__call__",) if hasattr(value, "__identity__") else ("__call__", "__post_init__")
        own = {
            key: found
            for key, found in vars(value).items()
            if (not key.startswith("__") or key in called)
            and key not in ("_abc_impl", "_fields", "_field_defaults")
        }
        methods = {key: _unwrap_member(found) for key, found in own.items()}
        kept = {key: found for key, found in methods.items() if found is not None}
        return self._all("class", [name, list(value.__bases__), kept], where)

    def _module(self, value: types.ModuleType, names: Iterable[str], where: str) -> bytes:
        library = bytecode.library_of(value.__name__)
        if library is not None:
            return _mix("module", [f"{library} {value.__name__}".encode()])
        parts = [value.__name__.encode()]
        for name in names:
            if name in vars(value):
                found = vars(value)[name]
                there = f"{where}.{name}"
                is_module = isinstance(found, types.ModuleType)
                if is_module and id(found) in self._open:
                    continue
                parts.append(name.encode())
                if is_module:
                    self._open[id(found)] = len(self._open)
                    parts.append(self._module(found, names, there))
                    del self._open[id(found)]
                else:
                    parts.append(self.digest(found, there))
        return _mix("module", parts)

    def _object(self, kind: str, value: Any, contents: Any, where: str) -> bytes:
        own = self.digest(type(value), where)
        if isinstance(contents, Mapping):
            parts = [
                part
                for key in sorted(contents, key=str)
                for part in (str(key).encode(), self.digest(contents[key], f"{where}.{key}"))
            ]
            return _mix(kind, [own, *parts])
        return _mix(kind, [own, self.digest(contents, where)])

    def _all(self, kind: str, values: Iterable[Any], where: str) -> bytes:
        return _mix(kind, [self.digest(v, f"{where}[{i}]") for i, v in enumerate(values)])


def _mix(kind: str, parts: Iterable[bytes]) -> bytes:
    """Return the hash of a type's tag and its parts, whose lengths count as well."""
    found = hashlib.blake2b(digest_size=16)
    for part in (kind.encode(), *parts):
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.digest()


def _plain(value: Any) -> bytes:
    if isinstance(value, bool) or value is None or value in (..., NotImplemented):
        return repr(value).encode()
    if isinstance(value, complex):
        return struct.pack(">dd", value.real, value.imag)
    if isinstance(value, float):
        return struct.pack(">d", value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return value if isinstance(value, bytes) else str(value).encode()


def _array_bytes(value: np.ndarray) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    found.update(f"array {value.dtype.str} {value.dtype.name} {value.shape};".encode())
    if value.ndim == 0 or value.nbytes <= _CHUNK:
        found.update(value.tobytes())
    else:
        rows = max(1, _CHUNK * len(value) // value.nbytes)
        for start in range(0, len(value), rows):
            found.update(value[start : start + rows].tobytes())
    return found.digest()


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "a name without a value"


def _unwrap_member(found: Any) -> Any:
    """Return what counts of a class's member; None for what Python makes by itself."""
    if isinstance(found, staticmethod | classmethod):
        return found.__func__
    if isinstance(found, property):
        return found.fget
    if isinstance(found, functools.cached_property):
        return found.func
    if inspect.isdatadescriptor(found) or inspect.ismethoddescriptor(found):
        return None
    return found
