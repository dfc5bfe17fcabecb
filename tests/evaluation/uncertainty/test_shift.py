"""Semantic shift on posteriors of one input whose scores are known everywhere."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

import bnn_adv
from bnn_adv.attacks import pgd
from bnn_adv.attacks.base import Loss, by_value
from bnn_adv.attacks.objectives import Aim, value_and_gradient
from bnn_adv.attacks.threat import LInf
from bnn_adv.evaluation.uncertainty import (
    SCORE_OBJECTIVES,
    SCORES,
    ShiftSettings,
    score_objective,
    shift,
)
from bnn_adv.evaluation.uncertainty.score_objectives import no_gradient
from bnn_adv.evaluation.verification_arrays import VerificationError
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.report.shift import describe_stuck
from tests.conftest import random_posterior

# Two draws that change their minds at 0.45 and 0.55, so steeply that probabilities round to one.
STEEPNESS, BOUNDARIES, EPSILON = 110.0, (0.45, 0.55), 0.35
INSIDE = np.array([0.2, 0.25, 0.75, 0.8], np.float32)[:, None]
LABELS = np.array([1, 1, 0, 0])
OUTSIDE = np.array([0.439, 0.561], np.float32)[:, None]


def line(boundary, x):
    """Two logits that are equal at the boundary."""
    score = STEEPNESS * (x[:, 0] - boundary)
    return jnp.stack([score, -score], axis=1)


def steep():
    return Posterior(line, jnp.asarray(BOUNDARIES, jnp.float32))


def by_definition(x):
    """The three scores in float64, of x [...]."""
    gaps = 2 * STEEPNESS * (np.asarray(x, np.float64)[..., None] - np.array(BOUNDARIES))

    def entropy(small):
        return -small * np.log(small) - (1 - small) * np.log1p(-small)

    # Of the less likely class: one less the other would round to zero.
    doubt = np.minimum(expit(gaps).mean(axis=-1), expit(-gaps).mean(axis=-1))
    whole = entropy(doubt)
    information = whole - entropy(expit(-np.abs(gaps))).mean(axis=-1)
    return {"entropy": whole, "mutual_information": information, "max_probability": doubt}


@pytest.fixture(scope="module")
def evaluation():
    return bnn_adv.evaluate_shift(
        steep(),
        INSIDE,
        LABELS,
        OUTSIDE,
        threat=LInf(EPSILON),
        rng_key=jax.random.key(0),
        settings=ShiftSettings(batch_size=8, num_steps=20),
        progress=None,
    )


def test_perfect_detection_is_lost_under_attack(evaluation):
    assert evaluation.accuracy == 1.0
    assert list(evaluation.scores) == list(SCORES)
    for found in evaluation.scores.values():
        assert found.clean.value == 1.0
        assert found.out_attacked.value == found.in_attacked.value == 0.0
        assert found.both_attacked.value == 0.0
        # From 0.25 across both boundaries, from 0.2 across one, where the mean of the two decides.
        assert (found.selective.area, found.selective_attacked.area) == (1.0, 0.0)
        # Of six inputs two have no right answer, and look the least certain.
        assert found.selective_mixed.area == pytest.approx((4 + 4 / 5 + 4 / 6) / 6)
        assert found.selective_mixed_attacked.area == 0.0
    assert evaluation.stuck == (0.0, 0.0)
    assert set(evaluation.zero_gradients) == set(SCORE_OBJECTIVES)


@pytest.mark.parametrize("name", SCORES)
def test_attacks_reach_the_extremes_that_a_grid_finds(evaluation, name):
    grid = np.linspace(-EPSILON, EPSILON, 20_001)
    clean = by_definition(INSIDE[:, 0])[name], by_definition(OUTSIDE[:, 0])[name]
    largest = by_definition(np.clip(INSIDE + grid, 0, 1))[name].max(axis=1)
    least = by_definition(np.clip(OUTSIDE + grid, 0, 1))[name].min(axis=1)
    arrays = evaluation.arrays
    np.testing.assert_allclose(arrays[f"clean/in/{name}"], clean[0], rtol=1e-3)
    np.testing.assert_allclose(arrays[f"clean/out/{name}"], clean[1], rtol=1e-3)
    np.testing.assert_allclose(arrays[f"attacked/in/{name}"], largest, rtol=0.02)
    # Where one less the probability is 1e-34.
    assert (np.log(arrays[f"attacked/out/{name}"]) < np.log(least) + 0.1).all()
    assert (arrays[f"attacked/in/{name}"] >= arrays[f"clean/in/{name}"]).all()
    assert (arrays[f"attacked/out/{name}"] <= arrays[f"clean/out/{name}"]).all()


def test_images_stay_in_ball_and_box_and_have_the_scores_that_are_stated(evaluation):
    arrays = evaluation.arrays
    for name in SCORES:
        for kind, clean in (("in", INSIDE), ("answer", INSIDE), ("out", OUTSIDE)):
            images = arrays[f"images/{kind}/{name}"]
            assert (np.abs(images - clean) <= EPSILON + 1e-6).all()
            assert ((images >= 0) & (images <= 1)).all()
            own = by_definition(images[:, 0])[name]
            # float32 rounds the input and its gap of up to 80.
            np.testing.assert_allclose(
                np.log(arrays[f"attacked/{kind}/{name}"]), np.log(own), atol=1e-3
            )


def test_report_comes_back_from_its_file(evaluation, tmp_path):
    evaluation.save(tmp_path / "shift.npz")
    again = bnn_adv.load_shift(tmp_path / "shift.npz")
    assert again.to_dict() == evaluation.to_dict()
    record = json.loads(evaluation.to_json())
    assert record["scores"]["entropy"]["both_attacked"]["value"] == 0.0
    assert record["draws_hash"] == evaluation.draws_hash
    assert repr(evaluation).count("1.000 -> 0.000") == 3
    damaged = dict(evaluation.arrays)
    damaged["attacked/out/entropy"] = damaged["attacked/out/entropy"][:1]
    del damaged["images/in/mutual_information"]
    with pytest.raises(ValueError, match="attacked/out/entropy, images/in/mutual_information"):
        bnn_adv.evaluation.uncertainty.shift_report.summarise(damaged)
    np.savez(tmp_path / "other.npz", x=INSIDE)
    with pytest.raises(ValueError, match="no report of semantic shift"):
        bnn_adv.load_shift(tmp_path / "other.npz")


def test_tables_and_page_say_what_was_found(evaluation):
    text = str(evaluation)
    assert "1.000 [" in text
    assert text.endswith("No gradient is exactly zero at a clean input.\n")
    page = evaluation.to_html()
    assert page.count("<img") == 1
    assert "<h2>Selective accuracy of both kinds</h2>" in page
    left, right = evaluation.plot().axes
    areas = [container.lines[0].get_ydata().tolist() for container in left.containers]
    assert areas == [[1.0, 0.0, 0.0, 0.0]] * 3
    assert len(right.get_lines()) == 7


def test_gradients_that_are_zero_are_counted_and_told(evaluation):
    """Logits that are the parameters, whatever the input: nothing moves them."""
    flat = Posterior(lambda w, x: w + 0 * x, jnp.asarray([[0.0, 2.0], [1.0, 0.0]]))
    x, y = np.full((3, 2), 0.5, np.float32), np.zeros(3, np.int32)
    options = {"batch_size": 2, "sample_chunk": None}
    objective = score_objective("entropy", 1)
    assert no_gradient(objective, flat, x, y, **options).all()
    assert not no_gradient(objective, steep(), INSIDE, LABELS, **options).any()
    found = evaluation.to_dict()
    zeros = {**found["zero_gradients"], "entropy": {"in": 0.5, "out": 0.0}}
    few = {**found, "zero_gradients": zeros}
    assert "50.0 % of inputs in distribution (entropy)" in describe_stuck(few)
    assert "WARNING" not in describe_stuck(few)
    many = {**few, "stuck": {"in": 0.25, "out": 0.0}}
    assert "No objective moves 25.0 % and 0.0 %. WARNING" in describe_stuck(many)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(objective, numbers, posterior, x, y):
    """As attacks do: numbers are data."""
    return value_and_gradient(dataclasses.replace(objective, numbers=numbers), posterior, x, y)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["mean_probabilities", "mean_logits"])
def test_objectives_of_scores_are_their_logs_and_signs_turn_them(rule):
    posterior = random_posterior(3)
    posterior = Posterior(posterior.apply_fn, posterior.samples, decision_rule=rule)
    x, y = (
        jnp.asarray(np.random.default_rng(0).uniform(size=(5, 6)), jnp.float32),
        jnp.zeros(5, int),
    )
    logits = np.asarray(jax.vmap(posterior.apply_fn, (0, None))(posterior.samples, x), np.float64)

    def softmax(z):
        return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)

    def entropy(p):
        return -(p * np.log(p)).sum(axis=-1)

    mean = softmax(logits).mean(axis=0)
    predicted = softmax(logits.mean(axis=0)) if rule == "mean_logits" else mean
    expected = {
        "entropy": np.log(entropy(predicted)),
        "mutual_information": np.log(entropy(mean) - entropy(softmax(logits)).mean(axis=0)),
        "max_probability": np.log(1 - predicted.max(axis=-1)),
    }
    for name, value in expected.items():
        up, down = (
            evaluate(dataclasses.replace(own, name="", numbers=()), own.numbers, posterior, x, y)
            for own in (score_objective(name, sign, rule) for sign in (1, -1))
        )
        np.testing.assert_allclose(up.value, value, rtol=2e-4)
        np.testing.assert_array_equal(up.value, -down.value)
        np.testing.assert_array_equal(up.gradient, -down.gradient)
    with pytest.raises(ValueError, match="draw_gaps"):
        score_objective("variance", 1)


def test_means_of_gaps_do_not_saturate():
    """One draw is unsure, the other certain: the score hears the first alone, the mean both."""
    aim = Aim(jnp.asarray([0]))
    logits = jnp.asarray([[[0.0, 0.1, -9.0]], [[900.0, 0.0, -9.0]]])
    scaled = score_objective("draw_gaps", 1)
    values = [scaled.head(scaled.statistic(z, aim), aim, 1.0) for z in logits]
    np.testing.assert_allclose(np.ravel(values), [-0.1, -900.0], rtol=1e-5)
    # To look certain both are to be of the clean class.
    values = [scaled.head(scaled.statistic(z, aim), aim, -1.0) for z in logits]
    np.testing.assert_allclose(np.ravel(values), [-0.1, 900.0], rtol=1e-5)


def test_an_attack_by_value_does_not_care_what_fools():
    """What fools comes early on the way; the largest value is at its end."""

    def loss_fn(x, target=None):
        return Loss(x[:, 0], jnp.ones_like(x), x[:, 0] < 0.55, jnp.zeros((len(x), 2)))

    def last(attack):
        x, keys, threat = jnp.asarray([[0.5]]), jax.random.split(jax.random.key(0), 1), LInf(0.1)
        state = attack.init(keys, loss_fn, x, threat, attack.config)
        for _ in range(4):
            state = attack.step(keys, state, loss_fn, x, threat, attack.config)
        return float(state.x_adv[0, 0])

    plain = pgd.build(num_steps=4, random_start=False)
    assert last(plain) == pytest.approx(0.5)
    assert last(by_value(plain)) == pytest.approx(0.6)
    assert by_value(plain) == by_value(pgd.build(num_steps=4, random_start=False))


def test_bad_arguments_are_named():
    cases = (
        ({"x_out": np.zeros((2, 3), np.float32)}, ValueError, r"\(3,\), those in distribution"),
        ({"threat": LInf(np.full(4, 0.1, np.float32))}, ValueError, "one radius"),
        ({"posterior": None}, TypeError, "NoneType"),
        ({"settings": ShiftSettings(num_steps=0)}, ValueError, "num_steps"),
    )
    for changed, kind, message in cases:
        arguments = {
            **{"posterior": steep(), "x": INSIDE, "y": LABELS, "x_out": OUTSIDE},
            **{"threat": LInf(EPSILON), "rng_key": jax.random.key(0), **changed},
        }
        with pytest.raises(kind, match=message):
            bnn_adv.evaluate_shift(**arguments)


def test_a_single_draw_has_no_mutual_information(evaluation):
    arrays = {k: v for k, v in evaluation.arrays.items() if "mutual_information" not in k}
    found = bnn_adv.evaluation.uncertainty.shift_report.summarise(arrays)
    assert list(found.scores) == ["entropy", "max_probability"]
    assert math.isclose(found.scores["entropy"].clean.value, 1.0)
    assert "mutual" not in str(found)


@pytest.mark.slow
def test_every_attack_has_its_labels_its_key_and_the_referee(monkeypatch):
    """Attacks on scores keep the best value and aim from the clean class; others fool."""
    seen = []

    def run_attack(rng_key, attack, objective, posterior, x, y, **options):
        key = jax.random.key_data(rng_key).tolist()
        seen.append((attack.name, objective.name, y.tolist(), key))
        return x

    def run(y):
        return bnn_adv.evaluate_shift(
            *(steep(), INSIDE, y, OUTSIDE),
            threat=LInf(EPSILON),
            rng_key=jax.random.key(0),
            settings=ShiftSettings(batch_size=8),
            progress=None,
        )

    monkeypatch.setattr(shift, "run_attack", run_attack)
    monkeypatch.setattr(shift, "no_gradient", lambda objective, draws, x, y, **_: y < 0)
    wrong = [0, 1, 0, 0]
    found = run(wrong)
    for score in found.scores.values():
        assert score.clean == score.out_attacked == score.in_attacked == score.both_attacked
        assert score.selective_attacked.accuracy[0] == 0.75
    names = {
        **{f"raise_{name}": ("apgd_by_value", LABELS.tolist()) for name in SCORE_OBJECTIVES},
        **{f"lower_{name}": ("apgd_by_value", [1, 0]) for name in SCORE_OBJECTIVES},
        **{f"fool_certain_{name}": ("pgd", wrong) for name in SCORES},
        "mean_logit_margin": ("pgd", wrong),
    }
    assert {name: (attack, y) for attack, name, y, _ in seen} == names
    assert len({tuple(key) for *_, key in seen}) == len(seen) == len(names)

    # What leaves the ball is nobody's result.
    def outside(pool, name, sign):
        return pool[0].images + np.float32(0.4), pool[0].scores[name]

    monkeypatch.setattr(shift, "_extreme", outside)
    with pytest.raises(VerificationError):
        run(wrong)
