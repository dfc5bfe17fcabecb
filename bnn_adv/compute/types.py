"""Shapes that recur in signatures, and what a network is to everything that streams over draws.

Axes: B or N inputs (a batch, a whole data set), C classes, S draws, and ``*D``, the axes of one
input. Within one call the same letter is the same size. The tests check signatures by jaxtyping and
beartype; outside the tests they are documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Key

Params = Any
"""A pytree of weight arrays, as Flax makes it."""

ApplyFn = Callable[[Params, jax.Array], jax.Array]
"""A pure function ``(params, x) -> logits`` of shapes ``[B, ...] -> [B, classes]``."""

RngKey = Key[jax.Array, ""]
"""One typed key."""

RngKeys = Key[jax.Array, "B"]
"""A typed key for every input."""

Images = Float[jax.Array, "B *D"]
"""Inputs of a network, or what has their shape: gradients, directions, moves."""

Numbers = Float[jax.Array, "B"]
"""A number for every input: objectives, distances, radii."""

Flags = Bool[jax.Array, "B"]
"""A truth value for every input."""

Classes = Int[jax.Array, "B"]
"""A class for every input."""

Logits = Float[jax.Array, "B C"]
"""A number for every input and class: logits, log-probabilities."""

Pictures = Float[jax.Array, "B H W channels"]
"""Inputs with two axes of pixels and one of channels."""

Scales = Float[jax.Array, "S B"]
"""A number for every draw and input."""

AnyImages = Float[jax.Array | np.ndarray, "B *D"]
"""Inputs in JAX or in NumPy."""

AnyClasses = Int[jax.Array | np.ndarray, "B"]
"""A class for every input, in JAX or in NumPy."""

AnyLogits = Float[jax.Array | np.ndarray, "B C"]
"""A number for every input and class, in JAX or in NumPy."""

HostImages = Float[np.ndarray, "N *D"]
"""Inputs in NumPy."""

HostNumbers = Float[np.ndarray, "N"]
"""A number for every input, in NumPy."""

HostFlags = Bool[np.ndarray, "N"]
"""A truth value for every input, in NumPy."""

HostClasses = Int[np.ndarray, "N"]
"""A class for every input, in NumPy."""

HostIndices = Int[np.ndarray, "N"]
"""Places of N inputs, in NumPy."""

HostLogits = Float[np.ndarray, "N C"]
"""A number for every input and class, in NumPy."""

AnyArray = TypeVar("AnyArray", jax.Array, np.ndarray)
"""Arrays of JAX or of NumPy; what comes out is of the library of what went in."""
