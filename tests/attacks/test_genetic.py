"""The genetic attack: who breeds, what children look like, and how near the search comes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import genetic
from bnn_adv.attacks.base import Loss
from bnn_adv.attacks.threat import L2, LInf

SHAPE = (4, 4, 1)
KEYS = jax.random.split(jax.random.key(0), 3)
X = jnp.asarray(np.random.default_rng(0).uniform(0.3, 0.7, (3, *SHAPE)), jnp.float32)
WEIGHTS = jnp.asarray(np.random.default_rng(1).normal(size=SHAPE), jnp.float32)
RADII = jnp.asarray([0.05, 0.1, 0.2])


def score(x):
    return (x * WEIGHTS).sum(axis=(1, 2, 3))


def linear(x):
    """The gradient is not a number: whoever looks at it is found out."""
    return Loss(score(x), jnp.full_like(x, jnp.nan), jnp.zeros(len(x), bool))


def flat(x):
    return Loss(jnp.zeros(len(x)), jnp.full_like(x, jnp.nan), jnp.zeros(len(x), bool))


def walk(loss_fn, threat, **options):
    """Return the states before each step and after the last, stacked on a new first axis."""
    attack = genetic.build(**options)

    @jax.jit
    def run():
        def body(now, _):
            return attack.step(KEYS, now, loss_fn, X, threat, attack.config), now

        first = attack.init(KEYS, loss_fn, X, threat, attack.config)
        return jax.lax.scan(body, first, length=attack.num_steps + 1)[1]

    return jax.tree.map(np.asarray, run())


# The best of 1,006 random points of the ball reaches about half of it.
@pytest.mark.slow
@pytest.mark.parametrize("threat", [LInf(RADII), L2(RADII)], ids=lambda threat: threat.norm)
def test_the_search_comes_near_the_maximum_within_ball_and_box(threat):
    """Inputs far from the walls, so that the maximum over the ball is known."""
    states = walk(linear, threat)
    assert (np.diff(states.value, axis=0) >= 0).all()
    size = jnp.abs(WEIGHTS)
    dual = size.sum() if threat.norm == "linf" else jnp.sqrt((size**2).sum())
    share = (states.value[-1] - np.asarray(score(X))) / np.asarray(RADII * dual)
    assert (share > 0.9).all(), share
    assert (share <= 1 + 1e-5).all()
    delta = (states.members - np.asarray(X)[:, None]).reshape(*states.fitness.shape, -1)
    order = np.inf if threat.norm == "linf" else 2
    reached = np.linalg.norm(delta, order, axis=-1)
    assert (reached <= np.asarray(RADII)[:, None] + 1e-6).all()
    values = (states.members * np.asarray(WEIGHTS)).sum(axis=(3, 4, 5))
    np.testing.assert_allclose(values, states.fitness, atol=1e-5)
    # The best of one generation is the first of the next.
    np.testing.assert_array_equal(states.members[1:, :, 0], states.x_adv[:-1])
    best = np.maximum(states.fitness[1:].max(axis=-1), states.value[:-1])
    np.testing.assert_array_equal(states.value[1:], best)


def breed(count, fitness, rate, reach):
    """Return the children of members that are constant, 0 to 5, [count, 5, 4]."""
    members = jnp.broadcast_to(jnp.arange(6.0)[:, None], (6, 4))
    keys = jax.random.split(jax.random.key(5), count)
    one = lambda key: genetic._breed(key, members, fitness, rate, reach)  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(one))(keys))


@pytest.mark.slow
def test_coordinates_are_inherited_by_fitness():
    """A coordinate's origin k: sum over parents a, b of p_a p_b, times the chance to be k."""
    fitness = jnp.asarray([0.0, 1.0, 3.0, 3.0, 4.0, 7.0])
    children = breed(4000, fitness, 0.0, 1.0)
    share = np.array([(children == k).mean() for k in range(6)])
    p = np.exp(np.asarray(fitness) / np.std(np.asarray(fitness)))
    p /= p.sum()
    expected = (2 * p[:, None] ** 2 * p / (p[:, None] + p)).sum(axis=1)
    assert expected.sum() == pytest.approx(1)
    # 20,000 children; the four coordinates of one have the same two parents.
    np.testing.assert_allclose(share, expected, atol=5 * 0.5 / np.sqrt(20_000))
    np.testing.assert_array_equal(breed(4000, 100 * fitness - 7, 0.0, 1.0), children)


@pytest.mark.slow
def test_mutations_have_their_rate_and_their_reach():
    change = breed(4000, jnp.zeros(6), 0.3, 0.2)
    change = change - np.round(change)
    assert np.mean(change != 0) == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / 80_000))
    assert 0.199 < np.abs(change).max() <= 0.2
    assert abs(change.mean()) < 0.001


def test_mutations_become_rarer_and_smaller_with_plateaus():
    rate, reach = genetic._mutation(jnp.asarray([0, 1, 1000]))
    np.testing.assert_allclose(rate, [0.5, 0.45, 0.1], rtol=1e-6)
    np.testing.assert_allclose(reach, [0.4, 0.36, 0.15], rtol=1e-6)


def test_a_plateau_is_a_stretch_without_a_better_elite():
    states = walk(flat, LInf(0.1), num_steps=8, patience=3)
    assert states.plateaus[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert states.stalled[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]


@pytest.mark.slow
def test_a_member_that_fools_stays_the_elite():
    """The value says left, success lies right: the first fooling member is never given up."""

    def crossed(x):
        first = x[:, 0, 0, 0]
        return Loss(-first, jnp.full_like(x, jnp.nan), first > X[:, 0, 0, 0])

    states = walk(crossed, LInf(0.1), num_steps=8)
    assert states.success[-1].all()
    assert (states.x_adv[-1] > X)[:, 0, 0, 0].all()
    assert (np.diff(states.success.astype(int), axis=0) >= 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps.*got 0"),
        ({"population": 1}, "population.*got 1"),
        ({"patience": 0}, "patience.*got 0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        genetic.build(**options)
