"""What a protocol reports has passed the referee, which sees what attacks do wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import fgsm
from bnn_adv.attacks.threat import LInf
from bnn_adv.evaluation import run_protocol
from bnn_adv.evaluation.confirmation import confirm
from bnn_adv.evaluation.suites import Entry, Protocol
from bnn_adv.evaluation.verification import VerificationError
from bnn_adv.posteriors.posterior import Posterior
from tests.conftest import linear_apply

THREAT = LInf(0.1)
X = np.array([[0.3], [0.45], [0.55], [0.95]], np.float32)
Y = np.array([0, 0, 1, 1])


def boundary_at_half():
    """Class 1 where x > 1/2."""
    return Posterior(linear_apply, {"w": jnp.array([[[0.0, 4.0]]]), "b": jnp.array([[0.0, -2.0]])})


def attack(change=lambda x: x):
    built = fgsm.build()

    def step(keys, state, loss_fn, x, threat, config):
        found = built.step(keys, state, loss_fn, x, threat, config)
        return found._replace(x_adv=change(found.x_adv))

    return dataclasses.replace(built, step=step)


@pytest.mark.parametrize("worst_case", [True, False])
def test_a_prediction_that_is_not_finite_is_lost_and_not_claimed(worst_case):
    """The attack moves the first image to 0.4, where nothing is predicted."""

    def apply_fn(params, x):
        return jnp.where(jnp.abs(x - 0.4) < 0.01, jnp.nan, linear_apply(params, x))

    entries = (Entry("fgsm", fgsm.build(), "expected_loss"),)
    suite = Protocol("mine", "", entries, worst_case=worst_case)
    posterior = dataclasses.replace(boundary_at_half(), apply_fn=apply_fn)
    found = run_protocol(jax.random.key(0), suite, posterior, X, Y, threat=THREAT)
    assert found.accuracies["worst" if worst_case else "fgsm"] == 0.25
    images = found.adversarial["worst" if worst_case else "fgsm"]
    np.testing.assert_allclose(images[0], 0.4, rtol=1e-6)
    with pytest.raises(VerificationError, match="claimed and not misclassified: 0"):
        confirm(
            posterior,
            X,
            Y,
            images,
            threat=THREAT,
            clean_correct=np.ones(4, bool),
            misclassified=np.array([True, True, True, False]),
        )


@pytest.mark.parametrize("worst_case", [True, False])
def test_images_of_a_wrong_attack_are_not_reported(worst_case):
    def run(change=lambda x: x):
        entries = (Entry("fgsm", attack(change), "expected_loss"),)
        suite = Protocol("mine", "", entries, worst_case=worst_case)
        return run_protocol(jax.random.key(0), suite, boundary_at_half(), X, Y, threat=THREAT)

    assert run().accuracies["worst" if worst_case else "fgsm"] == 0.5
    with pytest.raises(VerificationError, match="outside the ball: 3"):
        run(lambda x: jnp.where(x > 0.7, 0.3, x))
    if not worst_case:
        with pytest.raises(VerificationError, match="outside the box: 3"):
            run(lambda x: jnp.where(x > 0.7, 1.01, x))


def test_claims_are_confirmed_and_ties_claim_nothing():
    posterior = boundary_at_half()
    moved = X + np.float32(0.1) * np.array([[1], [1], [-1], [-1]], np.float32)
    moved[2] = 0.5
    correct = np.ones(4, bool)
    found = confirm(
        posterior,
        X,
        Y,
        moved,
        threat=THREAT,
        clean_correct=correct,
        misclassified=np.array([False, True, True, False]),
    )
    np.testing.assert_array_equal(found.confirmed, [False, True, False, False])
    with pytest.raises(VerificationError, match="claimed and not misclassified: 0, 3"):
        confirm(posterior, X, Y, moved, threat=THREAT, clean_correct=correct, misclassified=correct)
