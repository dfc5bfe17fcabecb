"""The square attack: what it proposes, how near it comes, and that it asks for no gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import AttackSettings, pgd, run_attack, square
from bnn_adv.attacks.base import Loss
from bnn_adv.attacks.batches import bind
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import L1, L2, LInf
from bnn_adv.posteriors.posterior import predict_log_probs

SHAPE = (8, 8, 2)
KEYS = jax.random.split(jax.random.key(0), 3)
X = jnp.asarray(np.random.default_rng(0).uniform(0.3, 0.7, (3, *SHAPE)), jnp.float32)


def walk(loss_fn, threat, x, **options):
    attack = square.build(**options)
    state = jax.jit(lambda: attack.init(KEYS, loss_fn, x, threat, attack.config))()
    take = jax.jit(lambda now: attack.step(KEYS, now, loss_fn, x, threat, attack.config))
    states = [state]
    for _ in range(attack.num_steps):
        state = take(state)
        states.append(state)
    return states


def linear(weights):
    """The gradient is not a number: whoever looks at it is found out."""

    def loss_fn(x):
        value = (x * weights).sum(axis=(1, 2, 3))
        return Loss(value, jnp.full_like(x, jnp.nan), jnp.zeros(len(x), bool))

    return loss_fn


def smooth_weights():
    waves = np.sin(np.arange(8) / 2)[:, None, None] * np.cos(np.arange(8) / 3)[None, :, None]
    return jnp.asarray(waves * np.array([1.0, -0.5]), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("threat", [LInf(0.1), L2(0.5)], ids=lambda threat: threat.norm)
def test_the_value_never_falls_and_comes_near_the_maximum(threat):
    """Inputs far from the walls, so that the maximum over the ball is known."""
    weights = smooth_weights()
    values = np.array([s.value for s in walk(linear(weights), threat, X, num_steps=1500)])
    assert (np.diff(values, axis=0) >= 0).all()
    clean = np.asarray((X * weights).sum(axis=(1, 2, 3)))
    dual = jnp.abs(weights).sum() if threat.norm == "linf" else jnp.sqrt((weights**2).sum())
    share = (values[-1] - clean) / (threat.epsilon * float(dual))
    # Of a random direction it would be 0.09 under l_2, in 128 dimensions.
    assert (share > (0.9 if threat.norm == "linf" else 0.6)).all(), share
    assert (share <= 1 + 1e-5).all()


def test_stripes_are_columns_of_full_length():
    state = walk(linear(jnp.zeros(SHAPE)), LInf(0.1), X, num_steps=1)[0]
    delta = np.asarray(state.x_adv - X)
    np.testing.assert_allclose(np.abs(delta), 0.1, atol=1e-6)
    assert (np.ptp(delta, axis=1) < 1e-6).all()
    assert np.ptp(delta[:, 0], axis=1).min() > 0.1


def test_a_change_is_one_window_with_one_sign_a_channel():
    weights, threat = smooth_weights(), LInf(0.1)
    states = walk(linear(weights), threat, X, num_steps=60)
    seen = 0
    for before, after in itertools.pairwise(states):
        for old, new, clean in zip(before.x_adv, after.x_adv, X, strict=True):
            changed = np.asarray((old != new).any(axis=-1))
            if not changed.any():
                continue
            seen += 1
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            box = np.asarray(new - clean)[np.ix_(range(rows[0], rows[-1] + 1), columns)]
            for channel in range(2):
                values = box[..., channel][changed[rows[0] : rows[-1] + 1][:, columns]]
                assert np.ptp(values) < 1e-6
    assert seen > 10


def test_windows_shrink_as_the_schedule_says():
    shares = square._shares(square.Config(num_steps=10_000))
    assert shares[0] == shares[10] == pytest.approx(0.8)
    assert shares[11] == pytest.approx(0.4)
    assert shares[-1] == pytest.approx(0.8 / 2**9)
    np.testing.assert_array_equal(square._shares(square.Config(1000)), shares[::10])


@pytest.mark.slow
def test_two_bumps_are_opposite_and_of_unit_norm():
    sides = (jnp.asarray(4), jnp.asarray(5))
    for seed in range(4):
        bumps = np.asarray(
            square._two_bumps(jax.random.key(seed), jnp.asarray([1, 2]), sides, (8, 8, 1))
        )
        assert np.linalg.norm(bumps) == pytest.approx(1, abs=1e-6)
        outside = np.ones((8, 8), bool)
        outside[1:5, 2:7] = False
        assert (bumps[outside] == 0).all()
        assert bumps.max() > 0.1
        assert bumps.min() < -0.1


@pytest.mark.slow
def test_no_gradient_is_computed(posterior, batch):
    """The compiled step leaves out the backward pass, which is most of PGD's."""
    x, y = jnp.asarray(np.ones((64, 6)), jnp.float32) / 2, jnp.zeros(64, jnp.int32)
    keys = jax.random.split(jax.random.key(0), 64)
    loss_fn = bind(OBJECTIVES["expected_loss"], posterior, y, jnp.ones((7, 64)), 7)

    def flops(attack):
        state = jax.eval_shape(lambda: attack.init(keys, loss_fn, x, LInf(0.1), attack.config))
        step = jax.jit(lambda now: attack.step(keys, now, loss_fn, x, LInf(0.1), attack.config))
        text = step.lower(state).compile().as_text()
        return text.count(" dot(")

    assert flops(square.build()) < flops(pgd.build())


def test_other_norms_are_refused(posterior, batch):
    attack, objective = square.build(), OBJECTIVES["expected_loss"]
    with pytest.raises(ValueError, match="norms linf, l2, not for l1"):
        run_attack(jax.random.key(0), attack, objective, posterior, *batch, threat=L1(0.1))


@pytest.mark.slow
def test_it_stops_once_all_are_fooled(posterior, batch):
    x, _ = batch
    wrong = (np.argmax(predict_log_probs(posterior, x), axis=-1) + 1) % 4
    calls = []
    run_attack(
        jax.random.key(0),
        square.build(num_steps=300),
        OBJECTIVES["mean_logit_margin"],
        posterior,
        x,
        wrong,
        threat=LInf(1e-4),
        settings=AttackSettings(on_steps=lambda done, total: calls.append(done)),
    )
    assert calls[-2] < 300 * len(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_steps": 0}, "num_steps.*got 0"), ({"first_share": 0.0}, "first_share.*got 0")],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        square.build(**options)
