"""Steps of the chain rule that are NaN count as zero, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.compute.singular import is_singular, with_finite_steps

X = jnp.array([0.0, 0.0, 0.4])
NORM = jnp.linalg.norm
SINGULAR = {
    # By name: the function, and its gradient at X where the part without one counts as zero.
    "norm": (lambda x: NORM(x[:2]) + 3 * x[0] + x[2] ** 2, [3, 0, 0.8]),
    "called": (lambda x: jax.jit(jax.jit(NORM))(x[:2]) + x[0], [1, 0, 0]),
    "masked": (lambda x: jnp.where(x > 0, jnp.log(x), 0.0).sum() + x.sum(), [1, 1, 3.5]),
    "power": (lambda x: jnp.sum(x**2) ** 0.5 + (x[0] ** 2) ** 0.25 + x[1], [0, 1, 1]),
    "quotient": (lambda x: jnp.where(x > 0, 1 / x, 0.0).sum() + x[1], [0, 1, -6.25]),
    "standard deviation": (lambda x: jnp.std(x[:2]) + x[1], [0, 1, 0]),
    # What is infinite and no NaN stays the steepest.
    "root": (lambda x: jnp.sqrt(x[0]) + x[1], [1e30, 1, 0]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGULAR)
def test_a_step_without_derivative_adds_nothing(name):
    function, want = SINGULAR[name]
    assert not np.isfinite(jax.grad(function)(X)).all()
    safe = with_finite_steps(function)
    for transform in (lambda f: f, jax.jit):
        np.testing.assert_allclose(transform(jax.grad(safe))(X), want, rtol=1e-6)
        np.testing.assert_array_equal(transform(safe)(X), function(X))
    # Elsewhere nothing changes, also under vmap with what the function closes over.
    y = jnp.array([[0.3, 0.2, 0.4], [0.5, 0.7, 0.9]])

    def gradients(wrap):
        return jax.vmap(lambda row, s: jax.grad(wrap(lambda x: s * function(x)))(row))(y, y[:, 0])

    np.testing.assert_allclose(gradients(with_finite_steps), gradients(lambda f: f), rtol=1e-5)
    assert is_singular(function, X)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jax.nn.relu(x).sum() / 3 + jnp.tanh(x).sum() + (x**2).sum(),
        lambda x: (x / jnp.sqrt(jnp.arange(1.0, 4.0))).sum() - jnp.log(2.0),
        lambda x: jax.jit(lambda v: v * jax.jit(jnp.sqrt)(jnp.ones(3)))(x).sum(),
    ],
)
def test_functions_without_such_steps_stay_as_they_are(function):
    calls = []

    def noted(x):
        calls.append(type(x))
        return function(x)

    assert not is_singular(function, X)
    np.testing.assert_array_equal(jax.grad(with_finite_steps(noted))(X), jax.grad(function)(X))
    assert len(calls) == 1


def test_loops_and_branches_stay_as_they_are():
    def branched(x):
        return jax.lax.cond(x[2] > 0, lambda v: NORM(v[:2]), lambda v: v[0], x) + x[0]

    gradient = jax.grad(with_finite_steps(branched))(X)
    assert np.isnan(gradient[:2]).all()
    assert gradient[2] == 0
