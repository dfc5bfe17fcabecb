"""Two lines around every activation, against dense grids."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from bnn_adv.bounds.relaxations import (
    ELU,
    RELAXATIONS,
    RELU,
    SOFTPLUS,
    convex,
    enclose,
    register_activation,
    s_shaped,
)

ALL = {**RELAXATIONS, "relu": RELU, "softplus": SOFTPLUS, "elu": ELU}
# NumPy's and SciPy's: what JAX computes in float64 is not trusted either.
EXACT = {
    "tanh": np.tanh,
    "logistic": special.expit,
    "erf": special.erf,
    "exp": np.exp,
    "square": np.square,
    "relu": lambda z: np.maximum(z, 0.0),
    "softplus": lambda z: np.logaddexp(z, 0.0),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0.0))),
}
COUNT = 64


@functools.cache
def compiled(name):
    relaxation = ALL[name]

    def everything(lower, upper, choice, at):
        own = relaxation.choose(lower, upper, at)
        start = relaxation.start(lower, upper)
        return (
            enclose(relaxation, lower, upper, choice),
            enclose(relaxation, lower, upper, own),
            enclose(relaxation, lower, upper, start),
            relaxation.ends(lower, upper),
            relaxation.steepest(lower, upper),
            (own, start),
        )

    return jax.jit(everything)


def relax(name, lower, upper, choice, at):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, compiled(name)(lower, upper, choice, at))


@st.composite
def intervals(draw):
    """Tiny, huge, one-sided, degenerate: each of COUNT intervals of another kind."""
    name = draw(st.sampled_from(sorted(ALL)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # exp overflows in float32 beyond 88.
    most = 2 if name == "exp" else 5
    centre = rng.normal(size=COUNT) * 10.0 ** rng.integers(-12, most, COUNT)
    half = np.abs(rng.normal(size=COUNT)) * 10.0 ** rng.integers(-14, most, COUNT)
    half *= rng.uniform(size=COUNT) < 0.9
    lower, upper = centre - half, centre + half
    ends_at_zero = rng.integers(0, 8, COUNT)
    lower = np.where(ends_at_zero == 0, np.minimum(0.0, upper), lower)
    upper = np.where(ends_at_zero == 1, np.maximum(0.0, lower), upper)
    choice = np.where(
        rng.integers(0, 2, COUNT) == 0, rng.integers(0, 2, COUNT), rng.uniform(size=COUNT)
    )
    return name, rng, lower, upper, choice


def grid_of(rng, lower, upper):
    shares = np.sort(np.concatenate([np.linspace(0, 1, 801), rng.uniform(0, 1, 200)]))
    grid = lower + (upper - lower) * shares[:, None]
    # Where functions bend, and as near to the ends as can be.
    near = np.clip(rng.normal(size=(200, len(lower))), lower, upper)
    return np.clip(np.concatenate([grid, near, [lower, upper]]), lower, upper)


@settings(deadline=None, max_examples=150)
@given(intervals())
def test_lines_enclose_the_function_whatever_the_choice(case):
    name, rng, lower, upper, choice = case
    at = lower + (upper - lower) * rng.uniform(-0.5, 1.5, COUNT)
    *lines, (smallest, largest), steepest, choices = relax(name, lower, upper, choice, at)
    grid = grid_of(rng, lower, upper)
    values = EXACT[name](grid)
    slack = 4e-16 * np.abs(values)
    assert (values >= smallest - slack).all()
    assert (values <= largest + slack).all()
    for own in choices:
        assert ((own >= 0) & (own <= 1)).all()
    for found in lines:
        below = found.lower_slope * grid + found.lower_offset
        above = found.upper_slope * grid + found.upper_offset
        assert (below <= values + slack).all(), name
        assert (above >= values - slack).all(), name
    assert (steepest >= 0).all()
    rises = np.abs(np.diff(values[:1000], axis=0))
    most = steepest * np.diff(grid[:1000], axis=0) * (1 + 1e-9)
    assert (rises <= most + 2 * slack[1:1000] + 1e-300).all()


def test_lines_of_a_tiny_interval_are_rounded_outwards():
    """Chord and tangent look alike there, and still are not the function."""
    upper = np.linspace(1e-9, 3e-8, COUNT)
    for name in ("erf", "tanh"):
        found = relax(name, np.zeros(COUNT), upper, np.zeros(COUNT), upper)[0]
        grid = upper * np.linspace(0, 1, 101)[:, None]
        assert (found.lower_slope * grid + found.lower_offset <= EXACT[name](grid)).all()
        assert (found.lower_offset < 0).all()


@pytest.mark.parametrize("name", ["relu", "square", "exp", "softplus", "elu"])
def test_lines_above_convex_functions_are_chords(name):
    rng = np.random.default_rng(1)
    lower = rng.normal(size=COUNT) * 10.0 ** rng.integers(-6, 2, COUNT)
    upper = lower + rng.uniform(0.01, 3, COUNT)
    found = relax(name, lower, upper, np.full(COUNT, 0.5), lower)[0]
    for end in (lower, upper):
        above = found.upper_slope * end + found.upper_offset
        np.testing.assert_allclose(above, EXACT[name](end), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["relu", "square", "exp", "softplus", "elu"])
def test_the_chosen_line_is_tight_at_the_point(name):
    rng = np.random.default_rng(0)
    lower, upper = -rng.uniform(0.1, 3, COUNT), rng.uniform(0.1, 3, COUNT)
    at = rng.uniform(lower, upper)
    line = relax(name, lower, upper, np.full(COUNT, 0.5), at)[1]
    np.testing.assert_allclose(
        line.lower_slope * at + line.lower_offset, EXACT[name](at), atol=1e-12
    )


def test_relu_that_does_not_cross_is_itself():
    lower, upper = np.array([0.0, 1.0, -2.0, -3.0]), np.array([2.0, 1.0, 0.0, -1.0])
    wide = [np.repeat(v, COUNT // 4) for v in (lower, upper)]
    lines = relax("relu", *wide, np.full(COUNT, 0.3), wide[0])[0]
    slope = np.repeat([1.0, 1.0, 0.0, 0.0], COUNT // 4)
    for found, expected in zip(lines, (slope, 0 * slope, slope, 0 * slope), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", sorted(ALL))
def test_float32_evaluates_them_as_well_as_is_allowed_for(name):
    rng = np.random.default_rng(0)
    points = rng.normal(size=100_000) * 10.0 ** rng.uniform(-9, 1.3, 100_000)
    points = points.astype(np.float32)
    exact = EXACT[name](points.astype(np.float64))
    found = np.asarray(jax.jit(ALL[name].fn)(points), np.float64)
    allowed = ALL[name].rounding * 2.0**-24 * (np.abs(exact) + 1e-30)
    assert (np.abs(found - exact) <= allowed).all()


def test_names_are_taken_once(monkeypatch):
    with pytest.raises(ValueError, match="'tanh' is registered already"):
        register_activation("tanh", s_shaped("tanh", jnp.tanh))
    monkeypatch.setattr("bnn_adv.bounds.relaxations.RELAXATIONS", {})
    register_activation("tanh", convex("tanh", jnp.tanh))
