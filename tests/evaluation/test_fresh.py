"""Fresh predictors: rates against closed forms, and no success that selection made up."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.special import ndtr

from bnn_adv.attacks import pgd
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import LInf
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.evaluation import FreshSettings, Settings, TableSettings, metrics
from bnn_adv.evaluation.fresh import accuracy_interval, success_rates
from bnn_adv.posteriors.posterior import predict_log_probs
from bnn_adv.posteriors.sampler import Sampler
from tests.flat import attack_fresh, attacker_defender_table

KEY = jax.random.key(0)
MARGIN = OBJECTIVES["mean_logit_margin"]
MEAN = np.array([1.0, -2.0, 0.7, -0.6, 1.5], np.float32)
NUM_PREDICTIONS = 400


def binary_apply(params, x):
    score = x @ params["w"]
    return jnp.stack([-score, score], axis=-1) / 2


def draw_weights(mean, scale, rng_key):
    return {"w": mean + scale * jax.random.normal(rng_key, mean.shape)}


def binary(mean=MEAN, scale=1.0):
    """Logits (-w.x, w.x) / 2 with w ~ N(mean, scale^2 I)."""
    return Sampler(binary_apply, Partial(draw_weights, jnp.asarray(mean), jnp.float32(scale)))


def exact_rate(x, mean=MEAN, scale=1.0):
    """Probability that one draw says 0: w.x <= 0, where w.x ~ N(mean.x, scale^2 |x|^2)."""
    return ndtr(-(x @ mean) / (scale * np.linalg.norm(x, axis=1)))


@pytest.fixture
def images():
    x = np.random.default_rng(1).uniform(0.2, 0.8, (24, 5)).astype(np.float32)
    return x, np.ones(24, np.int32)


attack = functools.partial(
    attack_fresh,
    attack=pgd.build(num_steps=20),
    objective=MARGIN,
    threat=LInf(0.15),
    attacker_samples=64,
    defender_samples=1,
    num_predictions=NUM_PREDICTIONS,
)


@pytest.mark.slow
def test_rates_have_their_closed_form_before_and_after_the_attack(images):
    """The mean gradient leads to the corner that is worst for the mean weights."""
    x, y = images
    sampler = binary(scale=0.5)
    before = success_rates(KEY, sampler, x, y, num_samples=1, num_predictions=NUM_PREDICTIONS)
    result = attack(KEY, sampler, x, y)
    np.testing.assert_allclose(result.x_adv, x - 0.15 * np.sign(MEAN), atol=1e-6)
    for rates, points in ((before, x), (result.success_rate, result.x_adv)):
        exact = exact_rate(points, scale=0.5)
        error = np.sqrt(exact * (1 - exact) / NUM_PREDICTIONS)
        assert (np.abs(rates - exact) < 5 * error + 1e-9).all()
    exact = exact_rate(result.x_adv, scale=0.5)
    assert exact_rate(x, scale=0.5).mean() + 0.05 < result.success_rate.mean()
    assert result.interval[0] < result.accuracy < result.interval[1]
    # All images share a prediction's draws: rates move together, by this much at most.
    assert abs(result.accuracy - (1 - exact).mean()) < 5 * 0.5 / np.sqrt(NUM_PREDICTIONS)
    assert result.mostly_fooled == (result.success_rate > 0.5).mean()
    record = json.loads(json.dumps(result.to_dict()))
    assert record["accuracy"] == result.accuracy
    assert record["attacker_samples"] == 64


@pytest.mark.slow
def test_noise_is_not_broken_more_often_than_by_chance(images):
    """Draws without a mean say 0 or 1 by a coin's toss, wherever the attack goes."""
    x, y = images
    noise = binary(np.zeros(5, np.float32))
    result = attack(KEY, noise, x, y, held_out_samples=9, attacker_samples=1)
    error = 0.5 / np.sqrt(NUM_PREDICTIONS)
    assert (np.abs(result.success_rate - 0.5) < 5 * error).all()
    assert abs(result.accuracy - 0.5) < 5 * error
    # The prediction's draws are the same for all images: more images do not narrow the interval.
    assert result.interval[1] - result.interval[0] > error


@pytest.mark.slow
def test_a_prediction_is_the_mean_of_its_new_draws(images):
    x, y = images
    sampler = binary(scale=2.0)
    wrong = [
        np.argmax(predict_log_probs(sampler(jax.random.fold_in(KEY, number), 3), x), -1) != y
        for number in range(5)
    ]
    run = functools.partial(success_rates, KEY, sampler, x, y, num_samples=3, num_predictions=5)
    np.testing.assert_allclose(run(), np.mean(wrong, axis=0))
    np.testing.assert_array_equal(run(settings=Settings(batch_size=7, sample_chunk=2)), run())
    np.testing.assert_array_equal(run(settings=Settings(sample_chunk=99)), run())
    assert len(np.unique(run())) > 1


