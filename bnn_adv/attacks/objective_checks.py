"""Whether the parts of an objective fit: what does not would be another objective, silently."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

_REDUCTIONS = ("mean", "log_mean_exp", "log_predictive", "output")


def check_parts(objective: Any) -> None:
    """Raise unless reduction, linearity and votes of an ``Objective`` go together.

    Raises:
      ValueError: The message names the objective, the part and what it needs.
    """
    name, reduce = f"Objective {objective.name!r}", objective.reduce
    if reduce not in _REDUCTIONS:
        raise ValueError(f"{name}: reduce must be one of {', '.join(_REDUCTIONS)}, got {reduce!r}.")
    if objective.linear_head and reduce != "mean":
        raise ValueError(f"{name}: linear_head=True needs reduce='mean', got {reduce!r}.")
    if objective.normalise and not objective.linear_head:
        raise ValueError(f"{name}: normalise=True needs linear_head=True.")


def check_head(name: str, values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return what a head gives, one number an input.

    Raises:
      ValueError: It has another shape.
    """
    if jnp.shape(values) != shape:
        raise ValueError(
            f"The head of objective {name!r} must give one number an input, shape {shape}, got "
            f"{jnp.shape(values)}."
        )
    return values


def check_statistic(name: str, values: jax.Array, count: int) -> jax.Array:
    """Return a draw's statistic, [B, K].

    Raises:
      ValueError: It has another shape; [B] would be spread to [B, B].
    """
    if values.ndim != 2 or values.shape[0] != count:
        raise ValueError(
            f"The statistic of objective {name!r} must have shape [B, K], here ({count}, K), got "
            f"{values.shape}."
        )
    return values
