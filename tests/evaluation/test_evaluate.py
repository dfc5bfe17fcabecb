"""One call: what it returns, what it saves, what it refuses, and that nothing depends on luck."""

import dataclasses
import json
from html.parser import HTMLParser

import jax
import numpy as np
import pytest

import bnn_adv
from bnn_adv.compute import files
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.evaluation.masking import Check
from bnn_adv.posteriors.posterior import predict_log_probs
from tests import flat
from tests.evaluation.records import same_record

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
    # One shape of batches: one compilation.
    options = {"threat": bnn_adv.LInf(0.08), "suite": "fast", "batch_size": 12, **options}
    return flat.evaluate(*problem, rng_key=KEY, **{"num_probe": 12, **options})


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
    assert [row.name for row in rows] == [e.name for e in bnn_adv.get_suite("fast").entries]
    lost = round(24 * (evaluation.accuracy - evaluation.adversarial_accuracy))
    assert sum(row.broke for row in rows) == lost
    assert rows[0].tried == 21
    assert rows[1].tried == 21 - rows[0].broke
    for row in rows:
        assert 0 <= row.only <= row.alone <= row.num_probed <= 12


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
    assert set(evaluation.flags) <= {check.name for check in evaluation.checks}


def test_the_record_is_what_it_was_before(evaluation):
    same_record(evaluation.record, "posterior")


class Tags(HTMLParser):
    """Which elements are open, and the text in between."""

    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_it_shows_itself_in_a_notebook(evaluation):
    page = dataclasses.replace(evaluation, suite="<b>&")._repr_html_()
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    assert "<b>" not in page
    # Markup, not its text.
    assert page.startswith("<p>")
    assert page.count("<table") == 2
    assert "&lt;table" not in page
    for row in evaluation.per_attack:
        assert any(row.name.split("_")[0] in text.lower() for text in tags.texts)
    assert any(f"{100 * evaluation.adversarial_accuracy:.1f} [" in text for text in tags.texts)
    (ax,) = evaluation.plot().axes
    assert "accuracy under attack" in ax.get_ylabel()


def test_it_has_a_short_repr_without_arrays(problem, evaluation):
    assert repr(evaluation).startswith(
        "Evaluation(fast, linf 0.08, 24 inputs, 5 draws: accuracy=0.875, adversarial_accuracy=0."
    )
    sampler = bnn_adv.Sampler(problem[0].apply_fn, lambda key: problem[0].samples)
    texts = {
        "posterior": repr(problem[0]),
        "sampler": repr(sampler),
        "evaluation": repr(evaluation),
    }
    # 6 * 5 + 5 + 5 * 4 + 4 parameters.
    assert texts["posterior"] == "Posterior(5 draws of 59 parameters, mean_probabilities)"
    assert texts["sampler"] == "Sampler(<lambda>, mean_probabilities)"
    assert max(map(len, texts.values())) < 400
    assert not any("array" in text.lower() for text in texts.values())
    # JAX rebuilds them around placeholders.
    assert repr(jax.tree.map(lambda leaf: object(), problem[0])).startswith("Posterior(")


def test_a_raised_flag_stands_at_the_top(evaluation):
    sentence = "At 90 % of the images the gradient is exactly <zero>."
    check = Check("zero_gradients", True, 0.9, 0.05, {}, sentence)
    flagged = dataclasses.replace(evaluation, checks=(check,))
    assert flagged.flags == ["zero_gradients"]
    text, page = str(flagged), flagged.to_html()
    assert "UPPER BOUND" in text
    assert text.index("UPPER BOUND") < text.index("attack ")
    assert "At 90 % of the images" in text
    assert page.index("At 90 % of the images") < page.index("What each attack did")
    assert repr(flagged).endswith("signs of masking: zero_gradients)")
    assert "At 90 % of the images the gradient is exactly &lt;zero&gt;." in flagged._repr_html_()
    nothing = dataclasses.replace(flagged, adversarial_accuracy=0.0)
    assert "Nothing is left" in str(nothing)
    assert "UPPER BOUND" not in str(nothing)


def test_the_key_decides_everything(problem, evaluation):
    again = evaluate(problem)
    numbers = [{**e.record, "seconds": 0, "per_attack": 0} for e in (again, evaluation)]
    assert numbers[0] == numbers[1]
    np.testing.assert_array_equal(again.arrays["x_adv"], evaluation.arrays["x_adv"])


@pytest.mark.slow
def test_probe_and_curve_can_be_left_out(problem):
    short = evaluate(problem, num_probe=0, num_curve=0)
    assert short.checks == ()
    assert short.curve is None
    assert short.record["curve"] is None
    assert short.plot() is None
    assert [row.alone for row in short.per_attack] == [0, 0, 0]
    assert "no sign of masking was looked for" in str(short)
    assert short.to_html()


@pytest.mark.slow
def test_the_time_is_that_of_all_starts(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "seconds", 1234.56)
    found = evaluate(problem, checkpoints=Checkpoints(tmp_path), num_probe=0, num_curve=0)
    assert found.seconds == 1234.6


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
    with pytest.raises(ValueError, match="Unknown suite 'strongest'"):
        evaluate(problem, suite="strongest")
    with pytest.raises(ValueError, match="box"):
        evaluate((posterior, 255 * x, y))
