"""Decision rules: predictions, objectives, referee and uncertainty follow the posterior's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks.objectives import OBJECTIVES, Objective, value_and_gradient
from bnn_adv.attacks.threat import LInf
from bnn_adv.evaluation import metrics, run_suite, success_rates
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.evaluation.uncertainty import measure
from bnn_adv.evaluation.verification import VerificationError, verify_arrays
from bnn_adv.posteriors.decision import DECISION_RULES
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from bnn_adv.posteriors.sampler import Sampler
from tests.attacks.test_objectives import all_logits, bias_apply, one_margin
from tests.conftest import linear_apply, random_posterior
from tests.evaluation.test_verification import honest

# Softmax: .953, .269, .269 for class 0, mean .497; mean logits 1 and 2/3.
SPLIT = jnp.asarray([[3.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
evaluate = jax.jit(value_and_gradient, static_argnums=0, static_argnames="sample_chunk")


def by_logits(posterior):
    return dataclasses.replace(posterior, decision_rule="mean_logits")


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_rules_can_disagree(chunk):
    posterior, x = Posterior(bias_apply, SPLIT), jnp.zeros((4, 1))
    found = np.exp(predict_log_probs(posterior, x, sample_chunk=chunk))
    np.testing.assert_allclose(found, [[0.49684, 0.50316]] * 4, atol=1e-4)
    found = predict_log_probs(by_logits(posterior), x, sample_chunk=chunk)
    np.testing.assert_allclose(found, [jax.nn.log_softmax(jnp.asarray([1, 2 / 3]))] * 4, rtol=1e-5)


def test_of_one_draw_every_rule_is_its_softmax(posterior, batch):
    one, x = posterior.take([3]), batch[0]
    expected = jax.nn.log_softmax(all_logits(one, x)[0])
    for rule in DECISION_RULES:
        found = predict_log_probs(dataclasses.replace(one, decision_rule=rule), x)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def naive_value(name, posterior, x, label):
    """What objectives of the prediction are where it is made of mean logits."""
    zbar = all_logits(posterior, x[None])[:, 0].mean(axis=0)
    lbar = jax.nn.log_softmax(zbar)
    if name == "dlr":
        ordered = jnp.sort(zbar)[::-1]
        ratio = one_margin(zbar, label) / (ordered[0] - ordered[2])
        return jnp.where(zbar[label] > ordered[2], ratio, one_margin(zbar, label))
    if name == "log_predictive_margin":
        return one_margin(lbar, label)
    return -lbar[label]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loss_of_mean", "log_predictive_margin", "dlr", "published"])
def test_objectives_of_the_prediction_follow_the_rule(name, posterior, batch):
    """As published, cross-entropy of an ensemble's mean logits: one softmax, not two."""
    x, y = batch
    found = evaluate(OBJECTIVES[name], by_logits(posterior), x, y, sample_chunk=3)
    naive = jax.vmap(
        jax.value_and_grad(lambda row, label: naive_value(name, posterior, row, label))
    )
    value, gradient = jax.jit(naive)(x, y)
    np.testing.assert_allclose(found.value, value, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.gradient, gradient, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["expected_loss", "mean_logit_margin"])
def test_success_is_that_of_the_rule_whatever_the_objective(name):
    """One pass and two: label 0 is right by mean logits, wrong by mean probabilities."""
    x, y = jnp.zeros((2, 1)), jnp.asarray([0, 1])
    posterior = Posterior(bias_apply, SPLIT)
    found = [
        evaluate(OBJECTIVES[name], each, x, y).log_probs.argmax(axis=-1)
        for each in (posterior, by_logits(posterior))
    ]
    np.testing.assert_array_equal(found, [[1, 1], [0, 0]])


def test_published_attack_on_a_deterministic_network_does_not_saturate(saturated):
    """Its loss applies one softmax to logits: of 1,000 apart it is linear where the label lost.

    The Bayesian network's second softmax has no gradient there, nor anywhere else.
    """
    x = np.full((4, 4), 0.3, np.float32) + 0.4 * np.eye(4, dtype=np.float32)
    y = (np.arange(4) + 1).astype(np.int32) % 4
    one = saturated.take([0])
    as_bayesian = evaluate(OBJECTIVES["published"], one, x, y).gradient
    as_deterministic = evaluate(OBJECTIVES["published"], by_logits(one), x, y).gradient
    assert not np.asarray(as_bayesian).any()
    w = np.asarray(one.samples["w"][0])
    expected = np.stack([w[:, top] - w[:, label] for top, label in zip(range(4), y, strict=True)])
    np.testing.assert_allclose(as_deterministic, expected, rtol=1e-5)


