"""What is recorded of an attack's walk."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import ATTACKS, Attack, AttackSettings, apgd_t, pgd
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import LInf
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from tests.flat import run_attack, trace_attack

OBJECTIVE = OBJECTIVES["mean_logit_margin"]
W = np.float32([1.0, -2.0, 0.5, 3.0])


def binary_apply(params, x):
    score = x @ params["w"] - 1.25
    return jnp.stack([-score, score], axis=-1) / 2


POSTERIOR = Posterior(binary_apply, {"w": jnp.asarray(W[None])})
X = np.random.default_rng(0).uniform(0.3, 0.7, (6, 4)).astype(np.float32)
Y = (X @ W > 1.25).astype(np.int32)
SIDE = np.where(Y == 1, 1.0, -1.0)


def trace(attack, **options):
    options = {"threat": LInf(0.2)} | options
    return trace_attack(jax.random.key(3), attack, OBJECTIVE, POSTERIOR, X, Y, **options)


@pytest.mark.slow
def test_records_the_closed_form_on_a_linear_model():
    """Every step moves the margin by the step times the weights' l_1 norm, until the wall."""
    found = trace(pgd.build(num_steps=8, step_size=0.05, random_start=False))
    moved = np.minimum(0.05 * np.arange(9), 0.2)[:, None] * np.abs(W).sum()
    expected = moved - SIDE * (X @ W - 1.25)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    clear = np.abs(expected) > 1e-5
    np.testing.assert_array_equal(found.success[clear], (expected > 0)[clear])
    np.testing.assert_array_equal(found.fooled, found.success[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd"])
def test_walks_as_run_attack_does_whatever_the_batches(name):
    steps = {} if name == "fgsm" else {"num_steps": 8}
    attack = ATTACKS[name].build(**steps)
    radii = np.linspace(0.02, 0.2, 6).astype(np.float32)
    found = trace(attack, threat=LInf(radii), batch_size=4)
    expected = run_attack(
        jax.random.key(3),
        attack,
        OBJECTIVE,
        POSTERIOR,
        X,
        Y,
        threat=LInf(radii),
        settings=AttackSettings(batch_size=6),
    )
    np.testing.assert_allclose(found.x_adv, expected, atol=1e-6)
    assert found.values.shape == found.success.shape == (attack.num_steps + 1, 6)
    fooled = np.argmax(predict_log_probs(POSTERIOR, expected), -1) != Y
    np.testing.assert_array_equal(found.fooled, fooled)
    if name == "fgsm":  # Its step asks for nothing: what it would return is looked at.
        np.testing.assert_array_equal(found.success[-1], fooled)


class State(NamedTuple):
    x_adv: jax.Array
    success: jax.Array
    value: jax.Array


@dataclasses.dataclass(frozen=True)
class How:
    kind: str


def odd_init(keys, loss_fn, x, threat, config):
    loss = loss_fn(x)
    return State(x, loss.success, loss.value)


def odd_step(keys, state, loss_fn, x, threat, config):
    moved = state.x_adv + 0.01
    if config.kind == "target":
        loss = loss_fn(moved, jnp.zeros(len(x), jnp.int32))
        return State(moved, loss.success, loss.value)
    value, success = jax.lax.cond(
        True,
        lambda: loss_fn(moved)[0:3:2],
        lambda: (state.value, state.success),
    )
    return State(moved, success, value + 100)


def test_calls_inside_control_flow_leave_the_states_own_value():
    found = trace(Attack("odd", How("cond"), odd_init, odd_step, num_steps=2))
    expected = 100 - SIDE * ((X + 0.02) @ W - 1.25)
    np.testing.assert_allclose(found.values[-1], expected, rtol=1e-5)


def test_values_that_aim_at_a_class_are_left_out_but_success_is_not():
    found = trace(Attack("odd", How("target"), odd_init, odd_step, num_steps=2))
    assert np.isfinite(found.values[0]).all()
    assert np.isnan(found.values[1:]).all()
    np.testing.assert_array_equal(found.success[-1], found.fooled)


def test_refuses_a_norm_that_the_attack_does_not_know():
    attack = dataclasses.replace(pgd.build(), norms=("l2",))
    with pytest.raises(ValueError, match="defined for the norms l2"):
        trace(attack)


@pytest.mark.slow
@pytest.mark.parametrize("num_targets", [1, 2])
def test_what_aims_at_classes_has_no_values_to_compare(num_targets):
    """Also where it ranks its points by something else, and steps inside control flow."""
    attack = apgd_t.build(num_steps=3, num_targets=num_targets, start="clean")
    found = trace(attack)
    np.testing.assert_allclose(found.values[0], -SIDE * (X @ W - 1.25), atol=1e-5)
    assert np.isnan(found.values[1:]).all()
    np.testing.assert_array_equal(found.fooled, found.success[-1])
