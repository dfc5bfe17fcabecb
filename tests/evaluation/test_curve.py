"""Robustness curves and smallest radii against closed forms."""

import jax
import numpy as np
import pytest

from bnn_adv.attacks.threat import THREATS, LInf
from bnn_adv.evaluation import Settings
from bnn_adv.evaluation.cascade import RunContext, Subject, predict
from bnn_adv.evaluation.curve import trace_curve
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.posteriors.posterior import Posterior
from tests.conftest import linear_apply

FAST = get_suite("fast").entries
CONTEXT = RunContext(jax.random.key(0))


def binary(seed=0, dim=6):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(dim, 1)).astype(np.float32)
    weights = np.concatenate([-w, w], axis=1)[None]
    return Posterior(linear_apply, {"w": weights, "b": np.zeros((1, 2), np.float32)}), w[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("norm", THREATS)
def test_smallest_radii_are_distances_to_the_boundary(norm):
    """Logits (-w.x, w.x): the distance is |w.x| over the dual norm of w, away from the walls."""
    posterior, w = binary()
    # Near the boundary and the middle of the box, so that no wall is met.
    rng = np.random.default_rng(1)
    x = rng.uniform(0.4, 0.6, (12, 6))
    x -= np.outer(x @ w - rng.uniform(0.02, 0.1, 12), w) / (w @ w)
    x = x.astype(np.float32)
    y = np.ones(12, np.int32)
    dual = {"linf": np.abs(w).sum(), "l2": np.linalg.norm(w), "l1": np.abs(w).max()}[norm]
    truth = (x @ w) / dual
    subject = Subject(posterior, x, y, THREATS[norm](float(np.median(truth))))
    clean = predict(posterior, x, Settings())
    entries = FAST[:1] if norm == "l1" else FAST
    curve = trace_curve(entries, (), subject, clean, CONTEXT, num_bisections=7)
    assert (curve.smallest >= truth * (1 - 1e-4)).all()
    # l_1 attacks step along many coordinates, the nearest point lies along one.
    np.testing.assert_allclose(curve.smallest, truth, rtol=0.3 if norm == "l1" else 0.03)
    expected = [(curve.smallest > epsilon * (1 + 1e-5)).mean() for epsilon in curve.epsilons]
    np.testing.assert_allclose(curve.accuracy, expected, atol=1 / 12 + 1e-9)
    assert (np.diff(curve.accuracy) <= 0).all()
    assert curve.median == pytest.approx(np.median(curve.smallest))


@pytest.mark.slow
def test_wrong_inputs_have_radius_zero_and_constant_models_none():
    posterior, w = binary()
    x = np.full((4, 6), 0.5, np.float32)
    right = int(w.sum() > 0)
    y = np.array([right, 1 - right, right, 1 - right], np.int32)
    constant = Posterior(
        linear_apply,
        {"w": np.zeros((1, 6, 2), np.float32), "b": np.array([[0.0, 1.0]], np.float32)},
    )
    for model, expected in ((posterior, None), (constant, np.inf)):
        clean = predict(model, x, Settings())
        wrong = np.argmax(clean, -1) != y
        curve = trace_curve(FAST, (), Subject(model, x, y, LInf(0.1)), clean, CONTEXT)
        assert wrong.sum() == 2
        assert (curve.smallest[wrong] == 0).all()
        assert (curve.smallest[~wrong] > 0).all()
        if expected is not None:
            assert (curve.smallest[~wrong] == expected).all()
            assert curve.to_dict()["smallest_epsilon"].count(None) == 2
            assert (curve.accuracy == 0.5).all()