def test_the_interval_of_tables_with_one_source_of_variance():
    random = np.random.default_rng(0)
    by_image = np.tile(random.random(400) < 0.3, (50, 1))
    by_prediction = np.tile((random.random(100) < 0.3)[:, None], (1, 70))
    independent = random.random((100, 200)) < 0.3
    # Independent trials: one an image, one a prediction, one an entry.
    for table, trials in ((by_image, 399), (by_prediction, 99), (independent, 20_000)):
        expected = metrics.wilson_interval(1 - table.mean(), trials)
        found = accuracy_interval(table)
        tolerance = 0.0 if trials < 1000 else 0.05 * (expected[1] - expected[0])
        np.testing.assert_allclose(found, expected, atol=tolerance + 1e-4)
    for value, ends in ((True, (0.0, None)), (False, (None, 1.0))):
        low, high = accuracy_interval(np.full((9, 20), value))
        assert low == (0.0 if ends[0] == 0.0 else pytest.approx(1 - high + low))
        assert 0.1 < high - low < 0.2
    assert accuracy_interval(np.array([[True]]))[1] > 0.5


def test_the_interval_covers_at_its_rate():
    """Images and predictions both at random: 95 % of the intervals hold the expectation."""
    random = np.random.default_rng(0)
    held, runs = 0, 400
    for _ in range(runs):
        level = random.normal(size=(1, 60)) + random.normal(size=(40, 1)) + 0.5
        wrong = random.normal(size=(40, 60)) > level
        low, high = accuracy_interval(wrong)
        held += low <= ndtr(0.5 / np.sqrt(3)) <= high
    assert abs(held / runs - 0.95) < 5 * np.sqrt(0.95 * 0.05 / runs)


@pytest.mark.slow
def test_the_table_holds_every_pair_and_resumes(images, tmp_path):
    x, y = images
    sampler = binary(scale=2.0)
    sizes = {"attacker_samples": (1, 4), "defender_samples": (1, 3)}
    how = {
        "attack": pgd.build(num_steps=20),
        "objective": MARGIN,
        "threat": LInf(0.15),
        "num_predictions": 30,
        "held_out_samples": 9,
    }
    seen = []
    table = attacker_defender_table(
        KEY,
        sampler,
        x,
        y,
        **sizes,
        **how,
        settings=TableSettings(progress=lambda *report: seen.append(report)),
    )
    assert table.accuracies.shape == (2, 2)
    for row, attackers in enumerate((1, 4)):
        for column, defenders in enumerate((1, 3)):
            alone = attack_fresh(
                KEY,
                sampler,
                x,
                y,
                **how,
                settings=FreshSettings(attacker_samples=attackers, defender_samples=defenders),
            )
            assert table.accuracies[row, column] == pytest.approx(alone.accuracy)
            np.testing.assert_allclose(table.intervals[row, column], alone.interval)
    assert (table.accuracies < table.clean).all()
    assert {report[0] for report in seen} == {
        "pgd, 1 new draws a step",
        "pgd, 4 new draws a step",
    }
    record = json.loads(json.dumps(table.to_dict()))
    assert record["defender_samples"] == [1, 3]
    assert record["accuracies"] == table.accuracies.tolist()
    lines = str(table).splitlines()
    assert "24 images, 30 predictions" in lines[0]
    assert [line.split()[0] for line in lines[3:]] == ["clean", "S", "S"]
    assert lines[1].split()[0] == "attacker"
    assert len({len(line) for line in lines[1:]}) == 1
    assert f"{100 * table.accuracies[1, 0]:.1f} [" in lines[5]

    def interrupted():
        keeper = Checkpoints(tmp_path, every_seconds=None, every_steps=1, log=lambda message: None)
        return attacker_defender_table(
            KEY, sampler, x, y, **sizes, **how, settings=TableSettings(checkpoints=keeper)
        )

    for _ in range(2):
        np.testing.assert_array_equal(interrupted().accuracies, table.accuracies)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attacker_samples": 0}, "attacker_samples must be at least 1, got 0"),
        ({"defender_samples": 0}, "defender's number of draws must be at least 1, got 0"),
        ({"held_out_samples": 0}, "held_out_samples must be at least 1, got 0"),
        ({"num_predictions": 0}, "num_predictions must be at least 1, got 0"),
    ],
)
def test_numbers_below_one_are_refused_before_work(change, message, images):
    steps = []
    with pytest.raises(ValueError, match=message):
        attack(KEY, binary(), *images, **change, progress=lambda *report: steps.append(report))
    assert not steps


def test_a_table_needs_both_sides(images):
    with pytest.raises(ValueError, match=r"defender_samples is empty"):
        attacker_defender_table(
            KEY,
            binary(),
            *images,
            attack=pgd.build(),
            objective=MARGIN,
            threat=LInf(0.1),
            settings=TableSettings(defender_samples=()),
        )
