"""Uncertainty in closed form; scores against their definitions; an attack that stays quiet."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_adv.attacks import AttackSettings, pgd, run_attack
from bnn_adv.attacks.objectives import OBJECTIVES, value_and_gradient
from bnn_adv.attacks.threat import LInf
from bnn_adv.compute.disk import store_in
from bnn_adv.evaluation.uncertainty import (
    MEASURES,
    UncertaintySettings,
    auroc,
    evasive_objective,
    expected_calibration_error,
    log_entropy,
    measure,
)
from bnn_adv.evaluation.uncertainty import scenarios as evaluation
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from tests.conftest import random_posterior
from tests.flat import evaluate_uncertainty

EPSILON = 0.3


def shifted(params, x):
    """The logits are the parameters, whatever the input."""
    return params + 0 * x.sum(axis=-1, keepdims=True)


def at_one_input(logits):
    """Uncertainty of draws with the given logits, [S, C]."""
    found = measure(Posterior(shifted, jnp.asarray(logits, jnp.float32)), jnp.zeros((1, 2)))
    return float(found.entropy[0]), float(found.mutual_information[0])


evaluate = jax.jit(value_and_gradient, static_argnums=0)


def in_float64(logits):
    """Definition, in log space: [S, ..., C] logits to log pbar, H(pbar) and mutual information."""
    z = np.asarray(logits, np.float64)
    log_p = z - z.max(axis=-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
    mean = np.logaddexp.reduce(log_p, axis=0) - np.log(len(z))
    whole = -np.sum(np.exp(mean) * mean, axis=-1)
    return mean, whole, whole + np.sum(np.exp(log_p) * log_p, axis=-1).mean(axis=0)


def test_opposite_draws_know_everything_alone_and_nothing_together():
    for gap in (40.0, 1000.0):
        entropy, information = at_one_input([[gap, 0.0, -9.0], [0.0, gap, -9.0]])
        np.testing.assert_allclose([entropy, information], math.log(2), rtol=1e-6)


def test_draws_that_agree_have_no_mutual_information():
    entropy, information = at_one_input([[1.0, 0.0, 3.0]] * 2)
    np.testing.assert_allclose(entropy, in_float64([[1.0, 0.0, 3.0]])[1], rtol=1e-6)
    assert 0 <= information < 1e-6
    entropy, information = at_one_input([[2.0, 2.0, 2.0]] * 2)
    np.testing.assert_allclose(entropy, math.log(3), rtol=1e-6)
    assert 0 <= information < 1e-6


def test_saturated_draws_are_measured():
    assert at_one_input([[1000.0, 0.0, -500.0]] * 2) == (0.0, 0.0)
    # H = -p log p - q log q with q = exp(-30), where 1 - q is one in float32.
    entropy, information = at_one_input([[30.0, 0.0, -2000.0]] * 2)
    q = math.exp(-30)
    np.testing.assert_allclose(entropy, 31 * q, rtol=1e-5)
    # One draw of two is unsure: I = H((q1 + q2) / 2) - (H(q1) + H(q2)) / 2 is about q log 2 / 2.
    entropy, information = at_one_input([[30.0, 0.0, -2000.0], [1000.0, 0.0, -2000.0]])
    np.testing.assert_allclose(information, q * math.log(2) / 2, rtol=1e-3)


@settings(deadline=None, max_examples=50)
@given(
    logits=st.lists(
        st.lists(st.floats(-40, 40, width=32), min_size=3, max_size=3), min_size=2, max_size=2
    )
)
def test_measures_follow_their_definition(logits):
    entropy, information = at_one_input(logits)
    _, expected, expected_information = in_float64(logits)
    np.testing.assert_allclose(entropy, expected, rtol=1e-4, atol=1e-15)
    np.testing.assert_allclose(information, expected_information, rtol=1e-4, atol=1e-5 * expected)
    assert 0 <= information <= entropy * (1 + 1e-6)


def test_log_entropy_outlives_its_underflow():
    """Log H = log(q (1 + gap)) + O(q) with q = exp(-gap) for two classes; the slope stays."""
    gap = jnp.asarray([20.0, 200.0, 2000.0])
    logits = jnp.stack([gap, jnp.zeros(3)], axis=-1)

    def total(z):
        values = log_entropy(jax.nn.log_softmax(z))
        return values.sum(), values

    slope, values = jax.jit(jax.grad(total, has_aux=True))(logits)
    np.testing.assert_allclose(values, -gap + jnp.log1p(gap), rtol=1e-6)
    np.testing.assert_allclose(slope[:, 0], -1 + 1 / (1 + gap), rtol=1e-4)


@pytest.mark.slow
def test_streamed_equals_naive(posterior, batch, tmp_path):
    x, _ = batch
    logits = jax.vmap(posterior.apply_fn, (0, None))(posterior.samples, x)
    on_disk = Posterior(posterior.apply_fn, store_in(tmp_path)(posterior.samples))
    cases = [(posterior, 1, 9), (posterior, 3, 4), (on_disk, 2, 9)]
    for draws, chunk, size in cases:
        found = measure(draws, x, sample_chunk=chunk, batch_size=size)
        for own, expected in zip(found, in_float64(logits), strict=True):
            np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-6)


def test_calibration_error_of_a_constructed_set():
    """Bins (0.5, 0.75] and (0.75, 1] of four: 3 inputs, 1 right; 2 inputs, both right."""
    confidence = np.array([0.6, 0.7, 0.75, 0.9, 1.0])
    log_probs = np.log(np.stack([confidence, np.maximum(1 - confidence, 1e-30)], axis=1))
    y = np.array([0, 1, 1, 0, 0])
    first = abs(1 / 3 - (0.6 + 0.7 + 0.75) / 3)
    second = abs(1 - 0.95)
    expected = 3 / 5 * first + 2 / 5 * second
    assert math.isclose(expected_calibration_error(log_probs, y, num_bins=4), expected)
    # One bin: the difference of the means.
    one_bin = abs(3 / 5 - confidence.mean())
    assert math.isclose(expected_calibration_error(log_probs, y, num_bins=1), one_bin)
    with pytest.raises(ValueError, match="one bin"):
        expected_calibration_error(log_probs, y, num_bins=0)


# Few distinct values: ties are the rule.
SCORES = st.lists(st.integers(0, 4), min_size=1, max_size=12)


@settings(deadline=None)
@given(clean=SCORES, adv=SCORES)
def test_auroc_counts_pairs(clean, adv):
    pairs = [(a > c) + (a == c) / 2 for a in adv for c in clean]
    found, swapped = auroc(clean, adv), auroc(adv, clean)
    assert math.isclose(found.value, sum(pairs) / len(pairs), abs_tol=1e-12)
    assert 0 <= found.lower <= found.value <= found.upper <= 1
    assert found.upper - found.lower > 0.1
    np.testing.assert_allclose(
        [swapped.lower, swapped.upper], [1 - found.upper, 1 - found.lower], atol=1e-6
    )


def test_auroc_interval_covers_the_truth():
    """Normal scores one apart: the area is Phi(1 / sqrt 2) = 0.7602."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        _, lower, upper = auroc(rng.normal(size=30), rng.normal(1, size=40))
        hits += lower <= 0.76025 <= upper
    # Binomial(400, 0.95) has standard deviation 4.4.
    assert 366 <= hits <= 394


