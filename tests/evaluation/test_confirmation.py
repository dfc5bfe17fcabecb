"""What a suite reports has passed the referee, which sees what attacks do wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import fgsm
from bnn_adv.attacks.threat import LInf
from bnn_adv.evaluation import run_suite
from bnn_adv.evaluation.cascade import Settings, is_broken
from bnn_adv.evaluation.confirmation import confirm, settle, state_claims
from bnn_adv.evaluation.suites import Entry, Suite
from bnn_adv.evaluation.verification import VerificationError, verify_arrays
from bnn_adv.posteriors.posterior import Posterior, hash_draws, logit_rounding, predict_log_probs
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


@pytest.mark.slow
@pytest.mark.parametrize("worst_case", [True, False])
def test_a_prediction_that_is_not_finite_is_lost_and_not_claimed(worst_case):
    """The attack moves the first image to 0.4, where nothing is predicted."""

    def apply_fn(params, x):
        return jnp.where(jnp.abs(x - 0.4) < 0.01, jnp.nan, linear_apply(params, x))

    entries = (Entry("fgsm", fgsm.build(), "expected_loss"),)
    suite = Suite(entries, worst_case=worst_case)
    posterior = dataclasses.replace(boundary_at_half(), apply_fn=apply_fn)
    found = run_suite(jax.random.key(0), suite, posterior, X, Y, threat=THREAT)
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


@pytest.mark.slow
@pytest.mark.parametrize("worst_case", [True, False])
def test_images_of_a_wrong_attack_are_not_reported(worst_case):
    def run(change=lambda x: x):
        entries = (Entry("fgsm", attack(change), "expected_loss"),)
        suite = Suite(entries, worst_case=worst_case)
        return run_suite(jax.random.key(0), suite, boundary_at_half(), X, Y, threat=THREAT)

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


def halved(dtype, odd=2.0**-8):
    """Margin x - 1/2 as seen in batches of an even size; in the others one unit of bfloat16 less.

    Computed in half precision as accelerators do, and returned in float32.
    """

    def apply_fn(params, x):
        logits = linear_apply(params, x).astype(dtype)
        return (logits - jnp.array([0, x.shape[0] % 2 * odd], dtype)).astype(jnp.float32)

    return Posterior(apply_fn, {"w": jnp.array([[[0.0, 1.0]]]), "b": jnp.array([[0.0, -0.5]])})


def claims_of(posterior, moved, clean=0.42):
    x_adv = np.asarray(moved, np.float32)[:, None]
    x, count = np.full_like(x_adv, clean), len(x_adv)
    everything = {"clean_correct": np.ones(count, bool), "broken": np.ones(count, bool)}
    name = hash_draws(posterior)
    y = np.zeros(count, np.int32)
    return state_claims(posterior, x, y, THREAT, x_adv, **everything, draws_hash=name)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32], ids=["bfloat16", "float32"])
def test_what_half_precision_inside_a_network_tells_holds_for_every_batch_size(dtype):
    """A margin of 0.002 is one of 0 - 0.002 elsewhere; 0.018 is above one unit of two logits."""
    is_half = dtype == jnp.bfloat16
    posterior = halved(dtype, odd=2.0**-8 if is_half else 0.0)
    assert logit_rounding(posterior, X) == (2.0**-8 if is_half else 2.0**-24)
    arrays = claims_of(posterior, [0.502, 0.518, 0.52, 0.502])
    verdict = settle(arrays, posterior, THREAT)
    want = [not is_half, True, True, not is_half]
    assert verdict.claimed.tolist() == want
    images, y = arrays["x_adv"], arrays["y"]
    log_probs = np.asarray(predict_log_probs(posterior, images))
    assert is_broken(posterior, images, log_probs, y, Settings(batch_size=4)).tolist() == want
    arrays["broken"] = verdict.claimed
    for size in (1, 2, 3, 4):
        found = verify_arrays(arrays, posterior, threat=THREAT, batch_size=size)
        found.check()
        assert found.confirmed.tolist() == want
    # Whoever claims more is refused, however close.
    arrays["broken"] = np.ones(4, bool)
    arrays["x_adv"] = arrays["x_adv"] - np.float32([0, 0.02, 0, 0])[:, None]
    for size in (1, 4):
        with pytest.raises(VerificationError, match=r"claimed and not misclassified: .*1"):
            verify_arrays(arrays, posterior, threat=THREAT, batch_size=size).check()


def test_clean_images_that_half_precision_cannot_tell_are_no_contradiction():
    posterior = halved(jnp.bfloat16)
    arrays = claims_of(posterior, [0.55, 0.56, 0.57, 0.58], clean=0.502)
    arrays["clean_correct"][:] = False
    for size in (1, 4):
        verify_arrays(arrays, posterior, threat=THREAT, batch_size=size).check()
    # A clean image that is far from the boundary is.
    far = claims_of(posterior, [0.55] * 4, clean=0.2)
    far["clean_correct"][:] = False
    with pytest.raises(VerificationError, match="clean_correct differs"):
        verify_arrays(far, posterior, batch_size=1).check()
