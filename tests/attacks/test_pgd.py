"""PGD's own promises: which iterate is returned, and from where it starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import pgd
from bnn_adv.attacks.base import Loss
from bnn_adv.attacks.threat import LInf

X = jnp.asarray([[0.5]])
KEYS = jax.random.split(jax.random.key(0), 1)


def walk(loss_fn, threat, **options):
    attack = pgd.build(**options)
    state = attack.init(KEYS, loss_fn, X, threat, attack.config)
    states = [state]
    for _ in range(attack.num_steps):
        state = attack.step(KEYS, state, loss_fn, X, threat, attack.config)
        states.append(state)
    return states


def hill(x):
    """A loss with its maximum, and the only success, at 0.6; the sign steps overshoot it."""
    value = -((x[:, 0] - 0.6) ** 2)
    return Loss(value, -2 * (x - 0.6), jnp.abs(x[:, 0] - 0.6) < 0.011)


def test_the_best_iterate_is_kept_and_the_last_is_not():
    options = {"num_steps": 3, "step_size": 0.1, "random_start": False}
    best = walk(hill, LInf(0.3), keep="best", **options)[-1]
    last = walk(hill, LInf(0.3), keep="last", **options)[-1]
    np.testing.assert_allclose(best.x_adv, [[0.6]], atol=1e-6)
    assert bool(best.success[0])
    np.testing.assert_allclose(last.x_adv, last.x)
    assert float(best.value[0]) >= float(last.value[0])


def test_a_success_is_never_traded_for_a_larger_loss():
    def trap(x):
        return Loss(x[:, 0], jnp.ones_like(x), (x[:, 0] > 0.54) & (x[:, 0] < 0.56))

    states = walk(trap, LInf(0.3), num_steps=6, step_size=0.05, random_start=False)
    np.testing.assert_allclose(states[-1].x_adv, [[0.55]], atol=1e-6)
    assert float(states[-1].x[0, 0]) == pytest.approx(0.8)


def test_the_value_never_falls_while_nothing_succeeds():
    def wavy(x):
        angle = 20 * x[:, 0]
        return Loss(jnp.sin(angle), 20 * jnp.cos(angle)[:, None], jnp.zeros(1, bool))

    values = [float(state.value[0]) for state in walk(wavy, LInf(0.4), num_steps=15)]
    assert values == sorted(values)


def test_published_steps_are_corners_of_the_box():
    """Step 2.0 from the clean input: every iterate lies at the end of the interval."""
    states = walk(hill, LInf(0.25), num_steps=4, step_size=2.0, random_start=False, keep="last")
    visited = {round(float(state.x[0, 0]), 6) for state in states[1:]}
    assert visited == {0.25, 0.75}


def test_default_step_is_two_and_a_half_radii_over_the_steps():
    def flat(x):
        return Loss(x[:, 0], jnp.ones_like(x), jnp.zeros(1, bool))

    states = walk(flat, LInf(0.2), num_steps=10, random_start=False)
    assert float(states[1].x[0, 0]) == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps.*got 0"),
        ({"step_size": -1.0}, "step_size.*got -1"),
        ({"keep": "first"}, "best.*last.*first"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pgd.build(**options)
