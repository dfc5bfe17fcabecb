"""One call on a predictor that draws anew: both threat models, against closed forms."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.special import ndtr

import bnn_adv
from bnn_adv.attacks import noise, pgd
from bnn_adv.attacks.threat import LInf
from bnn_adv.compute import files
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.evaluation import frozen_draws, masking
from bnn_adv.evaluation.cascade import RunContext
from bnn_adv.evaluation.fresh_suite import FreshSubject, run_fresh_suite
from bnn_adv.evaluation.suites import Entry, Suite
from tests import flat
from tests.conftest import linear_apply
from tests.evaluation.records import same_record

KEY = jax.random.key(0)
WEIGHTS = np.array([1.0, -2.0, 0.7, -0.6, 1.5], np.float32)
EPSILON, NOISE, NUM_IMAGES, NUM_PREDICTIONS = 0.05, 0.3, 16, 400
PGD = Entry(
    "pgd_mean_logit_margin", pgd.build(num_steps=20, stop_on_success=True), "mean_logit_margin"
)
SUITE = Suite(
    name="short",
    description="PGD, a transfer and noise.",
    entries=(
        PGD,
        Entry("transfer", pgd.build(num_steps=2), "mean_logit_margin", surrogate="one_draw"),
        Entry("noise", noise.build(num_steps=5), "mean_logit_margin"),
    ),
    worst_case=True,
)


def draw_bias(scale, rng_key):
    """Logits (0, w.x - c + e) with e ~ N(0, scale^2)."""
    shift = -0.5 * WEIGHTS.sum() + scale * jax.random.normal(rng_key)
    return {
        "w": jnp.stack([jnp.zeros_like(WEIGHTS), WEIGHTS], axis=1),
        "b": jnp.stack([0.0, shift]),
    }


def linear(scale):
    return bnn_adv.Sampler(linear_apply, Partial(draw_bias, jnp.float32(scale)))


def score(x):
    return (np.asarray(x, float) - 0.5) @ WEIGHTS.astype(float)


def problem():
    """Images on both sides of the boundary, within reach of it and not, in the box's middle."""
    x = np.random.default_rng(1).uniform(0.3, 0.7, (NUM_IMAGES, 5)).astype(np.float32)
    return x, (score(x) > 0).astype(np.int32)


def evaluate(model, **options):
    options = {"num_predictions": NUM_PREDICTIONS, "num_samples": 1, **options}
    return flat.evaluate(
        model,
        *problem(),
        threat=LInf(EPSILON),
        rng_key=KEY,
        suite=SUITE,
        num_curve=0,
        batch_size=NUM_IMAGES,
        **options,
    )


@pytest.fixture(scope="module")
def noisy():
    # Signs of masking are looked for on the frozen draws, as in any posterior: see tests/masking.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masking, "inspect", lambda *problem, **options: ())
        yield evaluate(linear(NOISE))


def test_rates_have_their_closed_form(noisy):
    """The worst corner lowers the label's score by eps |w|_1; a draw errs with a normal's cdf."""
    x, y = problem()
    worst = np.where(y == 1, 1, -1) * score(x) - EPSILON * np.abs(WEIGHTS).sum()
    exact = ndtr(-worst / NOISE)
    error = np.sqrt(exact * (1 - exact) / NUM_PREDICTIONS)
    rates = np.array(noisy.fresh.success_rate)
    assert (np.abs(rates - exact) < 5 * error + 1e-9).all()
    assert exact.min() > 0.05
    assert exact.max() < 0.95
    # All images share a prediction's draws, so that their rates move together.
    assert abs(noisy.fresh.accuracy - (1 - exact).mean()) < 5 * 0.5 / np.sqrt(NUM_PREDICTIONS)
    clean = ndtr(np.where(y == 1, 1, -1) * score(x) / NOISE).mean()
    assert abs(noisy.fresh.clean - clean) < 5 * 0.5 / np.sqrt(NUM_PREDICTIONS)
    assert noisy.fresh.interval[0] < noisy.fresh.accuracy < noisy.fresh.interval[1]
    assert noisy.fresh.mostly_fooled == (rates > 0.5).mean()
    np.testing.assert_allclose(
        noisy.arrays["x_adv_fresh"], x - EPSILON * np.outer(2 * y - 1, np.sign(WEIGHTS)), atol=1e-6
    )


def test_the_record_is_what_it_was_before(noisy):
    same_record({name: v for name, v in noisy.record.items() if name != "checks"}, "sampler")


def test_only_gradients_of_the_predictor_itself_are_used(noisy):
    rows = {row["name"]: row for row in noisy.fresh.per_entry}
    assert list(rows) == ["pgd_mean_logit_margin", "frozen suite", "clean"]
    assert sum(row["chosen"] for row in rows.values()) == pytest.approx(1)
    assert rows["clean"]["accuracy"] > rows["pgd_mean_logit_margin"]["accuracy"]
    # The frozen suite ends at the boundary of its own draw, which is not that of the next.
    assert rows["frozen suite"]["accuracy"] > rows["pgd_mean_logit_margin"]["accuracy"]


def test_the_frozen_part_is_that_of_its_draws(noisy, tmp_path):
    draws = frozen_draws(KEY, linear(NOISE), 1)
    alone = evaluate(draws, num_probe=0)
    assert alone.fresh is None
    for name in ("accuracy", "adversarial_accuracy", "softmax_robustness", "confirmed"):
        assert noisy.record[name] == alone.record[name]
    np.testing.assert_array_equal(noisy.arrays["x_adv"], alone.arrays["x_adv"])
    path = tmp_path / "adversarial.npz"
    noisy.save_adversarial(path)
    assert bnn_adv.verify_adversarial(path, draws).ok
    saved = files.read_arrays(path)
    assert np.abs(saved["x_adv_fresh"] - saved["x"]).max() <= EPSILON + 1e-6
    np.testing.assert_array_equal(saved["success_rate_fresh"], noisy.fresh.success_rate)


