"""Minima of linear functions over ball and box, against exact ones and feasible points."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from bnn_adv.attacks.threat import THREATS
from bnn_adv.bounds import balls

NORMS = st.sampled_from(sorted(THREATS))
RADII = st.sampled_from([0.0, 1e-30, 1e-6, 0.03, 0.3, 1.0, 1.7, 7.0, 1e6, 1e30])
DIM, ROWS = 5, 4
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


@functools.cache
def compiled(name):
    # One program a norm, for every radius and input.
    def everything(x, epsilon, a):
        threat = THREATS[name](epsilon)
        ball = balls.open_ball(threat, x, epsilon)
        at = jnp.broadcast_to(x, a[:, 0].shape)
        exact = threat.maximise_linear(-a[:, 0], at)
        pure = ball._replace(epsilon=epsilon)
        if name == "linf":
            ends = jnp.maximum(ball.low, -epsilon), jnp.minimum(ball.high, epsilon)
            pure = pure._replace(low=ends[0], high=ends[1])
        return (
            balls.minimise(name, pure, a),
            balls.minimise(name, ball, a),
            balls.minimise_roughly(name, ball, a),
            balls.minimiser(name, ball, a)[:, 0],
            (a[:, 0] * (exact - x)).sum(axis=1),
            ball,
        )

    return jax.jit(everything)


def bound(name, x, epsilon, a):
    with jax.enable_x64(True):
        found = compiled(name)(x[None], np.float64(epsilon), a[:, None])
        return jax.tree.map(np.asarray, found)


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.uniform(0, 1, DIM) if draw(st.booleans()) else rng.integers(0, 2, DIM).astype(float)
    x = x.astype(np.float32).astype(np.float64)
    a = rng.normal(size=(ROWS, DIM)) * 10.0 ** rng.integers(-6, 7)
    a[0] = 0.0
    a[1, rng.integers(DIM)] = 0.0
    a[2] = rng.choice([-1.0, 1.0]) * np.abs(a[2, 0])
    return rng, draw(NORMS), x, draw(RADII), a


def feasible(rng, name, x, epsilon, count=400):
    """Random points of ball and box, many on the sphere or at corners."""
    steps = rng.normal(size=(count, DIM)) * (rng.uniform(size=(count, DIM)) < 0.7)
    steps[: count // 4] = rng.choice([-1.0, 0.0, 1.0], (count // 4, DIM))
    size = np.linalg.norm(steps, ORDERS[name], axis=1, keepdims=True)
    steps = steps / np.where(size > 0, size, 1.0) * min(epsilon, 10.0)
    steps[::3] *= rng.uniform(0, 1, (len(steps[::3]), 1))
    # Cutting with the box, which holds x, makes no coordinate's step longer.
    return np.clip(x + steps, 0, 1) - x


@settings(deadline=None, max_examples=150)
@given(problems())
def test_no_feasible_point_is_below_the_minimum_which_is_tight(problem):
    rng, name, x, epsilon, a = problem
    pure, wide, rough, at, exact, ball = bound(name, x, epsilon, a)
    scale = np.abs(a).sum(axis=1)
    assert (pure <= exact + 1e-12 * scale).all()
    slack = scale.max() * (1e-6 * min(epsilon, 1) + 1e-15)
    np.testing.assert_allclose(pure, exact, rtol=0, atol=slack)
    values = feasible(rng, name, x, epsilon) @ a.T
    for found in (pure, wide, rough):
        assert (values >= found - 1e-13 * scale).all()
    assert (wide <= pure + 1e-12 * scale).all()
    assert (rough <= wide + 1e-6 * scale * min(epsilon + 1e-6, 1)).all()
    assert (pure[0], wide[0], rough[0]) == (0, 0, 0)
    assert ((at >= x + ball.low[0]) & (at <= x + ball.high[0])).all()


@settings(deadline=None, max_examples=100)
@given(problems())
def test_whatever_the_referee_allows_is_inside(problem):
    """``2^-23 (|x|_p + 32 epsilon)`` beyond the ball, in any direction, as float32."""
    rng, name, x, epsilon, a = problem
    order = ORDERS[name]
    beyond = epsilon + 2.0**-23 * (np.linalg.norm(x, order) + 32 * epsilon)
    moved = np.clip(x + feasible(rng, name, x, beyond), 0, 1).astype(np.float32).astype(float)
    moved = moved[np.linalg.norm(moved - x, order, axis=1) <= beyond]
    assert len(moved) > 10
    wide = bound(name, x, epsilon, a)[1]
    assert ((moved - x) @ a.T >= wide - 1e-13 * np.abs(a).sum(axis=1)).all()


@pytest.mark.parametrize("name", sorted(THREATS))
def test_minima_are_those_of_a_general_solver(name):
    rng = np.random.default_rng(4)
    x, a, epsilon = rng.uniform(0, 1, DIM), rng.normal(size=(ROWS, DIM)), 0.6
    found = bound(name, x, epsilon, a)[0]
    for row, own in zip(a, found, strict=True):
        if name == "l2":
            ball = optimize.NonlinearConstraint(lambda d: (d**2).sum(), -np.inf, epsilon**2)
            best = optimize.minimize(
                lambda d, row=row: row @ d,
                np.zeros(DIM),
                jac=lambda d, row=row: row,
                bounds=optimize.Bounds(-x, 1 - x),
                constraints=ball,
                method="SLSQP",
                options={"ftol": 1e-13, "maxiter": 300},
            )
        else:
            # d = p - n with p, n >= 0.
            cost = np.concatenate([row, -row])
            most = np.minimum(np.concatenate([1 - x, x]), epsilon)
            total = {"A_ub": np.ones((1, 2 * DIM)), "b_ub": [epsilon]} if name == "l1" else {}
            best = optimize.linprog(cost, bounds=[(0, m) for m in most], **total)
        assert own == pytest.approx(best.fun, abs=1e-6)
        assert own <= best.fun + 1e-7


def test_boxes_other_than_zero_to_one_are_those_of_float32():
    with jax.enable_x64(True):
        x = jnp.full((1, 1), 0.5)
        ball = balls.open_ball(THREATS["linf"](1.0, 0.1, 0.7), x, jnp.float64(1.0))
        ends = float((x + ball.low)[0, 0]), float((x + ball.high)[0, 0])
    assert ends == pytest.approx((float(np.float32(0.1)), float(np.float32(0.7))), abs=1e-15)
