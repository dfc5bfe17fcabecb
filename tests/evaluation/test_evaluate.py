"""One call: what it returns, what it saves, what it refuses, and that nothing depends on luck."""

import json

import jax
import numpy as np
import pytest

import bnn_adv
from bnn_adv.compute import files
from bnn_adv.evaluation.cascade import Settings
from bnn_adv.evaluation.evaluate import Evaluation
from bnn_adv.posteriors.posterior import predict_log_probs

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def problem():
    from tests.conftest import random_posterior

    posterior = random_posterior(5, scale=3.0, seed=2)
    x = np.random.default_rng(1).uniform(0.05, 0.95, (24, 6)).astype(np.float32)
    y = np.array(np.argmax(predict_log_probs(posterior, x), axis=-1), np.int32)
    # Three labels are wrong from the start.
    y[:3] = (y[:3] + 1) % 4
    return posterior, x, y


def evaluate(problem, **options):
    options = {"threat": bnn_adv.LInf(0.08), "suite": "fast", "num_probe": 12, **options}
    settings = Settings(batch_size=12)  # one shape of batches: one compilation
    return bnn_adv.evaluate(*problem, rng_key=KEY, settings=settings, **options)


@pytest.fixture(scope="module")
def evaluation(problem):
    return evaluate(problem)


def test_numbers_are_those_of_the_saved_images(problem, evaluation, tmp_path):
    posterior, x, y = problem
    path = tmp_path / "adversarial.npz"
    evaluation.save_adversarial(path)
    saved = files.read_arrays(path)
    fooled = np.argmax(predict_log_probs(posterior, saved["x_adv"]), axis=-1) != y
    np.testing.assert_array_equal(saved["broken"], fooled)
    assert evaluation.accuracy == pytest.approx(21 / 24)
    assert evaluation.adversarial_accuracy == pytest.approx(1 - fooled.mean())
    assert 0 < evaluation.adversarial_accuracy < evaluation.accuracy
    assert np.abs(saved["x_adv"] - x).max() <= 0.08 + 1e-6
    assert bnn_adv.verify_adversarial(path, posterior).ok


def test_attacks_add_up(evaluation):
    """What each attack broke is what separates clean accuracy from what is left."""
    rows = evaluation.per_attack
    assert [row["name"] for row in rows] == [e.name for e in bnn_adv.get_suite("fast").entries]
    lost = round(24 * (evaluation.accuracy - evaluation.adversarial_accuracy))
    assert sum(row["broke"] for row in rows) == lost
    assert rows[0]["tried"] == 21
    assert rows[1]["tried"] == 21 - rows[0]["broke"]
    for row in rows:
        assert 0 <= row["only"] <= row["alone"] <= row["num_probed"] <= 12


def test_it_reads_well(evaluation):
    text = str(evaluation)
    assert "adversarial accuracy" in text
    assert f"{100 * evaluation.adversarial_accuracy:.1f} [" in text
    assert max(map(len, text.splitlines())) <= 100
    record = json.loads(evaluation.to_json())
    assert record == json.loads(json.dumps(evaluation.record))
    page = evaluation.to_html()
    assert page.startswith("<!DOCTYPE html>")
    assert "<script" not in page
    assert "data:image/png;base64," in page
    assert set(evaluation.flags) <= {check["name"] for check in evaluation.checks}


def test_a_raised_flag_stands_at_the_top(evaluation):
    check = {
        "name": "zero_gradients",
        "raised": True,
        "value": 0.9,
        "threshold": 0.05,
        "evidence": {},
        "sentence": "At 90 % of the images the gradient is exactly zero.",
    }
    flagged = Evaluation({**evaluation.record, "checks": [check]}, {})
    assert flagged.flags == ["zero_gradients"]
    text, page = str(flagged), flagged.to_html()
    assert "UPPER BOUND" in text
    assert text.index("UPPER BOUND") < text.index("attack ")
    assert "At 90 % of the images" in text
    assert page.index("At 90 % of the images") < page.index("What each attack did")
    nothing = Evaluation({**evaluation.record, "adversarial_accuracy": 0.0, "checks": [check]}, {})
    assert "Nothing is left" in str(nothing)
    assert "UPPER BOUND" not in str(nothing)


def test_the_key_decides_everything(problem, evaluation):
    again = evaluate(problem)
    numbers = [{**e.record, "seconds": 0, "per_attack": 0} for e in (again, evaluation)]
    assert numbers[0] == numbers[1]
    np.testing.assert_array_equal(again.arrays["x_adv"], evaluation.arrays["x_adv"])


def test_probe_and_curve_can_be_left_out(problem):
    short = evaluate(problem, num_probe=0, num_curve=0)
    assert short.checks == []
    assert short.record["curve"] is None
    assert [row["alone"] for row in short.per_attack] == [0, 0, 0]
    assert "no sign of masking was looked for" in str(short)
    assert short.to_html()


def test_what_cannot_be_confirmed_is_not_reported(problem, monkeypatch):
    """An attack that leaves the ball is caught by the referee, whoever wrote it."""
    from bnn_adv.evaluation import cascade

    honest = cascade.run_attack

    def cheat(*arguments, **options):
        return np.clip(honest(*arguments, **options) + 0.02, 0, 1)

    monkeypatch.setattr(cascade, "run_attack", cheat)
    with pytest.raises(ValueError, match="ball"):
        evaluate(problem, num_probe=0, num_curve=0)


def test_errors_come_before_work(problem):
    posterior, x, y = problem
    with pytest.raises(ValueError, match="Unknown protocol 'strongest'"):
        evaluate(problem, suite="strongest")
    with pytest.raises(ValueError, match="box"):
        evaluate((posterior, 255 * x, y))
