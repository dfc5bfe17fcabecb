"""Suites: what they are, what they report, and that the worst case is the worst."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv import evaluation
from bnn_adv.attacks import ATTACKS
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import LInf
from bnn_adv.evaluation import masking, metrics
from bnn_adv.evaluation.cascade import predict
from bnn_adv.evaluation.suites import MINIMAL, SUITES, get_suite, list_compared
from bnn_adv.posteriors.posterior import predict_log_probs

KEY = jax.random.key(0)
ONE_SHAPE = evaluation.Settings(batch_size=12)
"""Smaller batches would be padded to 8: every attack compiles once."""


@pytest.fixture
def clear_images():
    y = np.arange(24, dtype=np.int32) % 4
    x = np.random.default_rng(0).uniform(0.2, 0.3, (24, 4)).astype(np.float32)
    x[np.arange(24), y] += 0.45
    return x, y


SHORT = ("published", "corrected", "fast", "strong")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_reports_what_its_images_show(name, posterior, batch):
    x, y = np.asarray(batch[0]), np.asarray(batch[1])
    result = evaluation.run_suite(
        KEY, get_suite(name), posterior, x, y, threat=LInf(0.1), settings=ONE_SHAPE
    )
    for attack, images in result.adversarial.items():
        log_probs = predict_log_probs(posterior, jnp.asarray(images))
        assert metrics.accuracy(log_probs, y) == result.accuracies[attack]
        assert np.abs(images - x).max() <= 0.1 + 1e-6
    record = result.to_dict()
    assert set(record["intervals"]) == set(result.accuracies)
    for attack, (low, high) in record["intervals"].items():
        assert low <= record[attack] <= high


@pytest.mark.slow
def test_published_suite_is_blind_and_strong_is_not(saturated, clear_images):
    results = {
        name: evaluation.run_suite(
            KEY, get_suite(name), saturated, *clear_images, threat=LInf(0.3), settings=ONE_SHAPE
        )
        for name in ("published", "strong")
    }
    published, strong = results["published"], results["strong"]
    assert published.accuracies == {"fgsm": 1.0, "pgd": 1.0}
    assert published.zero_gradient_share > 0.9
    assert published.softmax_robustness == 1.0
    assert strong.accuracies["worst"] == 0.0
    assert strong.zero_gradient_share == 0.0
    assert strong.softmax_robustness < 0.1
    assert set(strong.attack_of) <= set(strong.accuracies)


@pytest.mark.slow
def test_worst_case_is_below_every_attack_and_monotone(posterior, batch):
    x, y = np.asarray(batch[0]), np.asarray(batch[1])
    strong = evaluation.run_suite(
        KEY, get_suite("strong"), posterior, x, y, threat=LInf(0.03), settings=ONE_SHAPE
    )
    left = list(strong.accuracies.values())
    assert left == sorted(left, reverse=True)
    clean = np.argmax(predict_log_probs(posterior, batch[0]), axis=-1) == y
    corrected = evaluation.run_suite(
        KEY, get_suite("corrected"), posterior, x, y, threat=LInf(0.03), settings=ONE_SHAPE
    )
    assert strong.accuracies["worst"] <= min(clean.mean(), *corrected.accuracies.values())
    # An image is broken by the attack that is named, or was wrong before, or stands.
    fooled = np.argmax(predict_log_probs(posterior, strong.adversarial["worst"]), axis=-1) != y
    np.testing.assert_array_equal(strong.attack_of != "", fooled & clean)


@pytest.mark.slow
def test_fresh_defenders_judge_the_same_images(saturated, clear_images):
    x, y = clear_images
    result = evaluation.run_suite(
        KEY,
        get_suite("corrected"),
        saturated.take([0, 1, 2]),
        x,
        y,
        threat=LInf(0.3),
        settings=ONE_SHAPE,
    )
    fresh = saturated.take([3, 4, 5])
    record = evaluation.evaluate_fresh(result, fresh, y)
    for attack, images in result.adversarial.items():
        log_probs = predict_log_probs(fresh, jnp.asarray(images))
        assert record[attack] == metrics.accuracy(log_probs, y)
    assert set(record) == {"fgsm", "pgd", "intervals"}


@pytest.mark.slow
def test_batch_and_chunk_do_not_change_the_numbers(posterior, batch):
    x, y = np.asarray(batch[0]), np.asarray(batch[1])
    numbers = [
        evaluation.run_suite(
            KEY,
            get_suite("corrected"),
            posterior,
            x,
            y,
            threat=LInf(0.05),
            settings=evaluation.Settings(size, chunk),
        ).accuracies
        for size, chunk in ((12, None), (4, 2))
    ]
    assert numbers[0] == numbers[1]


@pytest.mark.slow
def test_zero_gradients_are_found_one_by_one(saturated, clear_images):
    """Images near a decision boundary have a gradient, those far from it have none."""
    x, y = clear_images
    x = x.copy()
    x[3] = 0.25
    zero = masking.zero_gradients(OBJECTIVES["published"], saturated, x, y, batch_size=7)
    assert zero.sum() == 23
    assert not zero[3]
    assert not masking.zero_gradients(OBJECTIVES["mean_logit_margin"], saturated, x, y).any()


def test_the_suites_are_those_of_the_paper():
    published = get_suite("published")
    assert published.published_metric
    attack = published.entries[1].attack
    assert (attack.config.step_size, attack.num_steps, attack.config.keep) == (2.0, 40, "last")
    assert not attack.config.random_start
    assert {entry.objective for entry in published.entries} == {"published"}
    assert [own.name for own in get_suite("corrected").objectives] == ["expected_loss"]
    with pytest.raises(ValueError, match=r"'weak'.*published, corrected, fast, strong, full"):
        get_suite("weak")


def test_stronger_suites_hold_the_weaker_ones():
    """The same entries: an image's key comes from the entry's name, and so the same attacks."""
    fast, strong, full = (get_suite(name) for name in ("fast", "strong", "full"))

    def on_all(suite):
        """Attacks by name and steps; when a batch ends does not matter to an image."""
        return {
            (entry.name, dataclasses.replace(entry.attack, stop_on_success=True), entry.objective)
            for entry in suite.entries
            if not entry.reach
        }

    def attacks(suite):
        return on_all(dataclasses.replace(suite, entries=[replace_reach(e) for e in suite.entries]))

    def replace_reach(entry):
        return dataclasses.replace(entry, reach=0.0)

    assert on_all(fast) == attacks(fast) == on_all(strong) < attacks(strong) < on_all(full)
    assert fast.restarts <= strong.restarts <= full.restarts
    assert all(suite.worst_case for suite in (fast, strong, full))
    # The first one goes on after an image is fooled: predictions from fresh draws stay fooled.
    assert not strong.entries[0].attack.stop_on_success


def test_a_study_compares_the_papers_suites_with_another():
    assert list_compared("fast") == {
        "published": get_suite("published"),
        "corrected": get_suite("corrected"),
        "strong": get_suite("fast"),
    }
    with pytest.raises(ValueError, match="Unknown suite 'weak'"):
        list_compared("weak")


def test_every_suite_runs_what_exists():
    for name, suite in SUITES.items():
        assert suite.name == name
        names = [entry.name for entry in suite.entries]
        assert len(set(names)) == len(names)
        for entry in (*suite.entries, *MINIMAL):
            assert entry.attack.name in ATTACKS
            assert entry.objective in OBJECTIVES
            module = ATTACKS[entry.attack.name]
            assert (entry.attack.init, entry.attack.step) == (module.init, module.step)
    full = get_suite("full")
    assert set(get_suite("strong").objectives) < set(full.objectives)
    assert {entry.surrogate for entry in full.entries} == {"posterior", "one_draw", "mean_weights"}
    assert sum(not entry.attack.uses_gradient for entry in full.entries) >= 4


@pytest.mark.slow
def test_predictions_of_any_number_of_images_share_a_program(posterior):
    """Images that stand differ in number after every attack."""
    x = np.random.default_rng(0).uniform(size=(30, 6)).astype(np.float32)
    expected = np.asarray(predict_log_probs(posterior, x))
    for counts, programs in (((8, 9, 11), 1), ((12, 20, 22), 1), ((23, 30), 1)):
        before = predict_log_probs._cache_size()
        for count in counts:
            found = predict(posterior, x[:count], evaluation.Settings(batch_size=11))
            np.testing.assert_allclose(found, expected[:count], rtol=1e-5, atol=1e-6)
        assert predict_log_probs._cache_size() == before + programs
