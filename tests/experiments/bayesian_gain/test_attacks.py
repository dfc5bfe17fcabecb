"""Attacks within growing radii, beside classifiers whose robust accuracy is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks.base import Settings
from bnn_adv.evaluation.cascade import RunContext
from bnn_adv.evaluation.suites import Suite, get_suite
from bnn_adv.posteriors.posterior import Posterior
from experiments.bayesian_gain import attacks
from experiments.bayesian_gain.attacks import (
    Problem,
    attack_radii,
    attack_unknown,
    find_signs,
    pick_from,
)

WEIGHTS = np.array([[1.0, -1.0], [-1.0, 1.0]])
# Labels 0, 0, 0, 1; the last is wrong. A step of epsilon moves the margin by 4 epsilon.
X = np.array([[0.7, 0.3], [0.55, 0.45], [0.9, 0.1], [0.6, 0.4]], np.float32)
Y = np.array([0, 0, 0, 1], np.int32)
CONTEXT = RunContext(jax.random.key(0), Settings(4))


def linear_apply(params, x):
    """Logits ``x w + b``."""
    return x @ params["w"] + params["b"]


def linear(*biases):
    """Return a posterior of linear classifiers of equal weights."""
    weights = jnp.asarray(np.stack([WEIGHTS] * len(biases)), jnp.float32)
    return Posterior(linear_apply, {"w": weights, "b": jnp.asarray(biases, jnp.float32)})


# One attack is enough for linear classifiers, and compiles fast.
SUITE = Suite(get_suite("fast").entries[:1], "short", worst_case=True)


def pose(posterior):
    """Return the problem of the images above."""
    return Problem(posterior, X, Y, SUITE, CONTEXT)


@pytest.mark.slow
def test_an_image_withstands_the_radii_below_its_margin_and_is_attacked_no_further(monkeypatch):
    seen, run = [], attacks.run_cascade

    def watch(entries, restarts, subject, *args, standing):
        seen.append((subject.threat.epsilon, standing.tolist()))
        return run(entries, restarts, subject, *args, standing=standing)

    monkeypatch.setattr(attacks, "run_cascade", watch)
    epsilons = (0.04, 0.1, 0.25, 0.3)
    found = attack_radii(pose(linear((0.0, 0.0))), epsilons)
    # Half the difference of the pixels: 0.2, 0.05, 0.4.
    assert found.withstood.tolist() == [2, 1, 4, -1]
    assert [standing for _, standing in seen] == [
        [True, True, True, False],
        [True, True, True, False],
        [True, False, True, False],
        [False, False, True, False],
    ]
    assert found.worst.shape == (4, 4, 2)
    distance = np.abs(found.worst - X).max(axis=-1)
    assert (distance <= np.array(epsilons)[:, None] + 1e-6).all()
    # What broke within a radius stays the worst image of every larger one.
    np.testing.assert_array_equal(found.worst[1][1], found.worst[3][1])


@pytest.mark.slow
def test_unknown_draws_predict_and_known_ones_do_not():
    # The attacker's half calls every image of class 1, the defender's of class 0.
    posterior = linear(*[(0.0, 9.0)] * 2, *[(9.0, 0.0)] * 2)
    found = attack_unknown(pose(posterior), 0.1, known=X, num_samples=1, num_predictions=3)
    wrong = np.tile(Y != 0, (3, 1))
    np.testing.assert_array_equal(found["clean"], wrong)
    np.testing.assert_array_equal(found["adversarial"], wrong)


def test_draws_are_picked_alike():
    posterior = linear((0.0, 0.0), (1.0, 0.0), (2.0, 0.0))
    picked = pick_from(posterior).sample(jax.random.key(1), 300)
    counts = np.bincount(np.asarray(picked.samples["b"])[:, 0].astype(int))
    assert counts.min() > 70
    assert picked.decision_rule == posterior.decision_rule


def test_signs_of_masking_are_looked_for_with_the_suite(monkeypatch):
    seen = {}

    def inspect(*args, **options):
        seen.update(options)
        return [attacks.masking.Check("zero_gradients", True, 0.5, 0.05, {}, "Half are zero.")]

    monkeypatch.setattr(attacks.masking, "inspect", inspect)
    standing = np.array([True, False, True, False])
    found = find_signs(pose(linear((0.0, 0.0))), 0.1, standing, 12.0)
    assert found == [{"name": "zero_gradients", "raised": True, "sentence": "Half are zero."}]
    assert seen["threat"].epsilon == pytest.approx(0.1)
    assert seen["standing"] is standing
    assert seen["settings"].min_ess == 12.0
    assert len(seen["settings"].attacks) == 1
