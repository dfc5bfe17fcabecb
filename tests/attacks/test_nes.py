"""NES: what its estimate of the gradient is worth, and how near the walk comes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_adv.attacks import nes
from bnn_adv.attacks.base import Loss
from bnn_adv.attacks.threat import L1, L2, LInf

KEYS = jax.random.split(jax.random.key(0), 3)
X = jnp.asarray(np.random.default_rng(0).uniform(0.3, 0.7, (3, 16)), jnp.float32)
WEIGHTS = jnp.asarray(np.random.default_rng(1).normal(size=16), jnp.float32)
RADII = jnp.asarray([0.05, 0.1, 0.2])
MATRIX = np.random.default_rng(2).normal(size=(16, 16)).astype(np.float32)


def blind(value):
    """The gradient is not a number: whoever looks at it is found out."""
    return lambda x: Loss(value(x), jnp.full_like(x, jnp.nan), jnp.zeros(len(x), bool))


def score(x):
    return x @ WEIGHTS


def bowl(x):
    return x @ WEIGHTS + ((x @ MATRIX) ** 2).sum(axis=1) / 2


@jax.jit
def estimate(keys, x, sigma):
    return nes.estimate_gradient(keys, blind(bowl), x, sigma=sigma, num_directions=4000)


def test_the_estimate_on_a_quadratic_is_unbiased():
    """Opposite directions cancel the curvature: u u' g, with variance |g|^2 + g_j^2."""
    gradient = np.asarray(jax.grad(lambda x: bowl(x).sum())(X))
    error = np.asarray(estimate(KEYS, X, 0.1)) - gradient
    deviation = np.sqrt(((gradient**2).sum(axis=1, keepdims=True) + gradient**2) / 4000)
    assert np.abs(error / deviation).max() < 5
    assert np.mean((error / deviation) ** 2) == pytest.approx(1, abs=5 * np.sqrt(2 / 48))


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(sigma=st.floats(0.05, 1.0))
def test_on_a_quadratic_the_scale_does_not_matter(sigma):
    np.testing.assert_allclose(estimate(KEYS, X, sigma), estimate(KEYS, X, 0.1), atol=0.05)


def test_an_estimate_does_not_depend_on_its_batch():
    order = np.array([2, 0, 1])
    together = estimate(KEYS, X, 0.1)
    np.testing.assert_allclose(estimate(KEYS[order], X[order], 0.1), together[order], rtol=1e-6)
    assert not np.allclose(together[0], together[1], rtol=0.01)


def test_it_sees_over_a_cliff():
    """The slope of a step is zero almost everywhere; that of the blurred step is a Gaussian."""
    x, sigma = jnp.asarray([[0.3], [0.45], [0.5]]), 0.1
    cliff = blind(lambda z: jnp.where(z[:, 0] > 0.5, 1.0, 0.0))
    found = nes.estimate_gradient(KEYS, cliff, x, sigma=sigma, num_directions=4000)
    distance = (np.asarray(x)[:, 0] - 0.5) / sigma
    expected = np.exp(-(distance**2) / 2) / np.sqrt(2 * np.pi) / sigma
    np.testing.assert_allclose(found[:, 0], expected, atol=5 * 0.5 / sigma / np.sqrt(4000))


def walk(threat, **options):
    """Return the states before each step and after the last, stacked on a new first axis."""
    attack, loss_fn = nes.build(**options), blind(score)

    @jax.jit
    def run():
        def body(now, _):
            return attack.step(KEYS, now, loss_fn, X, threat, attack.config), now

        first = attack.init(KEYS, loss_fn, X, threat, attack.config)
        return jax.lax.scan(body, first, length=attack.num_steps + 1)[1]

    return jax.tree.map(np.asarray, run())


def shares(threat, value):
    """Return how much of the greatest rise is reached: inputs lie far from the walls."""
    size = jnp.abs(WEIGHTS)
    dual = {"linf": size.sum(), "l2": jnp.sqrt((size**2).sum()), "l1": size.max()}[threat.norm]
    return (value - np.asarray(score(X))) / np.asarray(RADII * dual)


@pytest.mark.parametrize("threat", [LInf(RADII), L2(RADII), L1(RADII)], ids=lambda t: t.norm)
def test_the_walk_comes_near_the_maximum_within_ball_and_box(threat):
    states = walk(threat)
    assert (np.diff(states.value, axis=0) >= 0).all()
    order = {"linf": np.inf, "l2": 2, "l1": 1}[threat.norm]
    reached = np.linalg.norm(states.x - np.asarray(X), order, axis=-1)
    assert (reached <= np.asarray(RADII) + 1e-6).all()
    share = shares(threat, states.value[-1])
    assert (share > 0.95).all(), share
    assert (share <= 1 + 1e-5).all()


def test_earlier_estimates_count():
    """Two directions a step in sixteen dimensions say little, unless they are added up."""
    threat, options = L2(RADII), {"num_directions": 2, "num_steps": 25}
    heavy, light = (shares(threat, walk(threat, decay=d, **options).value[-1]) for d in (0.9, 0.0))
    assert heavy.mean() > light.mean() + 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps.*got 0"),
        ({"step_size": 0.0}, "step_size.*got 0"),
        ({"num_directions": 0}, "num_directions.*got 0"),
        ({"sigma": 0.0}, "sigma.*got 0"),
        ({"decay": 1.0}, "decay.*got 1"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        nes.build(**options)
