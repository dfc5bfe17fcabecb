"""Attacks by another model's gradients: the stand-in leads, the posterior judges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import apgd, batches, pgd, run_attack
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import LInf
from bnn_adv.attacks.transfer import Transfer, make_surrogate
from bnn_adv.evaluation.cascade import RunContext, Settings, Subject, run_entry
from bnn_adv.evaluation.suites import Entry
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from tests.conftest import linear_apply, random_posterior

KEY = jax.random.key(0)
MARGIN = OBJECTIVES["mean_logit_margin"]


def three_draws():
    """Draws of two classes over one pixel whose mean weights err long before their mean does.

    The second class leads by ``k (x - c)``: with k = 100 and c = 0.55 in one draw, 20 and 0.75 in
    two. The mean weights change their mind at x = 85 / 140 = 0.607, the mean of the probabilities
    where the two give it a quarter each, at x = 0.75 - log(3) / 20 = 0.695.
    """
    slope, edge = np.array([100.0, 20.0, 20.0]), np.array([0.55, 0.75, 0.75])
    weights = np.stack([np.zeros(3), slope], axis=-1)[:, None]
    biases = np.stack([np.zeros(3), -slope * edge], axis=-1)
    return Posterior(linear_apply, {"w": jnp.float32(weights), "b": jnp.float32(biases)})


def fooled(posterior, x):
    return np.argmax(predict_log_probs(posterior, x), axis=-1) != 0


@pytest.mark.slow
def test_an_attack_goes_on_where_only_the_stand_in_is_fooled():
    posterior = three_draws()
    stand_in = make_surrogate(KEY, posterior, "mean_weights")
    x = np.full((9, 1), 0.5, np.float32)
    # After the ten steps after which the driver looks, x is 0.62.
    short, whole = (
        pgd.build(num_steps=n, step_size=0.012, random_start=False, stop_on_success=True)
        for n in (10, 20)
    )
    subject = Subject(posterior, x, np.zeros(9, np.int32), LInf(0.25))
    early, late = (
        run_entry(
            Entry("transfer", attack, "mean_logit_margin", surrogate="mean_weights"),
            0,
            np.arange(9),
            subject,
            RunContext(KEY, Settings(batch_size=9)),
        )
        for attack in (short, whole)
    )
    np.testing.assert_allclose(early, 0.62, atol=1e-6)
    assert fooled(stand_in, early).all()
    assert not fooled(posterior, early).any()
    assert fooled(posterior, late).all()
    np.testing.assert_allclose(late, 0.74, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("attack", [pgd.build(num_steps=12), apgd.build(num_steps=12)])
def test_the_best_iterate_is_the_posteriors(attack, batch):
    """Against a walk of the same program that keeps by the stand-in's own value."""
    posterior, x = random_posterior(7), batch[0]
    y = np.argmax(predict_log_probs(posterior, x), axis=-1).astype(np.int32)
    stand_in = posterior.take([2])
    run = lambda what: run_attack(KEY, attack, MARGIN, what, x, y, threat=LInf(0.2))  # noqa: E731
    margins = [
        np.asarray(
            batches.bind(MARGIN, posterior, y, jnp.ones((7, 9)), 7)(jnp.asarray(found)).value
        )
        for found in (run(Transfer(stand_in, posterior)), run(stand_in), x)
    ]
    assert (margins[0] > margins[2]).all()
    assert margins[0].mean() > margins[1].mean()


@pytest.mark.slow
def test_value_and_success_are_the_judges_and_the_gradient_the_guides(batch):
    judge, guide, (x, y) = random_posterior(7), random_posterior(2, seed=5), batch
    own = batches.Batch(batches.derive_keys(KEY, np.arange(9)), x, y, LInf(0.1), KEY)
    ones = jnp.ones((7, 9))
    found = batches.bind_transfer(MARGIN, Transfer(guide, judge), own, ones, 7)(x)
    of_judge, of_guide = (
        batches.bind(MARGIN, model, y, jnp.ones((n, 9)), n)(x)
        for model, n in ((judge, 7), (guide, 2))
    )
    np.testing.assert_array_equal(found.value, of_judge.value)
    np.testing.assert_array_equal(found.success, of_judge.success)
    np.testing.assert_array_equal(found.log_probs, of_judge.log_probs)
    np.testing.assert_array_equal(found.gradient, of_guide.gradient)
    assert batches.judge_of(Transfer(guide, judge)) is judge
