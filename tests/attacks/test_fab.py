"""FAB and its targeted form: the shortest way to a plane, and to an input that fools."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from bnn_adv.attacks import fab, fab_t, run_attack
from bnn_adv.attacks.base import Loss
from bnn_adv.attacks.hyperplane import step_to_plane
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import L1, L2, THREATS, LInf
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs

NORMS = pytest.mark.parametrize("norm", THREATS)
DIM, SIZE = 6, 12
# Radii that span the box: what is returned is the nearest input that fools itself.
SPANNING = {"linf": LInf(1.0), "l2": L2(DIM**0.5), "l1": L1(float(DIM))}


def linear_apply(params, x):
    return x @ params["w"] + params["b"]


def linear(num_classes):
    """A linear model and inputs, many coordinates of which lie on a wall or near one."""
    rng = np.random.default_rng(num_classes)
    w = rng.normal(size=(DIM, num_classes)).astype(np.float32)
    x = np.clip(rng.uniform(-0.2, 1.2, (4 * SIZE, DIM)), 0, 1).astype(np.float32)
    b = -(x @ w).mean(axis=0)  # every class is near
    scores = np.sort(x @ w + b, axis=1)
    # Closer to a boundary, float32 decides which class has more.
    x = x[scores[:, -1] - scores[:, -2] > 0.02][:SIZE]
    samples = {"w": jnp.asarray(w)[None], "b": jnp.asarray(b)[None]}
    return Posterior(linear_apply, samples), w, b, x, np.argmax(x @ w + b, axis=1).astype(np.int32)


def shortest(norm, normal, gap, x):
    """Least norm of v with <normal, v> = gap and x + v in the box; inf where there is none."""
    if norm == "l2":
        room = np.where(normal * gap > 0, 1 - x, x)
        way = lambda t: np.minimum(t * np.abs(normal), room)  # noqa: E731
        if np.abs(normal) @ room < abs(gap):
            return np.inf
        low, high = 0.0, 1e4
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if np.abs(normal) @ way(middle) < abs(gap) else (low, middle)
        return np.linalg.norm(way(high))
    # v = p - q with p, q >= 0: their sum is the l_1 norm; a bound on all of them is the l_inf norm.
    size = len(x)
    equal = np.concatenate([normal, -normal])[None]
    bounds = [(0, 1 - at) for at in x] + [(0, at) for at in x]
    if norm == "l1":
        found = linprog(np.ones(2 * size), A_eq=equal, b_eq=[gap], bounds=bounds)
    else:
        below = np.hstack([np.eye(2 * size), -np.ones((2 * size, 1))])
        cost = np.append(np.zeros(2 * size), 1.0)
        found = linprog(
            cost,
            A_ub=below,
            b_ub=np.zeros(2 * size),
            A_eq=np.append(equal, [[0.0]], axis=1),
            b_eq=[gap],
            bounds=[*bounds, (0, None)],
        )
    return found.fun if found.status == 0 else np.inf


def exact_distances(norm, w, b, x, y):
    """Distances to the other classes of a linear model, the likeliest first, [N, C - 1]."""
    found = []
    for row, label in zip(x.astype(float), y, strict=True):
        scores = row @ w + b
        others = [k for k in np.argsort(-scores) if k != label]
        ways = [(w[:, k] - w[:, label], scores[label] - scores[k]) for k in others]
        found.append([shortest(norm, normal, gap, row) for normal, gap in ways])
    return np.array(found)


def check_nearest(norm, attack, objective, num_classes):
    """Within 1 % of what linear programs and a bisection say."""
    posterior, w, b, x, y = linear(num_classes)
    threat = SPANNING[norm]
    found = run_attack(
        jax.random.key(0), attack, OBJECTIVES[objective], posterior, x, y, threat=threat
    )
    every = exact_distances(norm, w, b, x, y)
    exact = every.min(axis=1)
    assert np.isfinite(exact).all()
    assert (np.argmax(predict_log_probs(posterior, found), axis=1) != y).all()
    distance = np.asarray(threat.distance(jnp.asarray(found), x))
    assert (distance > exact * (1 - 1e-4) - 1e-6).all()
    assert (distance < exact * 1.01 + 1e-6).all()
    return every


@pytest.mark.slow
@NORMS
def test_fab_finds_the_nearest_input_of_a_linear_model(norm):
    check_nearest(norm, fab.build(num_steps=20), "mean_logit_margin", 10)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_fab_t_does_on_two_classes(norm):
    """Eight of its nine targets do not exist; their steps are idle."""
    check_nearest(norm, fab_t.build(num_steps=20), "mean_logit_margin", 2)


@pytest.mark.slow
def test_fab_t_does_on_ten_classes_and_with_a_loss():
    """A loss becomes a margin: aimed at a class, less aimed at the label."""
    every = check_nearest("l2", fab_t.build(num_steps=20), "expected_loss", 10)
    assert (every.argmin(axis=1) > 0).any()  # the likeliest class is not always the nearest one


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    norm=st.sampled_from(list(THREATS)),
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([1e-20, 1.0, 1e15]),
    gap=st.sampled_from([0.0, 1e-3, -0.3, 2.0, -100.0]),
)
def test_steps_to_a_plane_are_the_shortest_inside_the_box(norm, seed, scale, gap):
    rng = np.random.default_rng(seed)
    x = np.clip(rng.uniform(-0.3, 1.3, (2, 4)), 0, 1).astype(np.float32)
    normal = rng.normal(size=(2, 4)) * rng.integers(0, 2, (2, 4))
    way = np.asarray(
        STEP[norm](x, (normal * scale).astype(np.float32), np.full(2, gap * scale, np.float32))
    )
    assert (x + way >= -1e-6).all()
    assert (x + way <= 1 + 1e-6).all()
    assert (way[normal == 0] == 0).all()
    reach = np.where(normal * gap > 0, 1 - x, x)
    most = np.abs(normal * reach).sum(axis=1) * np.sign(gap)
    wanted = np.clip(gap, np.minimum(most, 0), np.maximum(most, 0))
    np.testing.assert_allclose((normal * way).sum(axis=1), wanted, atol=1e-5)
    exact = [shortest(norm, n, gap, row.astype(float)) for n, row in zip(normal, x, strict=True)]
    length = np.asarray(SPANNING[norm].distance(jnp.asarray(way), jnp.zeros_like(way)))
    for one, best in zip(length, exact, strict=True):
        if np.isfinite(best) and gap != 0:
            assert one == pytest.approx(best, rel=1e-4, abs=1e-5)


STEP = {
    norm: jax.jit(lambda x, normal, gap, threat=threat: step_to_plane(x, normal, gap, threat))
    for norm, threat in SPANNING.items()
}


def ring(x, target=None):
    """Two classes, the other one outside a circle of radius 0.3 around the middle of the box."""
    offset = x - 0.5
    value = (offset**2).sum(axis=1) - 0.09
    log_probs = jax.nn.log_softmax(jnp.stack([jnp.zeros_like(value), value], axis=1))
    own = jnp.zeros_like(value) if target is None else (target == 0).astype(value.dtype)
    return Loss((1 - own) * value, (1 - own)[:, None] * 2 * offset, value > 0, log_probs)


def walk(attack, x, threat, loss_fn=ring):
    keys = jax.random.split(jax.random.key(1), len(x))

    @jax.jit
    def run(x, threat):
        state = attack.init(keys, loss_fn, x, threat, attack.config)
        body = lambda _, now: attack.step(keys, now, loss_fn, x, threat, attack.config)  # noqa: E731
        return jax.lax.fori_loop(0, attack.num_steps, body, state)

    return run


@pytest.mark.slow
def test_a_curved_boundary_and_what_the_state_says():
    x = jnp.asarray([[0.6, 0.5], [0.5, 0.55], [0.9, 0.9]])
    run = walk(fab.build(num_steps=30), x, L2(1.0))
    state = run(x, L2(jnp.full(3, 0.22)))
    np.testing.assert_allclose(state.distance, [0.2, 0.25, 0.0], rtol=2e-3)
    np.testing.assert_allclose(state.nearest, [[0.8, 0.5], [0.5, 0.8], [0.9, 0.9]], atol=1e-2)
    assert ring(state.nearest).success.all()
    np.testing.assert_array_equal(state.success, [True, False, True])
    # Outside the ball the nearest input is cut with it; it need not fool there.
    np.testing.assert_allclose(state.x_adv[1], [0.5, 0.77], atol=1e-2)
    np.testing.assert_array_equal(state.x_adv[2], x[2])


@pytest.mark.slow
def test_the_boundary_is_the_predictions_and_not_the_zero_of_the_objective():
    """The objective is zero where the prediction still holds, and on another scale."""

    def early(x, target=None):
        loss = ring(x, target)
        own = 0.0 if target is None else jnp.where(target == 0, 0.0, 0.06)
        return loss._replace(value=50 * (loss.value + own), gradient=50 * loss.gradient)

    x, threat = jnp.asarray([[0.6, 0.5], [0.5, 0.55]]), L2(1.0)
    state = walk(fab.build(num_steps=30), x, threat, early)(x, threat)
    np.testing.assert_allclose(state.distance, [0.2, 0.25], rtol=1e-2)


@pytest.mark.slow
def test_what_cannot_be_fooled_stays_unfooled():
    """No class ever wins: the distance is infinite and the clean input the nearest one."""

    def never(x, target=None):
        loss = ring(x, target)
        return loss._replace(success=jnp.zeros_like(loss.success))

    x = jnp.asarray([[0.6, 0.5]])
    state = walk(fab.build(num_steps=5, num_bisections=2), x, L2(1.0), never)(x, L2(0.3))
    assert np.isinf(state.distance).all()
    assert not state.success.any()
    np.testing.assert_array_equal(state.nearest, x)
    np.testing.assert_array_equal(state.x_adv, x)


@pytest.mark.slow
def test_random_starts_find_a_way_where_the_clean_input_has_no_gradient():
    x = jnp.asarray([[0.5, 0.5]])  # the middle of the ring, where the margin is flat
    threat = L2(0.5)
    once = walk(fab.build(num_steps=10), x, threat)(x, threat)
    assert not once.success.any()
    twice = walk(fab.build(num_steps=10, num_starts=2), x, threat)(x, threat)
    np.testing.assert_allclose(twice.distance, [0.3], rtol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps.*got 0"),
        ({"num_starts": 0}, "num_starts.*got 0"),
        ({"num_bisections": -1}, "num_bisections.*got -1"),
        ({"alpha_max": 1.5}, "alpha_max.*got 1.5"),
        ({"eta": 0.9}, "eta.*got 0.9"),
        ({"beta": 1.0}, "beta.*got 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    for module in (fab, fab_t):
        with pytest.raises(ValueError, match=message):
            module.build(**options)


def test_no_targets_are_refused():
    with pytest.raises(ValueError, match=r"num_targets.*got 0"):
        fab_t.build(num_targets=0)
