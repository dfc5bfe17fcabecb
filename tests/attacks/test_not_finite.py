"""Gradients and predictions that are not finite: what attacks, metrics and results make of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import ATTACKS, run_attack
from bnn_adv.attacks.batches import bind
from bnn_adv.attacks.objectives import OBJECTIVES, get_objective
from bnn_adv.attacks.threat import L1, L2, LInf
from bnn_adv.compute.singular import finite_gradient
from bnn_adv.evaluation import metrics, run_suite
from bnn_adv.evaluation.suites import SUITES
from bnn_adv.evaluation.worst import worst_log_probs
from bnn_adv.posteriors.decision import NO_CLASS, predicted_class
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from tests.flat import evaluate, inspect

RNG = np.random.default_rng(0)
X = RNG.uniform(0.2, 0.8, size=(8, 6)).astype(np.float32)
X[:, :2] = 0
W = RNG.normal(size=(2, 6, 4)).astype(np.float32)


def rooted(params, x):
    """Return finite logits whose gradient is NaN where the first two values are zero."""
    return (x - 0.4) @ params["w"] - jnp.linalg.norm(x[:, :2], axis=1)[:, None] * jnp.arange(4.0)


def branched(params, x):
    """As ``rooted``, with the root in a branch, which keeps its NaN."""
    root = jax.lax.cond(
        x[0, 5] > -1, lambda z: jnp.linalg.norm(z, axis=1), lambda z: z[:, 0], x[:, :2]
    )
    return (x - 0.4) @ params["w"] - root[:, None] * jnp.arange(4.0)


def cliff(params, x):
    """Return logits that are NaN as soon as the first value has moved."""
    return jnp.where(x[:, :1] > 0.05, jnp.nan, (x - 0.4) @ params["w"])


ROOTED, CLIFF = Posterior(rooted, {"w": W}), Posterior(cliff, {"w": W})
Y = np.asarray(predict_log_probs(ROOTED, X)).argmax(1).astype(np.int32)


def attack_of(name):
    return ATTACKS[name].build() if name == "fgsm" else ATTACKS[name].build(num_steps=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_nan_component_counts_as_zero_and_no_other_changes(name):
    def linear(params, x):
        return (x - 0.4) @ params["w"]

    def of(apply_fn):
        posterior = Posterior(apply_fn, {"w": W})
        return bind(get_objective(name), posterior, jnp.asarray(Y), jnp.ones((2, 8)), 1)(X)

    # At these inputs the root is zero: without it, values and all other components are the same.
    found, plain = of(branched), of(linear)
    np.testing.assert_array_equal(found.gradient[:, :2], 0)
    if not get_objective(name).normalise:
        np.testing.assert_allclose(found.gradient[:, 2:], plain.gradient[:, 2:], rtol=1e-4)
    assert (found.gradient[:, 2:] != 0).any()
    np.testing.assert_allclose(found.value, plain.value, rtol=1e-5)
    # Outside a branch the root alone counts as zero, and what is linear there keeps its gradient.
    found = of(rooted)
    np.testing.assert_allclose(found.gradient, plain.gradient, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.value, plain.value, rtol=1e-5)


def test_infinite_components_stay_the_steepest():
    found = finite_gradient(jnp.array([jnp.nan, jnp.inf, -jnp.inf, 2.0, -1e38]))
    np.testing.assert_allclose(found, [0, 1e30, -1e30, 2, -1e30])


@pytest.mark.slow
@pytest.mark.parametrize("posterior", [ROOTED, CLIFF], ids=["gradient", "prediction"])
@pytest.mark.parametrize(
    ("name", "threat"),
    [("fgsm", L2(0.3)), ("mi_fgsm", L1(0.5)), ("fab", LInf(0.1)), ("nes", LInf(0.1))],
    ids=lambda value: getattr(value, "norm", value),
)
def test_results_are_finite_and_in_the_ball(name, threat, posterior):
    attack = attack_of(name)
    objective = get_objective("log_predictive_margin")
    found = run_attack(jax.random.key(0), attack, objective, posterior, X, Y, threat=threat)
    assert np.isfinite(found).all()
    assert (threat.distance(jnp.asarray(found), jnp.asarray(X)) <= threat.epsilon + 1e-5).all()
    assert (np.abs(found - X).reshape(8, -1).max(axis=1) > 0).any()


def test_a_prediction_that_is_not_finite_is_no_class_however_classes_are_numbered():
    log_probs = np.log(np.array([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5], [1.0, 1e-9]]))
    log_probs[1, 0] = np.nan
    log_probs[2] = np.inf
    log_probs[3, 1] = -np.inf
    for array in (log_probs, jnp.asarray(log_probs), log_probs[:, None]):
        assert np.ravel(predicted_class(array)).tolist() == [0, NO_CLASS, NO_CLASS, 0]
    assert metrics.accuracy(log_probs, np.zeros(4, np.int32)) == 0.5
    assert metrics.accuracy(log_probs[:, ::-1], np.ones(4, np.int32)) == 0.5
    # All of such a prediction has changed.
    clean = np.log(np.full((4, 2), 0.5))
    assert metrics.softmax_differences(clean, log_probs)[1] == 1.0
    assert np.isfinite(metrics.published_softmax_robustness(clean, log_probs))
    # Of two that fool, the finite one is kept.
    finite = np.log(np.array([[0.3, 0.7]] * 4))
    worst = worst_log_probs([log_probs, finite], np.zeros(4, int))
    np.testing.assert_array_equal(worst[1], finite[1])


@pytest.mark.slow
def test_attacks_prefer_finite_predictions_and_count_the_others_as_lost():
    loss_fn = bind(get_objective("dlr"), CLIFF, jnp.asarray(Y), jnp.ones((2, 8)), 1)
    there, here = loss_fn(X + 0.1), loss_fn(X)
    assert there.success.all()
    assert (there.value == -jnp.inf).all()
    assert not here.success[np.asarray(predict_log_probs(CLIFF, X)).argmax(1) == Y].any()


@pytest.mark.slow
def test_gradients_that_are_not_finite_raise_a_sign():
    options = {"threat": LInf(0.1), "objectives": ("expected_loss",), "standing": np.ones(8, bool)}
    options |= {"num_steps": 2, "num_queries": 3}
    found = inspect(jax.random.key(0), ROOTED, X, Y, **options)
    check = {check.name: check for check in found}["zero_gradients"]
    assert check.raised
    assert check.evidence["non_finite"] == 1.0
    assert "NaN or infinite in places" in check.sentence


@pytest.mark.slow
def test_an_evaluation_counts_and_names_lost_images():
    y = np.asarray(predict_log_probs(CLIFF, X)).argmax(1)
    options = {"rng_key": jax.random.key(0), "suite": "fast", "num_probe": 0, "num_curve": 0}
    shares: list[float] = []
    for order in (np.arange(4), np.arange(4)[::-1]):
        found = evaluate(
            Posterior(cliff, {"w": W[:, :, order]}),
            X,
            np.argsort(order)[y],
            threat=LInf(0.1),
            **options,
        )
        lost, broken = found.record["num_not_finite"], found.arrays["broken"].sum()
        assert lost > 0
        assert found.adversarial_accuracy == 1 - (lost + broken) / 8
        assert found.record["confirmed"]["ok"]
        assert found.to_json()
        shares.append(found.adversarial_accuracy)
    # However classes are numbered.
    assert shares[0] == shares[1]


def test_a_suite_names_the_share_of_predictions_that_are_not_finite():
    y = np.asarray(predict_log_probs(CLIFF, X)).argmax(1)
    fgsm = dataclasses.replace(SUITES["corrected"], entries=SUITES["corrected"].entries[:1])
    found = run_suite(jax.random.key(0), fgsm, CLIFF, X, y, threat=LInf(0.1))
    log_probs = predict_log_probs(CLIFF, found.adversarial["fgsm"])
    share = float(np.isnan(log_probs).any(axis=1).mean())
    assert share > 0
    assert found.not_finite == found.to_dict()["not_finite"] == {"fgsm": share}
    assert "not_finite" not in found._replace(not_finite=None).to_dict()
