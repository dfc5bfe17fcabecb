"""Balls and boxes: feasibility for all inputs, optimality against independent solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize

from bnn_adv.attacks.threat import L1, L2, THREATS, LInf, box_radius

# Few shapes: each compiles anew.
SHAPES = st.sampled_from([(1, 1), (3, 4), (2, 3, 2, 1)])
EPSILONS = st.sampled_from([0.0, 1e-6, 0.03, 0.3, 1.0, 7.0, 1e6, 1e30])


def unit_floats(shape, low=0.0, high=1.0):
    return hnp.arrays(
        np.float32, shape, elements=st.floats(low, high, width=32, allow_subnormal=False)
    )


@st.composite
def problems(draw):
    shape = draw(SHAPES)
    x = draw(unit_floats(shape))
    anything = draw(unit_floats(shape, -100.0, 100.0))
    return x, anything, draw(EPSILONS), draw(st.sampled_from(sorted(THREATS)))


def compiled(operation):
    """One program for an operation of a threat model, in place of many small ones."""
    return jax.jit(lambda threat, *arguments: getattr(threat, operation)(*arguments))


project, maximise_linear = compiled("project"), compiled("maximise_linear")


@jax.jit
def all_operations(threat, anything, clean):
    return (
        threat.project(anything, clean),
        threat.maximise_linear(anything, clean),
        threat.random_start(jax.random.key(0), clean),
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(problems())
def test_every_operation_stays_in_ball_and_box(problem):
    x, anything, epsilon, name = problem
    clean = jnp.asarray(x)
    for moved in all_operations(THREATS[name](epsilon), jnp.asarray(anything), clean):
        assert moved.dtype == clean.dtype
        assert moved.shape == clean.shape
        moved = np.asarray(moved, np.float64)
        assert moved.min() >= 0
        assert moved.max() <= 1
        difference = (moved - x).reshape(len(x), -1)
        order = {"linf": np.inf, "l2": 2, "l1": 1}[name]
        # Coordinates near one are rounded to 6e-8.
        slack = 1e-7 * np.linalg.norm(np.ones(difference.shape[1]), order)
        assert np.linalg.norm(difference, order, axis=1).max() <= epsilon * (1 + 1e-6) + slack
        if epsilon == 0:
            np.testing.assert_array_equal(moved, x)


@pytest.mark.parametrize("seed", range(8))
def test_l2_projection_is_the_nearest_point(seed):
    """Against a general constrained optimiser, with the box active."""
    rng = np.random.default_rng(seed)
    clean, target = rng.uniform(0, 1, 4), rng.uniform(-1, 2, 4)
    epsilon = 0.6
    with jax.enable_x64(True):
        found = np.asarray(
            project(L2(epsilon), jnp.asarray(target)[None], jnp.asarray(clean)[None])
        )
    best = optimize.minimize(
        lambda z: np.sum((z - target) ** 2),
        clean,
        bounds=[(0, 1)] * 4,
        constraints={"type": "ineq", "fun": lambda z: epsilon**2 - np.sum((z - clean) ** 2)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(found[0], best.x, atol=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_l1_projection_is_the_nearest_point(seed):
    """Against a quadratic program in the positive and negative parts of the step."""
    rng = np.random.default_rng(seed)
    clean, target, epsilon = rng.uniform(0, 1, 5), rng.uniform(-1, 2, 5), 0.9
    with jax.enable_x64(True):
        found = np.asarray(
            project(L1(epsilon), jnp.asarray(target)[None], jnp.asarray(clean)[None])
        )
    best = optimize.minimize(
        lambda z: np.sum((clean + z[:5] - z[5:] - target) ** 2),
        np.zeros(10),
        bounds=[*zip(np.zeros(5), 1 - clean, strict=True), *zip(np.zeros(5), clean, strict=True)],
        constraints={"type": "ineq", "fun": lambda z: epsilon - z.sum()},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(found[0], clean + best.x[:5] - best.x[5:], atol=1e-5)
    inside = clean + 0.01
    with jax.enable_x64(True):
        stays = project(L1(epsilon), jnp.asarray(inside)[None], jnp.asarray(clean)[None])
    np.testing.assert_allclose(stays[0], np.clip(inside, 0, 1), atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_l1_linear_maximum_is_that_of_the_linear_program(seed):
    rng = np.random.default_rng(seed)
    clean, gradient, epsilon = rng.uniform(0, 1, 6), rng.normal(size=6), 1.3
    with jax.enable_x64(True):
        found = np.asarray(
            maximise_linear(L1(epsilon), jnp.asarray(gradient)[None], jnp.asarray(clean)[None])
        )[0]
    best = optimize.linprog(
        np.concatenate([-gradient, gradient]),
        A_ub=np.ones((1, 12)),
        b_ub=[epsilon],
        bounds=[*zip(np.zeros(6), 1 - clean, strict=True), *zip(np.zeros(6), clean, strict=True)],
    )
    assert gradient @ (found - clean) == pytest.approx(-best.fun, abs=1e-9)


@pytest.mark.slow
def test_l1_steps_leave_out_coordinates_at_their_walls():
    gradient = jnp.asarray([[3.0, -2.0, 1.0]])
    for x, expected in (
        ([[0.5, 0.5, 0.5]], [[1.0, 0.0, 0.0]]),
        ([[1.0, 0.5, 0.5]], [[0.0, -1.0, 0.0]]),
        ([[1.0, 0.0, 0.5]], [[0.0, 0.0, 1.0]]),
        ([[1.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]]),
    ):
        np.testing.assert_array_equal(L1(1.0).ascend(gradient, jnp.asarray(x)), expected)
    many = jnp.arange(1.0, 101.0)[None]
    np.testing.assert_allclose(
        L1(1.0).ascend(many, jnp.zeros_like(many))[0], np.r_[np.zeros(95), np.full(5, 0.2)]
    )


@pytest.mark.parametrize("seed", range(8))
def test_l2_linear_maximum_is_the_maximum(seed):
    rng = np.random.default_rng(seed)
    clean, gradient = rng.uniform(0, 1, 5), rng.normal(size=5)
    epsilon = 0.7
    with jax.enable_x64(True):
        found = np.asarray(
            maximise_linear(L2(epsilon), jnp.asarray(gradient)[None], jnp.asarray(clean)[None])
        )[0]
    best = optimize.minimize(
        lambda z: -gradient @ z,
        clean,
        bounds=[(0, 1)] * 5,
        constraints={"type": "ineq", "fun": lambda z: epsilon**2 - np.sum((z - clean) ** 2)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert gradient @ found >= gradient @ best.x - 1e-6


@pytest.mark.slow
def test_l2_ball_that_holds_the_whole_box_reaches_its_corner():
    gradient = jnp.asarray([[1.0, -2.0, 0.0]])
    moved = L2(10.0).maximise_linear(gradient, jnp.full((1, 3), 0.25))
    np.testing.assert_array_equal(moved, [[1.0, 0.0, 0.25]])


@pytest.mark.slow
@pytest.mark.parametrize("threat", [LInf(0.1), L2(0.1), L1(0.1)])
def test_zero_gradient_does_not_move(threat):
    x = jnp.full((2, 3), 0.5)
    np.testing.assert_array_equal(threat.maximise_linear(jnp.zeros_like(x), x), x)
    np.testing.assert_array_equal(threat.ascend(jnp.zeros_like(x), x), jnp.zeros_like(x))


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e30])
def test_l2_direction_has_unit_norm_for_gradients_of_any_size(scale):
    direction = L2(1.0).ascend(scale * jnp.asarray([[3.0, 4.0]]), jnp.zeros((1, 2)))
    np.testing.assert_allclose(direction, [[0.6, 0.8]], rtol=1e-6)


@pytest.mark.slow
def test_random_starts_fill_the_ball():
    """Uniform in the ball: the radius to the power d is uniform, the mean is the centre."""
    clean = jnp.full((4000, 3), 0.5)
    start = L2(0.2).random_start(jax.random.key(1), clean)
    share = (np.linalg.norm(start - clean, axis=1) / 0.2) ** 3
    assert abs(share.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 4000)
    start = L1(0.2).random_start(jax.random.key(1), clean)
    share = (np.abs(start - clean).sum(axis=1) / 0.2) ** 3
    assert abs(share.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 4000)
    start = LInf(0.2).random_start(jax.random.key(1), clean)
    standard_error = 0.2 / np.sqrt(3 * 4000)
    assert np.abs((start - clean).mean(axis=0)).max() < 5 * standard_error
    assert float(jnp.abs(start - clean).max()) > 0.199


def test_no_norm_can_run_the_program_of_another():
    """Compiled programs are found by the argument's structure: equal structures share one."""
    structures = [jax.tree.structure(threat(0.3)) for threat in THREATS.values()]
    for index, structure in enumerate(structures):
        for other in structures[:index]:
            assert structure != other
    threat = L2(0.3, lower=-1.0, upper=2.0)
    assert jax.tree.unflatten(jax.tree.structure(threat), jax.tree.leaves(threat)) == threat
    assert jax.tree.structure(threat) != jax.tree.structure(L2(0.3))


def test_the_radius_that_spans_the_box():
    """No point of the box lies further, and its opposite corner just so."""
    assert box_radius(LInf(0.1), (2, 3)) == 1
    assert box_radius(L2(0.1), (2, 2)) == 2
    assert box_radius(L1(0.1, -1.0, 1.0), (5,)) == 10
