"""What a network is to everything that streams over draws: parameters and a pure function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

Params = Any
"""A pytree of weight arrays, as Flax makes it."""

ApplyFn = Callable[[Params, jax.Array], jax.Array]
"""A pure function ``(params, x) -> logits`` of shapes ``[B, ...] -> [B, classes]``."""
