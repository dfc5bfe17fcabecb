"""Smallest differences of two probabilities, against corners; lines below them, against points."""

import functools
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_adv.certification.softmax import smallest_gap, support

CLASSES = (2, 3, 6)
CENTRES = st.sampled_from([0.0, 0.3, 3.0, 40.0, 1e4])
WIDTHS = st.sampled_from([0.0, 1e-12, 1e-6, 0.1, 2.0, 30.0, 1e4])


def gaps(differences):
    """``p_y - p_k`` of differences ``z_j - z_y``, [..., C], zero for the label."""
    # A logarithm of the sum would round at the size of the differences, 1e4.
    top = differences.max(axis=-1, keepdims=True)
    scaled = np.exp(differences - top)
    return (np.exp(-top) - scaled) / scaled.sum(axis=-1, keepdims=True)


@functools.cache
def compiled(count):
    # One program for all cases of a size.
    def both(lower, upper, at):
        return smallest_gap(lower, upper), *support(lower, upper, at)

    return jax.jit(both)


def bound(lower, upper, at):
    with jax.enable_x64(True):
        return [np.asarray(v) for v in compiled(len(lower))(lower, upper, at)]


@st.composite
def boxes(draw):
    count = draw(st.sampled_from(CLASSES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    centre = draw(CENTRES) * rng.choice([-1, 1], count) * rng.uniform(0, 1, count)
    half = draw(WIDTHS) * rng.uniform(0, 1, count) * (rng.uniform(size=count) < 0.9)
    lower, upper = centre - half, centre + half
    label = int(rng.integers(count))
    lower[label] = upper[label] = 0.0
    return rng, label, lower, upper


def points_of(rng, lower, upper):
    """Corners, all of them, points inside, and points on faces."""
    corners = np.array(list(itertools.product(*zip(lower, upper, strict=True))))
    inside = lower + (upper - lower) * rng.uniform(0, 1, (300, len(lower)))
    snap = rng.integers(0, 3, inside.shape)
    faces = np.where(snap == 0, lower, np.where(snap == 1, upper, inside))
    return corners, np.concatenate([corners, inside, faces])


@settings(deadline=None, max_examples=150)
@given(boxes())
def test_the_smallest_gap_is_that_of_a_corner_and_lines_stay_below(box):
    rng, label, lower, upper = box
    at = lower + (upper - lower) * rng.uniform(-0.2, 1.2, len(lower))
    smallest, slope, offset = bound(lower, upper, at)
    corners, points = points_of(rng, lower, upper)
    others = np.arange(len(lower)) != label
    exact = gaps(corners).min(axis=0)
    assert (smallest <= exact + 1e-15)[others].all()
    np.testing.assert_allclose(smallest[others], exact[others], atol=1e-12)
    found = gaps(points)
    assert (found >= smallest - 1e-15)[:, others].all()
    assert (slope <= 0).all()
    lines = slope * points + offset
    assert (lines <= found + 1e-15)[:, others].all()


@pytest.mark.parametrize("at", [-4.0, -1.0, 0.5, 2.0, 3.0])
def test_of_two_classes_the_line_touches_the_convex_envelope(at):
    """``g = -tanh(d / 2)``: concave left of zero, convex right of it."""
    lower, upper = np.array([0.0, -4.0]), np.array([0.0, 3.0])
    _, slope, offset = bound(lower, upper, np.array([0.0, at]))
    grid = np.linspace(-4, 3, 2001)
    values = -np.tanh(grid / 2)
    line = slope[1] * grid + offset[1]
    assert (line <= values + 1e-15).all()
    # The envelope at a point: no chord between two others is lower.
    left = grid[grid < at][:, None] if at > -4 else np.array([[-4.0]])
    right = grid[grid >= at][None, :]
    share = (at - left) / np.where(right > left, right - left, 1.0)
    chords = (1 - share) * -np.tanh(left / 2) + share * -np.tanh(right / 2)
    envelope = min(chords.min(), -np.tanh(at / 2))
    assert slope[1] * at + offset[1] == pytest.approx(envelope, abs=1e-6)


def test_the_line_is_the_function_itself_where_that_is_convex():
    lower, upper = np.array([0.0, 1.0]), np.array([0.0, 3.0])
    for at in (1.0, 1.7, 3.0):
        smallest, slope, offset = bound(lower, upper, np.array([0.0, at]))
        assert slope[1] * at + offset[1] == pytest.approx(-np.tanh(at / 2), abs=1e-12)
        assert smallest[1] == pytest.approx(-np.tanh(1.5), abs=1e-12)


def test_a_box_that_is_no_number_is_not_certified():
    for value in (np.nan, np.inf):
        smallest, _, _ = bound(*(np.array([0.0, v, 1.0]) for v in (-1.0, value, 0.0)))
        assert not (smallest > -1).all()
