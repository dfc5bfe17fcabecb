"""The grid search against closed forms: a line is at the distance that its dual norm says."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_adv.attacks.threat import THREATS
from bnn_adv.posteriors.posterior import Posterior
from experiments.half_moons.truth import Plane, classify_plane, compare, search
from tests.conftest import linear_apply
from tests.evaluation.references import linear_is_robust

TICKS = 161
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def linear(weights, biases):
    return Posterior(
        linear_apply,
        {"w": jnp.asarray(weights, jnp.float32)[None], "b": jnp.asarray(biases, jnp.float32)[None]},
    )


def plane_of(weights, biases):
    """Return the grid of a linear classifier without a network: numpy alone."""
    ticks = np.linspace(0, 1, TICKS).astype(np.float32)
    points = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1)
    return Plane(ticks, np.argmax(points @ weights + biases, axis=-1).astype(np.int32))


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(4)
    weights = np.array([[1.0, -1.0], [-2.0, 2.0]])
    biases = np.array([0.5, -0.5])
    x = rng.uniform(size=(60, 2)).astype(np.float32)
    return weights, biases, x, np.argmax(x @ weights + biases, axis=1)


def test_the_grid_is_what_the_classifier_predicts(problem):
    weights, biases, _, _ = problem
    seen = []
    plane = classify_plane(
        linear(weights, biases), 41, progress=lambda done, total: seen.append((done, total))
    )
    assert (plane.ticks[0], plane.ticks[-1]) == (0, 1)
    assert plane.cell == pytest.approx(1 / 40)
    i, j = np.indices((41, 41))
    scores = np.stack([plane.ticks[i], plane.ticks[j]], -1) @ weights + biases
    clear = np.abs(scores[..., 0] - scores[..., 1]) > 1e-5
    np.testing.assert_array_equal(plane.classes[clear], scores.argmax(-1)[clear])
    assert seen[-1] == (41**2, 41**2)


@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize("epsilon", [0.05, 0.15, 0.4])
def test_robust_iff_the_margin_exceeds_the_dual_norm(problem, norm, epsilon):
    """Closed form over ball and box; inside the box it is margin > eps ||w||_dual."""
    weights, biases, x, y = problem
    found = search(plane_of(weights, biases), x, y, y, norm=norm)
    margin = linear_is_robust(weights, biases, x, y, THREATS[norm](epsilon))
    robust = found.robust(epsilon)
    assert 0 < robust.sum() < len(x)
    # A witness is a proof: nothing that the grid calls broken is robust.
    assert not np.any(~robust & (margin > 1e-6))
    # What the grid calls robust and is not lies within the reach of a cell.
    np.testing.assert_array_equal(robust & (margin < -1e-6) & ~found.undecided(epsilon), False)
    inside = np.all((x >= epsilon) & (x <= 1 - epsilon), axis=1)
    own = x.astype(float) @ weights + biases
    gap = np.take_along_axis(own, y[:, None], 1)[:, 0] - own.min(axis=1)
    dual = np.linalg.norm(weights[:, 0] - weights[:, 1], ord=DUAL[norm])
    decided = inside & ~found.undecided(epsilon) & (np.abs(gap - epsilon * dual) > 1e-6)
    np.testing.assert_array_equal(robust[decided], (gap > epsilon * dual)[decided])


@given(st.integers(0, 10_000), st.sampled_from(list(THREATS)))
@settings(max_examples=15, deadline=None)
def test_distances_of_random_lines(seed, norm):
    """The distance to a line that crosses the box is |w . x + b| / ||w||_dual, up to a cell."""
    rng = np.random.default_rng(seed)
    direction, x = rng.normal(size=2), rng.uniform(0.35, 0.65, (8, 2))
    offset = -direction @ [0.5, 0.5]
    weights = np.stack([-direction, direction], axis=1)
    y = (x @ direction + offset > 0).astype(int)
    found = search(plane_of(weights, [-offset, offset]), x, y, y, norm=norm)
    exact = np.abs(x @ direction + offset) / np.linalg.norm(direction, ord=DUAL[norm])
    assert np.all(found.distance >= exact - 1e-6)
    assert np.all(found.distance <= exact + found.reach)
    np.testing.assert_allclose(
        THREATS[norm](0.0).distance(jnp.asarray(found.witness), jnp.asarray(x, jnp.float32)),
        found.distance,
        rtol=1e-4,
    )


def test_misclassified_inputs_and_a_plane_of_one_class():
    ticks = np.linspace(0, 1, 5).astype(np.float32)
    plane = Plane(ticks, np.zeros((5, 5), np.int32))
    x = np.array([[0.1, 0.2], [0.5, 0.5]])
    found = search(plane, x, [0, 1], [0, 0], norm="linf")
    assert found.distance.tolist() == [np.inf, 0.0]
    assert np.isnan(found.witness[0]).all()
    assert found.witness[1].tolist() == [0.5, 0.5]
    assert found.robust(1.0).tolist() == [True, False]


def test_comparison_counts_every_kind_of_disagreement():
    plane = Plane(np.linspace(0, 1, 11).astype(np.float32), np.zeros((11, 11), np.int32))
    plane.classes[:, 10] = 1
    # Distances to the wall of class 1: 0.3, 0.45, 0.8, and one that is wrong to begin with.
    x = np.array([[0.5, 0.7], [0.5, 0.55], [0.5, 0.2], [0.5, 0.5]])
    found = search(plane, x, [0, 0, 0, 1], [0, 0, 0, 0], norm="linf")
    np.testing.assert_allclose(found.distance, [0.3, 0.45, 0.8, 0.0], atol=1e-6)
    assert found.reach == pytest.approx(0.1)
    # The attack missed the first, broke the second between grid points, and the third out of reach.
    result = compare(found, [True, False, False, False], 0.4)
    assert result == (0.25, 0.5, 1, 1, 1, 1)
    assert compare(found, found.robust(0.4), 0.4)[3:] == (0, 0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: classify_plane(linear(np.eye(2), np.zeros(2)), 1), "num_ticks of at least 2"),
        (lambda p: classify_plane(linear(np.eye(2), np.zeros(2)), 3, lower=2.0), "is empty"),
        (lambda p: search(p, np.zeros((2, 3)), [0, 0], [0, 0], norm="l2"), r"\[N, 2\]"),
        (lambda p: search(p, np.full((1, 2), 1.5), [0], [0], norm="l2"), "must lie in"),
        (lambda p: search(p, np.zeros((1, 2)), [0], [0], norm="l3"), "Unknown norm 'l3'"),
    ],
)
def test_errors_say_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=message):
        call(Plane(np.linspace(0, 1, 3).astype(np.float32), np.zeros((3, 3), np.int32)))
