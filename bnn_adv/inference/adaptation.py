"""Stan's window adaptation, one transition at a time.

The schedule, the dual averaging and the mass-matrix estimate are BlackJAX's
(``build_schedule``, ``dual_averaging_adaptation``, ``mass_matrix_adaptation``). Its own driver
runs the whole warm-up in one call; a host loop over parts of it can show progress and be
interrupted. Reference: the Stan reference manual, "HMC algorithm parameters".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class AdaptationState(NamedTuple):
    """One chain's adaptation.

    step_size: Step size for the next transition.
    inverse_mass_matrix: Its diagonal, [parameters].
    final_step_size: The averaged step size to sample with once warm-up ends.
    dual_averaging: BlackJAX's state of the step size.
    mass_matrix: BlackJAX's running variances.
    """

    step_size: jax.Array
    inverse_mass_matrix: jax.Array
    final_step_size: jax.Array
    dual_averaging: Any
    mass_matrix: Any


def build_schedule(num_steps: int) -> jax.Array:
    """Return Stan's schedule: [is a slow window, is the last step of one], int32 [num_steps, 2]."""
    from blackjax.adaptation.window_adaptation import build_schedule as build

    return jnp.asarray(build(num_steps), jnp.int32)


def plan(num_steps: int, *, learns_masses: bool) -> jax.Array:
    """Return ``build_schedule``, or one without windows where the mass matrix stays."""
    if learns_masses and num_steps:
        return build_schedule(num_steps)
    return jnp.zeros((num_steps, 2), jnp.int32)


def _algorithms() -> tuple[Any, Any]:
    # Not at the top: importing BlackJAX starts JAX's devices, see ``hmc``.
    from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    return dual_averaging_adaptation, mass_matrix_adaptation


def init(
    num_params: int, initial_step_size: float, target_acceptance_rate: float
) -> AdaptationState:
    """Start from a unit mass matrix and the given step size."""
    step_size = jnp.asarray(initial_step_size, jnp.float32)
    dual_averaging_adaptation, mass_matrix_adaptation = _algorithms()
    dual_averaging = dual_averaging_adaptation(target_acceptance_rate)[0](step_size)
    mass_matrix = mass_matrix_adaptation(True)[0](num_params)
    return AdaptationState(
        step_size, mass_matrix.inverse_mass_matrix, step_size, dual_averaging, mass_matrix
    )


def update(
    state: AdaptationState,
    stage: jax.Array,
    position: Any,
    acceptance_rate: jax.Array,
    *,
    target_acceptance_rate: float,
) -> AdaptationState:
    """Learn from one transition.

    Args:
      state: The state before.
      stage: A row of ``build_schedule``: [is a slow window, is the last step of one].
      position: The chain's new position.
      acceptance_rate: Of the transition, in [0, 1].
      target_acceptance_rate: What the step size aims at.
    """
    dual_averaging_adaptation, mass_matrix_adaptation = _algorithms()
    start, learn, finish = dual_averaging_adaptation(target_acceptance_rate)
    _, accumulate, estimate = mass_matrix_adaptation(True)
    dual_averaging = learn(state.dual_averaging, acceptance_rate)
    mass_matrix = jax.lax.cond(
        stage[0] == 1, lambda m: accumulate(m, position), lambda m: m, state.mass_matrix
    )

    def end_window(carry: tuple[Any, Any, jax.Array]) -> tuple[Any, Any, jax.Array]:
        averaging, matrix, _ = carry
        matrix = estimate(matrix)
        return start(finish(averaging)), matrix, matrix.inverse_mass_matrix

    dual_averaging, mass_matrix, inverse = jax.lax.cond(
        stage[1] == 1,
        end_window,
        lambda carry: carry,
        (dual_averaging, mass_matrix, state.inverse_mass_matrix),
    )
    return AdaptationState(
        jnp.exp(dual_averaging.log_step_size),
        inverse,
        jnp.exp(dual_averaging.log_step_size_avg),
        dual_averaging,
        mass_matrix,
    )