def test_auroc_refuses_what_it_cannot_rank():
    with pytest.raises(ValueError, match="NaN"):
        auroc([0.0, np.nan], [1.0])
    with pytest.raises(ValueError, match="0 clean"):
        auroc([], [1.0])


def test_evasive_objectives_are_values():
    """Equal arguments must not compile anew."""
    assert evasive_objective("entropy", 0.5, 1.0) is evasive_objective("entropy", 0.5, 1.0)
    assert evasive_objective("entropy", 0.5) != evasive_objective("mutual_information", 0.5)
    with pytest.raises(ValueError, match="Known: entropy, mutual_information"):
        evasive_objective("variance", 0.5)
    for bad in ((-0.1, 1.0), (math.nan, 1.0), (0.5, -1.0)):
        with pytest.raises(ValueError, match="at least 0"):
            evasive_objective("entropy", *bad)


@pytest.fixture(scope="module")
def scene():
    """A posterior that disagrees, and inputs that it classifies as labelled."""
    draws = random_posterior(6, scale=2.0)
    x = np.random.default_rng(1).uniform(size=(48, 6)).astype(np.float32)
    y = np.asarray(predict_log_probs(draws, jnp.asarray(x))).argmax(axis=1).astype(np.int32)
    plain = run_attack(
        jax.random.key(0),
        pgd.build(num_steps=20),
        OBJECTIVES["mean_logit_margin"],
        draws,
        x,
        y,
        threat=LInf(EPSILON),
        settings=AttackSettings(batch_size=48, sample_chunk=6),
    )
    return draws, x, y, plain


@pytest.fixture(scope="module")
def report(scene):
    draws, x, y, plain = scene
    return evaluate_uncertainty(
        jax.random.key(1),
        draws,
        x,
        y,
        plain,
        threat=LInf(EPSILON),
        settings=UncertaintySettings(quantile=0.5, num_steps=20, batch_size=48, sample_chunk=6),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURES)
