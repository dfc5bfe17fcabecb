"""BIM and MI-FGSM: the steps that their equations say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import bim, mi_fgsm
from bnn_adv.attacks.base import Loss
from bnn_adv.attacks.threat import L2, LInf

X = jnp.asarray([[0.5, 0.5]])
KEYS = jax.random.split(jax.random.key(0), 1)


def walk(attack, loss_fn, threat):
    state = attack.init(KEYS, loss_fn, X, threat, attack.config)
    states = [state]
    for _ in range(attack.num_steps):
        state = attack.step(KEYS, state, loss_fn, X, threat, attack.config)
        states.append(state)
    return states


def slope(*gradient):
    g = jnp.asarray([gradient], jnp.float32)
    return lambda x: Loss((x * g).sum(axis=1), jnp.broadcast_to(g, x.shape), jnp.zeros(1, bool))


def test_bim_takes_a_quarter_more_than_the_radius():
    """Ten steps of an eighth of the radius: at the wall after eight."""
    states = walk(bim.build(), slope(3.0, -0.1), LInf(0.2))
    for count, state in enumerate(states):
        reach = min(count * 0.025, 0.2)
        np.testing.assert_allclose(state.x_adv, [[0.5 + reach, 0.5 - reach]], atol=1e-6)


def test_bim_returns_its_last_iterate():
    """The loss turns around at 0.6: the walk goes back and forth over it and does not stay."""

    def hill(x):
        return Loss(-jnp.abs(x[:, 0] - 0.6), -jnp.sign(x - 0.6), jnp.zeros(1, bool))

    states = walk(bim.build(num_steps=3, step_size=0.15), hill, LInf(0.3))
    np.testing.assert_allclose([s.x_adv[0, 0] for s in states], [0.5, 0.65, 0.5, 0.65], atol=1e-6)


def test_momentum_carries_the_walk_over_a_dip():
    """The slope turns at the second step: BIM turns with it, momentum goes on."""

    def bumpy(x):
        sign = jnp.where((x[:, :1] > 0.59) & (x[:, :1] < 0.61), -1.0, 1.0)
        return Loss(x[:, 0], sign * jnp.asarray([[1.0, 0.0]]), jnp.zeros(1, bool))

    plain, heavy = (
        float(walk(module.build(num_steps=6, step_size=0.05), bumpy, LInf(0.4))[-1].x_adv[0, 0])
        for module in (bim, mi_fgsm)
    )
    assert plain == pytest.approx(0.6, abs=1e-6)
    assert heavy == pytest.approx(0.8, abs=1e-6)


def test_momentum_is_the_discounted_sum_of_unit_directions():
    gradients = iter([(3.0, 1.0), (0.0, -2.0), (4.0, 4.0), (0.0, 0.0)])

    def given(x):
        g = jnp.asarray([next(gradients)], jnp.float32)
        return Loss(jnp.zeros(1), g, jnp.zeros(1, bool))

    attack = mi_fgsm.build(num_steps=3, step_size=0.01, decay=0.5)
    states = walk(attack, given, L2(1.0))
    expected = [[0.0, 0.0], [0.75, 0.25], [0.375, -0.875], [0.6875, 0.0625]]
    np.testing.assert_allclose([s.momentum[0] for s in states], expected, atol=1e-6)
    steps = np.diff([s.x_adv[0] for s in states], axis=0)
    for step, momentum in zip(steps, expected[1:], strict=True):
        np.testing.assert_allclose(
            step, 0.01 * np.array(momentum) / np.linalg.norm(momentum), atol=1e-6
        )


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (bim, {"num_steps": 0}, "num_steps.*got 0"),
        (bim, {"step_size": 0.0}, "step_size.*got 0"),
        (mi_fgsm, {"num_steps": 0}, "num_steps.*got 0"),
        (mi_fgsm, {"step_size": -1.0}, "step_size.*got -1"),
        (mi_fgsm, {"decay": -0.1}, "decay.*got -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(module, options, message):
    with pytest.raises(ValueError, match=message):
        module.build(**options)
