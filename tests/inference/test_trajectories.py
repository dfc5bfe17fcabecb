"""Trajectories of fixed length, as Pyro's: the number of steps follows the step size."""

import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_adv.inference.trajectories import count_steps


@pytest.mark.parametrize(
    ("length", "step_size", "steps"),
    [(0.02, 0.002, 10), (0.02, 0.0021, 9), (0.02, 0.001, 20), (0.02, 0.05, 1), (0.02, 1e-9, 100)],
)
def test_steps_are_the_whole_ones_that_fit(length, step_size, steps):
    """max(1, int(length / step)), and at most 100."""
    assert int(count_steps(length, jnp.float32(step_size), most=100)) == steps


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-4, 1.0), st.integers(1, 500))
def test_the_first_step_size_gives_the_number_that_the_length_was_made_of(step_size, steps):
    """Float32 rounding of the product never costs a step."""
    assert int(count_steps(step_size * steps, jnp.float32(step_size), most=1000)) == steps
