"""Votes that tie: rounding fools nobody, and an image that it cannot tell goes on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import fgsm, pgd
from bnn_adv.attacks.threat import LInf
from bnn_adv.evaluation.cascade import (
    BROKEN,
    WITHSTOOD,
    RunContext,
    Settings,
    Subject,
    fill_outcomes,
    predict,
    run_cascade,
)
from bnn_adv.evaluation.suites import Entry
from bnn_adv.posteriors.decision import is_fooled
from bnn_adv.posteriors.posterior import Posterior
from tests.conftest import linear_apply

MARGIN = "mean_logit_margin"
CONTEXT = RunContext(jax.random.key(0), Settings(batch_size=8))


def two_votes():
    """Two draws over one pixel: one calls it class 0 from x = 0.2 on, the other from 0.8 on.

    Between, the mean of the probabilities ties, and argmax names class 0.
    """
    slope = 4000.0
    weights = np.array([[[slope, 0.0]], [[slope, 0.0]]])
    biases = np.array([[-0.2 * slope, 0.0], [-0.8 * slope, 0.0]])
    return Posterior(linear_apply, {"w": jnp.float32(weights), "b": jnp.float32(biases)})


def step_to(size):
    return pgd.build(num_steps=1, step_size=size, random_start=False, stop_on_success=True)


def subject(posterior):
    x = np.full((3, 1), 0.1, np.float32)
    return Subject(posterior, x, np.ones(3, np.int32), LInf(0.8))


@pytest.mark.slow
def test_a_tie_is_not_the_end_of_an_image():
    """The first attack reaches the tie, the second the far side of it."""
    posterior = two_votes()
    entries = (Entry("near", step_to(0.4), MARGIN), Entry("far", fgsm.build(), MARGIN))
    case = subject(posterior)
    clean = predict(posterior, case.x, CONTEXT.settings)
    found = run_cascade(entries, 1, case, clean, CONTEXT)
    assert found.after == {"near": 1.0, "far": 0.0}
    assert set(found.attack_of) == {"far"}
    np.testing.assert_allclose(found.worst, 0.9, atol=1e-6)
    alone = fill_outcomes(entries, np.full((2, 3), -1, np.int8), np.arange(3), case, CONTEXT)
    np.testing.assert_array_equal(alone, [[WITHSTOOD] * 3, [BROKEN] * 3])


def test_images_that_tie_are_not_shown_as_the_worst():
    """Whoever takes the argmax there would not see them stand."""
    posterior = two_votes()
    case = subject(posterior)
    clean = predict(posterior, case.x, CONTEXT.settings)
    found = run_cascade((Entry("near", step_to(0.4), MARGIN),), 1, case, clean, CONTEXT)
    assert found.standing.all()
    np.testing.assert_array_equal(np.argmax(found.log_probs, axis=-1), case.y)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_a_class_that_leads_by_rounding_fools_nobody(array):
    half, inf = np.log(0.5), np.inf
    rows = np.float32(
        [
            [half, half, -inf],  # a tie
            [half + 2e-7, half, -inf],  # the last digits of float32
            [half + 1e-4, half, -inf],
            [0.0, -inf, -inf],  # the label has no probability at all
            [-50.0 + 2e-5, -50.0, 0.0],
            [np.nan, half, half],  # no class
        ]
    )
    found = is_fooled(array(rows), array(np.int32([1, 1, 1, 1, 2, 1])))
    np.testing.assert_array_equal(found, [False, False, True, True, False, True])