def test_published_metric_applies_one_softmax_to_logits():
    clean, moved = np.log([[0.9, 0.1]]), np.log([[0.2, 0.8]])
    twice = metrics.published_softmax_robustness(clean, moved)
    once = metrics.published_softmax_robustness(clean, moved, decision_rule="mean_logits")
    assert once == pytest.approx(0.3)
    e = np.exp([[0.9, 0.1], [0.2, 0.8]])
    first = e[:, 0] / e.sum(axis=1)
    assert twice == pytest.approx(1 - (first[0] - first[1]))


@pytest.mark.slow
@pytest.mark.parametrize("rule", DECISION_RULES)
def test_suites_report_what_the_rule_predicts(rule, posterior, batch):
    x, y = map(np.asarray, batch)
    own = dataclasses.replace(posterior, decision_rule=rule)
    found = run_suite(jax.random.key(0), get_suite("published"), own, x, y, threat=LInf(0.2))
    images = found.adversarial["pgd"]
    log_probs = predict_log_probs(own, jnp.asarray(images))
    assert found.accuracies["pgd"] == metrics.accuracy(log_probs, y)
    metric = metrics.published_softmax_robustness(
        predict_log_probs(own, jnp.asarray(x)), log_probs, decision_rule=rule
    )
    assert found.softmax_robustness == pytest.approx(metric, abs=1e-6)


def split_linear():
    """By mean probabilities class 1 wins at x_0 = 1, by mean logits class 0."""
    w = jnp.zeros((3, 4, 2)).at[:, 0].set(SPLIT)
    return Posterior(linear_apply, {"w": w, "b": jnp.zeros((3, 2))})


def test_the_referee_follows_the_rule_and_refuses_another():
    posterior = split_linear()
    arrays = honest(posterior) | {"broken": np.zeros(6, bool)}
    x = np.zeros((6, 2, 2), np.float32)
    x[:, 0, 0] = 1
    arrays |= {"x": x, "x_adv": x, "y": np.array([0, 1, 0, 1, 0, 1])}
    for own, right in ((posterior, 1), (by_logits(posterior), 0)):
        correct = arrays["y"] == right
        claim = arrays | {
            "clean_correct": correct,
            "broken": ~correct,
            "decision_rule": np.array(own.decision_rule),
        }
        found = verify_arrays(claim, own)
        found.check()
        np.testing.assert_array_equal(found.fooled, ~correct)
    with pytest.raises(VerificationError, match="rule mean_logits; the posterior's is mean_prob"):
        verify_arrays(claim, posterior)
    # Files without a rule are older than the choice.
    del claim["decision_rule"]
    with pytest.raises(VerificationError, match="rule mean_probabilities"):
        verify_arrays(claim, by_logits(posterior))


def test_uncertainty_is_that_of_the_prediction_and_disagreement_that_of_the_draws():
    posterior, x = Posterior(bias_apply, SPLIT), jnp.zeros((2, 1))
    plain, own = measure(posterior, x), measure(by_logits(posterior), x)
    p = float(jax.nn.sigmoid(1 / 3))
    np.testing.assert_allclose(own.entropy, -p * np.log(p) - (1 - p) * np.log(1 - p), rtol=1e-5)
    np.testing.assert_allclose(own.mutual_information, plain.mutual_information, rtol=1e-6)
    assert abs(float(plain.entropy[0]) - np.log(2)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "wrong"), [("mean_probabilities", 1.0), ("mean_logits", 0.0)])
def test_fresh_predictions_follow_the_rule(rule, wrong):
    """A third of the draws say class 0 loudly; 2,000 put a tie 3 standard errors away."""

    def draw(rng_key):
        return SPLIT[jax.random.randint(rng_key, (), 0, 3)] + jnp.asarray([-0.2, 0.0])

    sampler = Sampler(bias_apply, draw, decision_rule=rule)
    assert sampler.sample(jax.random.key(0), 2).decision_rule == rule
    rates = success_rates(
        jax.random.key(1), sampler, np.zeros((2, 1)), [0, 0], num_samples=2000, num_predictions=3
    )
    np.testing.assert_array_equal(rates, [wrong, wrong])


def test_rules_are_part_of_what_programs_are_compiled_for():
    posterior = random_posterior(2)
    assert jax.tree.structure(posterior) != jax.tree.structure(by_logits(posterior))
    for make in (Posterior, Sampler):
        with pytest.raises(ValueError, match=r"Unknown decision_rule .vote.\. Known: mean_prob"):
            make(linear_apply, lambda key: key, decision_rule="vote")


def test_an_objective_without_a_statistic_needs_a_rule_to_bring_one(posterior, batch):
    bare = Objective("bare", None, "mean", lambda reduced, aim: reduced[:, 0])
    with pytest.raises(ValueError, match="'bare' reduces by 'mean' and needs a statistic"):
        value_and_gradient(bare, posterior, *batch)
