"""Overhear what an attack asks of its loss function, which tells how it walks."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state

from bnn_adv.attacks.base import Loss, LossFn


class Heard(NamedTuple):
    """What a step of an attack saw last.

    value: The objective, [B]; NaN where it aimed at a class, or where nothing was asked.
    success: Whether that point fools, [B].
    is_known: Whether it was seen at all, a scalar; False: somebody else has to look.
    """

    value: jax.Array
    success: jax.Array
    is_known: jax.Array


class Ear:
    """Pass calls of a loss function on, and remember the last one of the innermost trace."""

    def __init__(self, loss_fn: LossFn) -> None:
        self._loss_fn = loss_fn
        self._level = get_opaque_trace_state()
        self._last: Loss | None = None
        self._aimed = False

    def __call__(self, x: jax.Array, target: jax.Array | None = None) -> Loss:
        """Return the loss at ``x``."""
        loss = self._loss_fn(x, target)
        self._aimed |= target is not None
        # What is computed inside control flow does not exist outside of it.
        if get_opaque_trace_state() == self._level:
            unlike = jnp.full_like(loss.value, jnp.nan)
            self._last = loss if target is None else loss._replace(value=unlike)
        return loss

    def heard(self, state: Any, x: jax.Array) -> Heard:
        """Return value and success of the last call, else those of the state's own point.

        Args:
          state: The attack's state after the step.
          x: Clean inputs, [B, ...]; their values do not matter.
        """
        nothing = jnp.full(x.shape[0], jnp.nan, x.dtype)
        value, success, is_known = nothing, state.success, True
        if self._last is not None:
            value, success = self._last.value, self._last.success
        # Whatever an attack that aims ranks its points by, it is not the objective.
        elif not self._aimed and hasattr(state, "value"):
            value = state.value
        else:
            is_known = self._aimed
        return Heard(value.astype(x.dtype), success, jnp.asarray(is_known))


def nothing_heard(x: jax.Array) -> Heard:
    """Return what is known before the first step, of the types that ``Ear.heard`` returns."""
    size = x.shape[0]
    return Heard(jnp.full(size, jnp.nan, x.dtype), jnp.zeros(size, bool), jnp.asarray(False))
