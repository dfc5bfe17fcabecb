"""What a computation is, field by field, so that it is never continued as another one.

An identity maps the names of what a result follows from (key, draws, labels, ...) to a short text
that ends with the hash of ``canonical.digest``. Two computations are the same where all fields are,
and where they are not, the fields say what was changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bnn_adv.compute import bytecode
from bnn_adv.compute.canonical import digest

Identity = Mapping[str, str]
"""What a computation is, by field; ``"computation"`` names it."""

Named = str | Identity | Callable[[], Identity]
"""An identity, or a name that says it all, or what makes one where it is asked for."""


class OtherWorkError(ValueError):
    """What is stored belongs to other work than what is asked for."""


_LONGEST = 160
_PACKAGES = ("bnn_adv", "jax", "jaxlib", "numpy", "flax", "optax", "blackjax", "numpyro")
SETTINGS = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
}
"""Settings of JAX that change numbers everywhere, and what they are where nobody changes them."""


def identify(computation: str, **fields: Any) -> dict[str, str]:
    """Return the identity of a computation.

    Args:
      computation: Its name; computations that share checkpoints have different ones.
      fields: All that its result follows from, by name; see ``canonical.digest`` for what they
        may hold. Versions of packages and JAX's settings are added.

    Raises:
      TypeError: A field holds something that has no hash; the message names it.
    """
    described = {
        name: f"{summarise(value)} #{digest(value, name)}" for name, value in fields.items()
    }
    return {"computation": computation, **described, "software": describe_software()}


def resolve(named: Named) -> dict[str, str]:
    """Return an identity's fields, whatever form it is given in."""
    if isinstance(named, str):
        return {"computation": named}
    return dict(named() if callable(named) else named)


def compare(there: Identity, here: Identity) -> str:
    """Return which fields differ and how, as text; empty where none does."""
    names = list(dict.fromkeys([*here, *there]))
    return "; ".join(
        (f"{name} " if name != "computation" else "")
        + f"{there.get(name, 'nothing')!r} there, {here.get(name, 'nothing')!r} here"
        for name in names
        if there.get(name) != here.get(name)
    )


def describe_software() -> str:
    """Return versions of packages and the settings of JAX on which bits of a result depend."""
    versions = ", ".join(f"{name} {bytecode.version_of(name)}" for name in _PACKAGES)
    settings = [f"x64 {jax.config.read('jax_enable_x64')}", jax.default_backend()]
    settings += [f"{name} {value}" for name, value in changed_settings().items()]
    return f"{versions}, {bytecode.library_of('sys')}, {', '.join(settings)}"


def changed_settings() -> dict[str, str]:
    """Return JAX's settings on which all numbers depend, where they are not JAX's own."""
    found = {name: getattr(jax.config, name) for name in SETTINGS}
    return {name: str(found[name]) for name, own in SETTINGS.items() if found[name] != own}


def summarise(value: Any) -> str:
    """Return a value in a few words: numbers and text as they are, arrays by dtype and shape."""
    text = _words(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _words(value: Any) -> str:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return f"{jax.random.key_impl(value)} {np.asarray(jax.random.key_data(value)).tolist()}"
    if isinstance(value, Mesh):
        return str(dict(value.shape))
    if isinstance(value, np.ndarray | jax.Array) and value.ndim:
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, np.generic | np.ndarray):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return str(value)
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return f"({', '.join(map(_words, value))})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Of a network of networks the outermost is enough: the hash knows the others.
        plain = {
            field.name: getattr(value, field.name, None)
            for field in dataclasses.fields(value)
            if field.name not in ("parent", "description")
        }
        inner = ", ".join(f"{name}={_words(found)}" for name, found in plain.items())
        return f"{type(value).__name__}({inner})"
    return getattr(value, "__qualname__", type(value).__name__)
