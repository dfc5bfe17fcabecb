"""The random baselines, noise and corners: what they draw, and what the best of many is worth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import corner, noise
from bnn_adv.attacks.base import Loss
from bnn_adv.attacks.threat import L1, L2, LInf

MODULES = pytest.mark.parametrize("module", [noise, corner])


def first_coordinate(x):
    """The gradient is not a number: whoever looks at it is found out."""
    return Loss(x[:, 0], jnp.full_like(x, jnp.nan), jnp.zeros(len(x), bool))


def total(x):
    return Loss(x.sum(axis=1), jnp.full_like(x, jnp.nan), jnp.zeros(len(x), bool))


def walk(module, loss_fn, threat, x, num_steps):
    """Return the states before each step and after the last, stacked on a new first axis."""
    attack = module.build(num_steps=num_steps)
    keys = jax.random.split(jax.random.key(0), len(x))

    @jax.jit
    def run():
        def body(now, _):
            return attack.step(keys, now, loss_fn, x, threat, attack.config), now

        first = attack.init(keys, loss_fn, x, threat, attack.config)
        return jax.lax.scan(body, first, length=num_steps + 1)[1]

    return jax.tree.map(np.asarray, run())


def test_the_best_of_uniform_points_has_the_mean_of_their_maximum():
    """In one dimension: epsilon (n - 1) / (n + 1), with variance 4 epsilon^2 n/(n+1)^2/(n+2)."""
    n, x, epsilon = 20, jnp.full((2000, 1), 0.5), 0.1
    best = walk(noise, first_coordinate, LInf(epsilon), x, n).value[-1] - 0.5
    variance = 4 * epsilon**2 * n / (n + 1) ** 2 / (n + 2)
    expected = epsilon * (n - 1) / (n + 1)
    assert best.mean() == pytest.approx(expected, abs=5 * np.sqrt(variance / len(x)))
    assert best.max() <= epsilon + 1e-6


@pytest.mark.parametrize("threat", [LInf(0.1), L2(0.1), L1(0.1)], ids=lambda t: t.norm)
def test_corners_spend_all_of_the_radius(threat):
    """Far from the walls, and after one step, where it was better than the clean input."""
    x = jnp.full((64, 4), 0.5)
    delta = walk(corner, total, threat, x, 1).x_adv[-1] - np.asarray(x)
    delta = delta[(delta != 0).any(axis=1)]
    assert len(delta) > 10
    size = np.abs(delta)
    lengths = {"linf": size.min(axis=1), "l2": np.linalg.norm(delta, axis=1), "l1": size.sum(1)}
    np.testing.assert_allclose(lengths[threat.norm], 0.1, atol=1e-6)
    if threat.norm == "l1":
        assert ((size > 1e-6).sum(axis=1) == 1).all()
        assert set(size.argmax(axis=1)) == {0, 1, 2, 3}
    if threat.norm == "linf":
        assert len(np.unique(np.sign(delta), axis=0)) > 4


def test_at_a_wall_an_l1_corner_spends_the_rest_elsewhere():
    x = jnp.full((64, 4), 0.95)
    states = walk(corner, total, L1(0.1), x, 40)
    # Two coordinates go to the wall, which is the maximum.
    np.testing.assert_allclose(states.value[-1], 3.9, atol=1e-5)
    np.testing.assert_allclose(np.sort(states.x_adv[-1])[:, 2:], 1.0, atol=1e-6)


def test_corners_find_the_maximum_of_a_linear_function_exactly():
    """One of eight: missed by 60 draws with chance 0.0003."""
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (4, 3)), jnp.float32)
    states = walk(corner, total, LInf(0.1), x, 60)
    np.testing.assert_allclose(states.x_adv[-1], jnp.minimum(x + 0.1, 1.0), atol=1e-6)


@pytest.mark.slow
@MODULES
@pytest.mark.parametrize("norm", [LInf, L2, L1])
def test_the_best_is_kept_within_ball_and_box(module, norm):
    """Every input has its radius, and a point of its own at every step."""
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (4, 3)), jnp.float32)
    radii = jnp.asarray([0.0, 0.05, 0.1, 3.0])
    threat = norm(radii)
    states = walk(module, total, threat, x, 60)
    values = states.value
    assert (np.diff(values, axis=0) >= 0).all()
    assert (values[-1, 1:] > values[0, 1:]).all()
    last = states.x_adv[-1]
    np.testing.assert_array_equal(last[0], x[0])
    assert (threat.distance(last, x) <= radii + 1e-6).all()
    assert ((last >= 0) & (last <= 1)).all()
    if module is noise:
        assert all(len(np.unique(values[:, image])) > 2 for image in (1, 2, 3))


@MODULES
def test_settings_out_of_range_are_refused(module):
    with pytest.raises(ValueError, match=r"num_steps.*got 0"):
        module.build(num_steps=0)
