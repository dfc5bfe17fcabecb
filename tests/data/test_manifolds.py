from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bnn_adv.data.manifolds import (
    MANIFOLDS,
    Description,
    embedding_frame,
    sample_manifold,
    separation,
)

RANKS = {"square": 2, "circle": 1, "s_curve": 1, "half_moons": 1, "s_surface": 2}


@pytest.mark.parametrize("name", MANIFOLDS)
@pytest.mark.parametrize("dim", [3, 50])
def test_bases_are_orthonormal_and_complete(name, dim):
    points = sample_manifold(Description(name, dim), 50)
    basis = np.concatenate([points.tangent, points.normal], axis=-1)
    assert basis.shape == (50, dim, dim)
    assert points.codimension == dim - RANKS[name]
    gram = np.swapaxes(basis, 1, 2) @ basis
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(dim), gram.shape), atol=2e-6)
    assert (points.x.dtype, points.y.dtype) == (np.float32, np.int32)
    # Less than full dimension: no ball fits.
    assert not points.interior.any()


@pytest.mark.parametrize("name", ["circle", "s_curve", "half_moons", "s_surface"])
def test_tangents_are_those_of_secants(name):
    """Secants between close points of the same piece lie in the tangent space, to first order."""
    points = sample_manifold(Description(name, 5), 4000, seed=1)
    differences = points.x[:, None] - points.x[None, :200]
    lengths = np.linalg.norm(differences, axis=-1)
    # The s-curve's curvature jumps nowhere above one, so that a secant leaves by length / 2.
    rows, columns = np.nonzero((lengths > 0) & (lengths < 0.1))
    assert len(rows) > 100
    across = np.einsum("nd,ndk->nk", differences[rows, columns], points.normal[columns])
    limit = 0.51 * lengths[rows, columns] ** 2 + 1e-5
    assert np.all(np.linalg.norm(across, axis=-1) <= limit)


@pytest.mark.parametrize("name", MANIFOLDS)
def test_embedding_is_an_isometry(name):
    low = 3 if name == "s_surface" else 2
    flat = sample_manifold(Description(name, low, frame_seed=None), 40)
    high = Description(name, 50, frame_seed=4)
    points, frame = sample_manifold(high, 40), embedding_frame(high)
    np.testing.assert_allclose(frame.T @ frame, np.eye(low), atol=1e-12)
    np.testing.assert_allclose(points.x @ frame, flat.x, atol=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(points.x[:, None] - points.x, axis=-1),
        np.linalg.norm(flat.x[:, None] - flat.x, axis=-1),
        atol=1e-5,
    )
    np.testing.assert_array_equal(points.y, flat.y)


def test_shapes_are_what_their_names_say():
    circle = sample_manifold(Description("circle"), 500)
    np.testing.assert_allclose(np.linalg.norm(circle.x, axis=1), 1, atol=1e-6)
    moons = sample_manifold(Description("half_moons"), 500)
    centre = np.where(moons.y[:, None] == 0, [-0.5, -0.25], [0.5, 0.25])
    np.testing.assert_allclose(np.linalg.norm(moons.x - centre, axis=1), 1, atol=1e-6)
    assert np.all((moons.x - centre)[:, 1] * np.where(moons.y == 0, 1, -1) >= -1e-6)
    square = sample_manifold(Description("square"), 500)
    assert np.abs(square.x).max() <= 1


def test_a_tube_is_full_and_its_balls_hold_one_class():
    shape = Description("half_moons", 3, thickness=0.2)
    tube = sample_manifold(shape, 300)
    curve = sample_manifold(dataclasses.replace(shape, thickness=0.0), 4000, seed=1)
    assert tube.codimension == 0
    distance = np.linalg.norm(tube.x[:, None] - curve.x, axis=-1)
    own = np.where(tube.y[:, None] == curve.y, distance, np.inf).min(axis=1)
    other = np.where(tube.y[:, None] != curve.y, distance, np.inf).min(axis=1)
    # The ball around a point lies in the tube of its class, and outside that of the other.
    assert np.all(own + tube.interior <= 0.2 + 1e-3)
    assert np.all(other - tube.interior >= 0.2 - 1e-6)
    assert 0 < tube.interior.min() < tube.interior.max() <= 0.2


def test_the_square_s_balls_hold_one_class():
    shape = Description("square", num_classes=3, gap=0.04)
    points, others = sample_manifold(shape, 200), sample_manifold(shape, 4000, seed=1)
    distance = np.linalg.norm(points.x[:, None] - others.x, axis=-1)
    other = np.where(points.y[:, None] != others.y, distance, np.inf).min(axis=1)
    assert np.all(other > points.interior)
    assert np.all(np.abs(points.x).max(axis=1) + points.interior <= 1 + 1e-6)
    assert set(points.y) == {0, 1, 2}
    assert other.min() > separation(shape) - 1e-6


@pytest.mark.parametrize(("name", "count"), [("circle", 4), ("s_curve", 3), ("half_moons", 4)])
def test_classes_keep_their_distance(name, count):
    shape = Description(name, num_classes=count, gap=0.02)
    points = sample_manifold(shape, 1000)
    assert set(points.y) == set(range(count))
    distance = np.linalg.norm(points.x[:, None] - points.x, axis=-1)
    least = distance[points.y[:, None] != points.y].min()
    assert least > separation(shape) - 0.02
    assert separation(shape) > 0


def test_one_class_has_no_gap():
    points = sample_manifold(Description("circle", num_classes=1, gap=0.2), 500)
    angles = np.sort(np.arctan2(*points.x.T))
    assert np.diff(angles).max() < 0.2
    assert separation(Description("circle", num_classes=1)) == np.inf


def test_reproducible_by_seed():
    shape = Description("s_surface", 6)
    first, again, other = (sample_manifold(shape, 20, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)
    # Other points of the very same surface: the same three dimensions hold them all.
    both = np.concatenate([first.x, other.x])
    assert np.linalg.matrix_rank(both, tol=1e-4) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "torus"}, "name must be one of square, circle, .*, got 'torus'"),
        ({"name": "s_surface", "dim": 2}, "dim must be at least 3 for s_surface, got 2"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"gap": 0.25}, "gap must be below 0.25 for 2 classes, got 0.25"),
        ({"thickness": 0.4}, "thickness must be at most 0.25, half the distance .*, got 0.4"),
        ({"thickness": -0.1}, "thickness must be at least 0, got -0.1"),
    ],
)
def test_errors_say_what_is_allowed(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Description("half_moons"), **changes)


def test_needs_a_point():
    with pytest.raises(ValueError, match="num_points must be at least 1, got 0"):
        sample_manifold(Description("circle"), 0)
