"""Targeted APGD: whom it aims at, in which order, where it starts, and what it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import apgd, apgd_t
from bnn_adv.attacks.base import Loss
from bnn_adv.attacks.targets import rank_targets
from bnn_adv.attacks.threat import THREATS, LInf

KEYS = jax.random.split(jax.random.key(0), 2)
X = jnp.asarray([[0.5, 0.5], [0.5, 0.5]])
THREAT = LInf(0.2)
# Rows are classes: the first is the label, the second the likeliest other one, but it leads
# nowhere; the third and the fourth win as x_0 or x_1 grow.
WEIGHTS = jnp.asarray([[0.0, 0.0], [-0.01, -0.01], [1.0, 0.0], [0.0, 1.0]])
BIAS = jnp.asarray([0.0, -0.1, -0.69, -0.68])


def linear(x, target=None):
    """The margin of a linear model with four classes whose label is class 0."""

    def margins(z):
        scores = z @ WEIGHTS.T + BIAS
        others = scores[:, 1:].max(axis=1)
        aimed = others if target is None else jnp.take_along_axis(scores, target[:, None], 1)[:, 0]
        return aimed - scores[:, 0], scores

    gradient = jax.grad(lambda z: margins(z)[0].sum())(x)
    value, scores = margins(x)
    return Loss(value, gradient, jnp.argmax(scores, 1) != 0, jax.nn.log_softmax(scores))


def states(attack, loss_fn=linear, x=X, threat=THREAT):
    take = jax.jit(lambda now: attack.step(KEYS, now, loss_fn, x, threat, attack.config))
    found = [attack.init(KEYS, loss_fn, x, threat, attack.config)]
    for _ in range(attack.num_steps):
        found.append(take(found[-1]))
    return found


@pytest.fixture(scope="module")
def walked():
    return states(apgd_t.build(num_steps=6, num_targets=5))


def test_targets_are_the_likeliest_classes_but_the_label():
    log_probs = jnp.log(jnp.asarray([[0.1, 0.5, 0.15, 0.25], [0.4, 0.1, 0.3, 0.2]]))
    loss = Loss(jnp.zeros(2), jnp.zeros((2, 2)), jnp.asarray([False, False]), log_probs)
    np.testing.assert_array_equal(rank_targets(loss), [[3, 2, 0], [2, 3, 1]])
    np.testing.assert_array_equal(rank_targets(loss, 2), [[3, 2], [2, 3]])
    # Where the input fools, its likeliest class is one that the attacker wants.
    fooled = loss._replace(success=jnp.asarray([True, False]))
    np.testing.assert_array_equal(rank_targets(fooled, 2), [[1, 3], [2, 3]])
    with pytest.raises(ValueError, match=r"log_probs.*got None"):
        rank_targets(loss._replace(log_probs=None))


@pytest.mark.slow
def test_it_fools_where_the_likeliest_class_leads_nowhere(walked):
    assert not states(apgd_t.build(num_steps=6, num_targets=1))[-1].success.any()
    assert walked[-1].success.all()
    assert linear(walked[-1].x_adv).success.all()


def test_of_several_targets_the_one_with_the_larger_margin_is_kept(walked):
    """Classes 2 and 3 both win; the largest margin in the ball is that of class 3, 0.02."""
    np.testing.assert_allclose(walked[-1].x_adv[:, 1], 0.7, atol=1e-6)
    np.testing.assert_allclose(walked[-1].value, 0.02, atol=1e-6)


@pytest.mark.slow
def test_each_target_gets_the_steps_of_one_run_of_apgd(walked):
    """The second target's walk is APGD's own on the aimed loss, from a start of its own."""
    order = np.asarray(walked[0].targets)
    np.testing.assert_array_equal(order, [[1, 3, 2]] * 2)
    keys = jax.vmap(jax.random.fold_in, (0, None))(KEYS, 1)
    config = apgd.Config(6)

    def aimed(x):
        return linear(x, jnp.asarray([3, 3]))

    # The start takes a step of its own: the first target's are 1 to 7.
    alone = apgd.init(keys, aimed, X, THREAT, config)
    np.testing.assert_allclose(walked[8].walk.x, alone.x, atol=1e-6)
    assert not np.allclose(alone.x, apgd.init(KEYS, aimed, X, THREAT, config).x)
    for _ in range(6):
        alone = apgd.step(keys, alone, aimed, X, THREAT, config)
    np.testing.assert_allclose(walked[14].walk.x, alone.x, atol=1e-6)
    np.testing.assert_allclose(walked[14].walk.value, alone.value, atol=1e-6)


def test_steps_for_targets_that_do_not_exist_change_nothing(walked):
    """Five targets are asked for, four classes have three."""
    assert len(walked) == 1 + 5 * 7
    for leaf, later in zip(jax.tree.leaves(walked[21]), jax.tree.leaves(walked[-1]), strict=True):
        np.testing.assert_array_equal(leaf, later)


def test_success_is_shown_before_a_target_is_finished(walked):
    first = next(i for i, state in enumerate(walked) if state.success.all())
    assert 7 < first < 14
    for state in walked[first:]:
        assert state.success.all()
        assert linear(state.x_adv).success.all()


@pytest.mark.slow
@pytest.mark.parametrize("norm", THREATS)
def test_from_the_clean_input_the_first_step_is_exact_on_a_linear_model(norm):
    """At and near walls of the box, in every norm."""
    x = jnp.asarray([[0.6, 0.6], [0.0, 0.1]])
    threat = THREATS[norm](0.3)
    attack = apgd_t.build(num_steps=1, num_targets=3, start="clean")
    found = states(attack, x=x, threat=threat)
    for turn in range(3):
        np.testing.assert_array_equal(found[2 * turn + 1].walk.x, x)
        slope = WEIGHTS[found[0].targets[:, turn]] - WEIGHTS[0]
        best = threat.maximise_linear(slope, x)
        np.testing.assert_allclose(found[2 * turn + 2].walk.x, best, atol=1e-6)


@pytest.mark.slow
def test_where_the_clean_gradient_is_zero_the_first_step_is_random():
    def plateau(x, target=None):
        loss = linear(x, target)
        flat = (x == 0.5).all(axis=1)
        return loss._replace(gradient=jnp.where(flat[:, None], 0.0, loss.gradient))

    found = states(apgd_t.build(num_steps=6, num_targets=3, start="clean"), plateau)
    assert (np.asarray(found[2].walk.x) != 0.5).all()
    assert found[-1].success.all()


def test_programs_take_numbers_of_steps_and_targets_as_data():
    """Fast and strong aim with one program."""
    short, long = (apgd_t.build(num_steps=n, num_targets=k) for n, k in ((3, 5), (25, 9)))
    assert {"num_steps", "num_targets", "rho"} == set(short.as_data) == set(long.as_data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps.*got 0"),
        ({"num_targets": 0}, "num_targets.*got 0"),
        ({"rho": 1.5}, "rho.*got 1.5"),
        ({"start": "corner"}, "start must be.*got 'corner'"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        apgd_t.build(**options)