def test_knowing_the_detector_helps(scene, report, name):
    """The evasive attack alone keeps more images below the threshold than the plain one."""
    draws, x, y, plain = scene
    found = report.detectors[name]
    images = run_attack(
        jax.random.key(1),
        pgd.build(num_steps=20),
        evasive_objective(name, found.threshold),
        draws,
        x,
        y,
        threat=LInf(EPSILON),
        settings=AttackSettings(batch_size=48, sample_chunk=6),
    )

    def evading(inputs):
        seen = measure(draws, jnp.asarray(inputs), batch_size=48, sample_chunk=6)
        fooled = np.asarray(seen.log_probs).argmax(axis=1) != y
        return np.mean(fooled & (np.asarray(getattr(seen, name)) <= found.threshold))

    assert evading(images) > evading(plain)
    assert found.evading == pytest.approx(evading(plain))
    assert found.evading_aware >= max(found.evading, evading(images) - 0.05)
    assert found.auroc_aware.value < found.auroc.value


@pytest.mark.slow
def test_gradient_of_evasive_objective(posterior, batch):
    """Not fooled: the margin of the mean logits alone, whose gradient never dies."""
    x, y = batch
    evasive = evasive_objective("mutual_information", 1e-3)
    found = evaluate(evasive, posterior, x, y)
    plain = evaluate(OBJECTIVES["mean_logit_margin"], posterior, x, y)
    stands = np.asarray(found.log_probs).argmax(axis=1) == np.asarray(y)
    assert 0 < stands.sum() < len(y)
    np.testing.assert_allclose(found.value[stands], plain.value[stands], rtol=1e-5)
    np.testing.assert_allclose(found.gradient[stands], plain.gradient[stands], rtol=1e-4, atol=1e-6)
    assert not np.allclose(found.gradient[~stands], plain.gradient[~stands], rtol=1e-2)


@pytest.mark.slow
def test_evasive_objective_is_finite_on_saturated_draws(saturated):
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(16, 4)), jnp.float32)
    y = jnp.arange(16, dtype=jnp.int32) % 4
    found = evaluate(evasive_objective("mutual_information", 0.0), saturated, x, y)
    assert np.isfinite(found.value).all()
    assert np.isfinite(found.gradient).all()
    assert (np.abs(found.gradient).max(axis=1) > 0).all()


@pytest.mark.slow
def test_report_is_consistent_and_ready_for_json(scene, report):
    draws, x, y, _ = scene
    seen = measure(draws, jnp.asarray(x), batch_size=48, sample_chunk=6)
    assert report.clean.accuracy == 1.0
    np.testing.assert_allclose(report.clean.entropy, np.mean(seen.entropy), rtol=1e-5)
    assert report.adversarial.accuracy < 0.9
    for name in MEASURES:
        found = report.detectors[name]
        accepted = np.mean(np.asarray(getattr(seen, name)) <= found.threshold)
        assert 0.5 <= accepted < 0.5 + 1.5 / len(y)
        assert found.evading_aware <= 1 - found.aware.accuracy
        assert found.aware.accuracy <= report.adversarial.accuracy
    written = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    low, high = written["entropy"]["intervals"]["evading_aware"]
    assert low <= written["entropy"]["evading_aware"] <= high
    assert written["mutual_information"]["auroc"]["value"] == pytest.approx(
        report.detectors["mutual_information"].auroc.value
    )
    assert "aware of mutual information" in str(report)


def test_single_draw_has_no_mutual_information(scene, monkeypatch):
    draws, x, y, plain = scene
    one = draws.take([0])
    # Attacks on a single draw are tested elsewhere, and would compile for it alone.
    monkeypatch.setattr(evaluation, "run_attack", lambda *args, **options: plain)
    found = evaluate_uncertainty(
        jax.random.key(1),
        one,
        x,
        y,
        plain,
        threat=LInf(EPSILON),
        settings=UncertaintySettings(batch_size=48),
    )
    written = found.to_dict()
    assert written["mutual_information"] is None
    assert written["clean"]["mutual_information"] is None
    assert list(found.detectors) == ["entropy"]
    assert str(found).splitlines()[2].split()[-1] == "n/a"


def test_bad_arguments_are_named(scene):
    draws, x, y, plain = scene
    for options, message in (
        ({"quantile": 1.0}, "quantile must lie"),
        ({"x_adv": plain[:5]}, "x_adv"),
    ):
        arguments = {"x_adv": plain, "threat": LInf(EPSILON), **options}
        with pytest.raises(ValueError, match=message):
            evaluate_uncertainty(jax.random.key(0), draws, x, y, **arguments)
