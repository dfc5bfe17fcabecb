"""APGD's own promises: its schedule, when it halves its step, and what that is good for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import apgd, pgd
from bnn_adv.attacks.base import Loss
from bnn_adv.attacks.threat import L1, L2, LInf

KEYS = jax.random.split(jax.random.key(0), 1)


def walk(loss_fn, threat, x, attack):
    state = jax.jit(lambda: attack.init(KEYS, loss_fn, x, threat, attack.config))()
    states = [state]
    take = jax.jit(lambda now: attack.step(KEYS, now, loss_fn, x, threat, attack.config))
    for _ in range(attack.num_steps):
        state = take(state)
        states.append(state)
    return states


def valley(x):
    """A bowl, a hundred times steeper in one direction, whose maximum lies inside the ball."""
    offset = x - jnp.asarray([0.55, 0.45])
    scale = jnp.asarray([1.0, 100.0])
    value = -(scale * offset**2).sum(axis=1)
    return Loss(value, -2 * scale * offset, jnp.zeros(1, bool))


def test_schedule_for_a_hundred_steps():
    """Checkpoints as algorithm 1 gives them."""
    assert apgd.checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    for num_steps in (1, 2, 5, 40, 1000):
        found = apgd.checkpoints(num_steps)
        assert found == sorted(set(found))
        assert all(0 < step < num_steps for step in found)


@pytest.mark.slow
def test_first_step_is_of_twice_the_radius_and_later_ones_have_momentum():
    slope = lambda x: Loss(x[:, 0], jnp.asarray([[1.0, 0.0]]), jnp.zeros(1, bool))  # noqa: E731
    x, threat = jnp.asarray([[0.5, 0.5]]), L2(0.1)
    attack = apgd.build(num_steps=10)
    states = walk(slope, threat, x, attack)
    first = threat.project(states[0].x + 0.2 * jnp.asarray([[1.0, 0.0]]), x)
    np.testing.assert_allclose(states[1].x, first, atol=1e-6)
    aim = threat.project(states[1].x + 0.2 * jnp.asarray([[1.0, 0.0]]), x)
    moved = states[1].x + 0.75 * (aim - states[1].x) + 0.25 * (states[1].x - states[0].x)
    np.testing.assert_allclose(states[2].x, threat.project(moved, x), atol=1e-6)


@pytest.mark.slow
def test_a_rising_walk_keeps_its_step_size():
    slope = lambda x: Loss(x[:, 0], jnp.ones_like(x), jnp.zeros(1, bool))  # noqa: E731
    rising = jnp.asarray([0.0])

    def ever_better(x):
        # Every look is better than the one before: no reason to slow down.
        nonlocal rising
        rising = rising + 1
        return slope(x)._replace(value=rising)

    attack = apgd.build(num_steps=30)
    x, threat = jnp.asarray([[0.5]]), LInf(0.2)
    state = attack.init(KEYS, ever_better, x, threat, attack.config)
    for _ in range(30):
        state = attack.step(KEYS, state, ever_better, x, threat, attack.config)
    np.testing.assert_allclose(state.step_size, 0.4)


def test_a_flat_walk_halves_at_every_checkpoint_and_returns_to_its_best_point():
    flat = lambda x: Loss(jnp.zeros(1), jnp.ones_like(x), jnp.zeros(1, bool))  # noqa: E731
    attack = apgd.build(num_steps=100)
    states = walk(flat, LInf(0.2), jnp.asarray([[0.5]]), attack)
    sizes = [float(state.step_size[0]) for state in states]
    halved = [t for t in range(1, 101) if sizes[t] == sizes[t - 1] / 2]
    assert halved == apgd.checkpoints(100)
    for t in halved:
        np.testing.assert_array_equal(states[t].x, states[0].x)


def test_no_new_best_since_the_last_checkpoint_halves_too():
    """Condition 2: three quarters of the steps rise, yet the best is never reached again."""

    def falls_far_then_climbs(x):
        nonlocal looks
        looks += 1
        value = 100.0 if looks == 2 else float(looks)
        return Loss(jnp.asarray([value]), jnp.ones_like(x), jnp.zeros(1, bool))

    looks = 0
    attack = apgd.build(num_steps=100)
    x, threat = jnp.asarray([[0.5]]), LInf(0.2)
    state = attack.init(KEYS, falls_far_then_climbs, x, threat, attack.config)
    sizes = []
    for _ in range(60):
        state = attack.step(KEYS, state, falls_far_then_climbs, x, threat, attack.config)
        sizes.append(float(state.step_size[0]))
    assert sizes[39] == pytest.approx(0.4)
    assert sizes[40] == pytest.approx(0.2)  # the second checkpoint, step 41


@pytest.mark.slow
def test_it_settles_in_a_narrow_valley_where_fixed_steps_do_not():
    x, threat = jnp.asarray([[0.5, 0.5]]), L2(0.2)
    best = walk(valley, threat, x, apgd.build(num_steps=100))[-1]
    fixed = walk(valley, threat, x, pgd.build(num_steps=100, step_size=0.4))[-1]
    assert float(best.value[0]) > -1e-3
    assert float(fixed.value[0]) < 10 * float(best.value[0])
    np.testing.assert_allclose(best.x_adv, [[0.55, 0.45]], atol=0.03)


def test_what_fooled_is_returned_even_where_the_objective_rose_further():
    def trap(x):
        return Loss(x[:, 0], jnp.ones_like(x), (x[:, 0] > 0.3) & (x[:, 0] < 0.65))

    final = walk(trap, LInf(0.2), jnp.asarray([[0.5]]), apgd.build(num_steps=20))[-1]
    assert bool(final.success[0])
    assert float(final.x_adv[0, 0]) < 0.65
    assert float(final.top[0, 0]) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_steps": 0}, "num_steps.*got 0"), ({"rho": 1.5}, "rho.*got 1.5")],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        apgd.build(**options)


def sparse_slope(x):
    """A linear objective, few of whose coordinates matter."""
    gradient = jnp.broadcast_to(0.8 ** jnp.arange(x.shape[1]), x.shape)
    return Loss((x * gradient).sum(axis=1), gradient, jnp.zeros(1, bool))


@pytest.fixture(scope="module")
def sparse_walk():
    x = jnp.full((1, 60), 0.5).at[0, 1].set(0.9)
    return x, walk(sparse_slope, L1(1.0), x, apgd.build(num_steps=50))


@pytest.mark.slow
def test_l1_steps_move_the_steepest_coordinates_alike(sparse_walk):
    """A fifth of the coordinates at first, by epsilon in all, and without momentum."""
    x, states = sparse_walk
    share = jnp.where(jnp.arange(60) < 12, 1 / 12, 0.0)
    aim = L1(1.0).project(states[0].x + share, x)
    np.testing.assert_allclose(states[1].x, aim, atol=1e-6)


def test_l1_sparsity_and_steps_follow_the_support_of_the_best_point(sparse_walk):
    """Every second of 50 steps: k is the support's 1.5th part, and eta is reset or shortened."""
    x, states = sparse_walk
    support, resets, shortened = 60, 0, 0
    for t in range(2, 51, 2):
        state, before = states[t], states[t - 1]
        now = int((state.top != x).sum())
        assert int(state.num_moved[0]) == max(int(now / 1.5), 1)
        if now < 0.95 * support:
            resets += 1
            assert float(state.step_size[0]) == 1.0
            np.testing.assert_array_equal(state.x, state.top)
        else:
            shortened += 1
            expected = max(float(before.step_size[0]) / 1.5, 0.1)
            assert float(state.step_size[0]) == pytest.approx(expected)
        support = now
    assert resets > 1
    assert shortened > 1
    # Between checkpoints nothing changes.
    assert int(states[3].num_moved[0]) == int(states[2].num_moved[0])


@pytest.mark.slow
def test_l1_reaches_the_maximum_that_few_coordinates_hold(sparse_walk):
    """From 0.5, two coordinates take 0.5 and 0.1 to their walls and a third one the rest, 0.4."""
    x, states = sparse_walk
    gain = sparse_slope(L1(1.0).maximise_linear(sparse_slope(x).gradient, x)).value
    gain = gain - sparse_slope(x).value
    reached = states[-1].value - sparse_slope(x).value
    assert float(reached[0] / gain[0]) > 0.99
    fixed = walk(sparse_slope, L1(1.0), x, pgd.build(num_steps=50))[-1].value
    assert float((fixed - sparse_slope(x).value)[0]) < float(reached[0])