def test_the_table_compares_numbers_of_draws(noisy):
    """Bias noise does not turn gradients: attackers agree; a defender's mean draws do better."""
    table = noisy.fresh.table
    assert table.attacker_samples == table.defender_samples == (1, 10)
    accuracies = np.array(table.accuracies)
    np.testing.assert_allclose(accuracies[0], accuracies[1])
    assert table.num_images == NUM_IMAGES
    y = problem()[1]
    exact = ndtr(
        (np.where(y == 1, 1, -1) * score(problem()[0]) - EPSILON * np.abs(WEIGHTS).sum()) / NOISE
    )
    assert abs(accuracies[0, 0] - exact.mean()) < 5 * 0.5 / np.sqrt(NUM_PREDICTIONS)


def test_both_threat_models_are_named(noisy):
    record = json.loads(noisy.to_json())
    assert record["fresh"] == json.loads(json.dumps(noisy.fresh.to_dict()))
    text, page = str(noisy), noisy.to_html()
    for shown in (text, page):
        assert "frozen: the attacker knows the very draws that predict" in shown
        assert "fresh: the attacker knows how parameters are drawn" in shown
        assert f"{100 * noisy.fresh.accuracy:.1f} [" in shown
        assert f"{100 * noisy.fresh.table.accuracies[0][1]:.1f} [" in shown
    assert max(map(len, text.splitlines())) <= 100
    assert "<h2>Random predictors</h2>" in page


@pytest.mark.slow
def test_without_noise_fresh_is_frozen():
    found = evaluate(linear(0.0), num_predictions=2, num_probe=0)
    assert 0 < found.adversarial_accuracy < found.accuracy == 1
    assert found.fresh.accuracy == pytest.approx(found.adversarial_accuracy)
    assert found.fresh.clean == found.accuracy
    assert found.fresh.mostly_fooled == pytest.approx(1 - found.adversarial_accuracy)
    assert found.fresh.table is None
    assert "fresh: " in str(found)
    assert found.to_html()


def chaos(params, x):
    """Classes that are independent coin tosses at every image and draw."""
    wave = jnp.sin(1e4 * (x @ params))
    return jnp.stack([-wave, wave], axis=1)


def draw_noise(rng_key):
    return jax.random.normal(rng_key, (5,))


@pytest.mark.slow
def test_nothing_that_made_or_chose_an_image_reports_on_it():
    """Whatever is chosen among many, new predictions toss a coin.

    The best of six rates of 25 tosses lies 1.27 standard deviations above a half on average: 0.13.
    """
    x = np.random.default_rng(2).uniform(0.3, 0.7, (64, 5)).astype(np.float32)
    y = np.arange(64, dtype=np.int32) % 2
    entries = [Entry(str(number), PGD.attack, PGD.objective) for number in range(4)]
    subject = FreshSubject(bnn_adv.Sampler(chaos, draw_noise), x, y, LInf(EPSILON), 1, 25)
    found = run_fresh_suite(entries, subject, RunContext(KEY), frozen=1 - x, probe=np.arange(0))
    error = 0.5 / np.sqrt(25 * 64)
    assert abs(found.accuracy - 0.5) < 5 * error < 0.065
    assert len(found.per_entry) == 6
    for row in found.per_entry:
        assert abs(row["accuracy"] - 0.5) < 5 * error
        assert row["chosen"] > 0


@pytest.mark.slow
def test_it_goes_on_where_it_was_interrupted(tmp_path):
    class Unplugged(Exception):
        pass

    class Unreliable(Checkpoints):
        left = 0

        def tick(self, step, tree, meta=None):
            super().tick(step, tree, meta)
            self.left -= 1
            if not self.left:
                raise Unplugged

    def run(ticks, num_predictions=2):
        keeper = Unreliable(tmp_path, every_seconds=None, every_steps=1, log=lambda message: None)
        keeper.left = ticks
        return evaluate(
            linear(NOISE), num_probe=0, num_predictions=num_predictions, checkpoints=keeper
        )

    whole = evaluate(linear(NOISE), num_probe=0, num_predictions=2)
    stops = 0
    while True:
        try:
            found = run(3)
            break
        except Unplugged:
            stops += 1
    assert stops > 1
    assert found.record["fresh"] == whole.record["fresh"]
    with pytest.raises(ValueError, match=r"something else.*3 predictions of 1 new draws"):
        run(99, num_predictions=3)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (draw_noise, TypeError, r"function draw_noise.*bnn_adv.Sampler\(apply_fn, draw\)"),
        ([draw_noise(KEY)] * 2, TypeError, r"a list.*bnn_adv.Posterior.stack\(apply_fn, trees\)"),
        (draw_bias(NOISE, KEY), TypeError, r"a dict.*bnn_adv.Posterior\(apply_fn, samples\)"),
        (3, TypeError, "got int"),
        (bnn_adv.Sampler(linear_apply, 3), TypeError, "draw of a Sampler.*got int"),
        (bnn_adv.Posterior(3, {}), TypeError, "apply_fn of a Posterior.*got int"),
    ],
)
def test_says_how_to_wrap_what_is_neither(model, error, message):
    with pytest.raises(error, match=message):
        evaluate(model)


def test_numbers_below_one_are_refused():
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        evaluate(linear(NOISE), num_samples=0)
    with pytest.raises(ValueError, match="num_predictions must be at least 1, got 0"):
        evaluate(linear(NOISE), num_predictions=0)
