"""Switches of the ablation: both ends are the suites, and one switch changes one thing."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_adv.attacks import run_attack
from bnn_adv.attacks.objectives import OBJECTIVES, Aim, value_and_gradient
from bnn_adv.attacks.threat import LInf
from bnn_adv.evaluation import Settings, run_suite
from bnn_adv.evaluation.cascade import predict
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.posteriors.sampler import Sampler
from experiments.protocol_ablation import switches as ablation

KEY = jax.random.key(3)
THREAT = LInf(0.3)
PUBLISHED = ablation.IN_2020 - ablation.TRAINING


def row(on, posterior, x, y):
    clean = predict(posterior, x, Settings())[None]
    images = {
        kind: ablation.attack(KEY, kind, on, posterior, x, y, threat=THREAT)
        for kind in ("fgsm", "pgd")
    }
    fgsm, pgd = (predict(posterior, found, Settings())[None] for found in images.values())
    return images, ablation.summarise(ablation.judge(on, y, clean, fgsm, pgd))


def score(on, y, clean, moved):
    found = ablation.judge(on, y, clean[None], clean[None], moved[None])
    return ablation.summarise(found)


@pytest.mark.slow
@pytest.mark.parametrize(("on", "suite"), [(ablation.NONE, "corrected"), (PUBLISHED, "published")])
def test_ends_are_the_suites_to_the_last_bit(on, suite, posterior, batch):
    x, y = map(np.asarray, batch)
    expected = run_suite(KEY, get_suite(suite), posterior, x, y, threat=THREAT)
    images, numbers = row(on, posterior, x, y)
    for kind, found in images.items():
        np.testing.assert_array_equal(found, expected.adversarial[kind])
        assert numbers[kind] == expected.accuracies[kind]
        assert numbers["intervals"][kind] == expected.to_dict()["intervals"][kind]
    assert numbers["softmax_robustness"] == expected.softmax_robustness
    share = ablation.zero_gradient_share(on, posterior, x, y)
    assert share == expected.zero_gradient_share


def wide_sampler():
    """Linear networks around one, far enough apart for draws to matter."""
    centre = jnp.asarray(np.random.default_rng(2).normal(size=(6, 3)), jnp.float32)

    def draw(rng_key):
        return centre + jax.random.normal(rng_key, centre.shape)

    return Sampler(lambda params, x: 3 * x @ params, draw)


@pytest.mark.slow
def test_redrawn_attacks_follow_new_draws_at_every_step():
    """By hand: each step's gradient is that of the draws which its key makes, and no other's."""
    sampler, x = wide_sampler(), np.full((4, 6), 0.5, np.float32)
    y = np.array([0, 1, 2, 0], np.int32)
    known = sampler.sample(jax.random.key(9), 2)
    on = PUBLISHED | {"draws"}

    @jax.jit
    def follow(key, images):
        drawn = sampler.sample(key, 2)
        gradient = value_and_gradient(OBJECTIVES["published"], drawn, images, y).gradient
        return jnp.clip(jnp.clip(images + 2 * jnp.sign(gradient), x - 0.3, x + 0.3), 0, 1)

    # Draws are numbered by the gradients that they make, from that of the start on.
    for kind, count in (("fgsm", 1), ("pgd", 40)):
        found = ablation.attack(KEY, kind, on, known, x, y, threat=THREAT, sampler=sampler)
        attack_key = jax.random.fold_in(KEY, zlib.crc32(f"{kind}/0".encode()))
        draws_key = jax.random.fold_in(attack_key, zlib.crc32(b"draws"))
        expected = x
        for number in range(count):
            expected = follow(jax.random.fold_in(draws_key, number), expected)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    fixed = ablation.attack(KEY, "pgd", PUBLISHED, known, x, y, threat=THREAT)
    assert (fixed != found).any()
    with pytest.raises(ValueError, match="give the sampler that draws anew"):
        ablation.attack(KEY, "pgd", on, known, x, y, threat=THREAT)


@pytest.mark.slow
def test_images_without_a_gradient_are_returned_as_the_attack_would(saturated):
    """PGD on known draws, from the image: skipping what cannot move changes nothing."""
    x = np.full((4, 4), 0.1, np.float32) + 0.8 * np.eye(4, dtype=np.float32)
    x[0] = 0.5
    y = np.arange(4, dtype=np.int32)
    found = ablation.attack(KEY, "pgd", PUBLISHED, saturated, x, y, threat=THREAT)
    whole = run_attack(
        jax.random.fold_in(KEY, zlib.crc32(b"pgd/0")),
        ablation.attack_of("pgd", PUBLISHED),
        OBJECTIVES["published"],
        saturated,
        x,
        y,
        threat=THREAT,
    )
    np.testing.assert_array_equal(found, whole)
    assert (found[0] != x[0]).any()
    np.testing.assert_array_equal(found[1:], x[1:])


def test_zero_gradients_of_saturated_draws_depend_on_the_second_softmax(saturated):
    """The same images: every published gradient is zero, no margin's is."""
    x = np.full((4, 4), 0.1, np.float32) + 0.8 * np.eye(4, dtype=np.float32)
    y = np.arange(4, dtype=np.int32)
    assert ablation.zero_gradient_share(PUBLISHED, saturated, x, y) == 1.0
    images = ablation.attack(KEY, "fgsm", PUBLISHED, saturated, x, y, threat=THREAT)
    np.testing.assert_array_equal(images, x)


def naive_second_softmax(posterior, x, label):
    logits = jax.vmap(lambda params: posterior.apply_fn(params, x[None])[0])(posterior.samples)
    each = -jax.nn.log_softmax(jax.nn.softmax(logits))[:, label]
    return each.mean()


@pytest.mark.slow
def test_mean_of_second_softmax_is_the_mean_over_draws(posterior, batch):
    x, y = batch
    found = jax.jit(value_and_gradient, static_argnums=0)(
        ablation.MEAN_OF_SECOND_SOFTMAX, posterior, x, y
    )
    naive = jax.jit(jax.vmap(jax.value_and_grad(lambda *a: naive_second_softmax(posterior, *a))))
    value, gradient = naive(x, y)
    np.testing.assert_allclose(found.value, value, rtol=1e-5)
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-3, atol=1e-7)
    # Of one draw, the mean of the losses is the loss of the mean.
    one = posterior.take([2])
    mean, whole = (
        value_and_gradient(objective, one, x, y)
        for objective in (ablation.MEAN_OF_SECOND_SOFTMAX, OBJECTIVES["published"])
    )
    np.testing.assert_allclose(mean.gradient, whole.gradient, rtol=1e-4, atol=1e-8)


def test_objectives_follow_two_switches():
    names = {
        on: ablation.objective_of(on).name
        for on in ablation.combinations({"double_softmax", "attack_objective"})
    }
    assert names == {
        frozenset(): "expected_loss",
        frozenset({"attack_objective"}): "loss_of_mean",
        frozenset({"double_softmax"}): "mean_of_second_softmax",
        frozenset({"double_softmax", "attack_objective"}): "published",
    }
    logits = jnp.asarray([[900.0, 0.0, -900.0]])
    value = ablation.MEAN_OF_SECOND_SOFTMAX.statistic(logits, Aim(jnp.asarray([1])))
    # softmax is (1, 0, 0): log(e + 2) - 0.
    np.testing.assert_allclose(value, [[np.log(np.e + 2)]], rtol=1e-6)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    st.integers(2, 12).flatmap(
        lambda classes: st.tuples(
            st.lists(st.lists(st.floats(-50, 50), min_size=classes, max_size=classes), min_size=1),
            st.just(classes),
        )
    ),
    st.integers(0, 11),
)
def test_published_score_cannot_fall_below_its_floor(drawn, shift):
    """Lowest where one-hot predictions all change their class: 1 - (e - 1) / (e + C - 1)."""
    logits, classes = drawn
    clean = np.asarray(jax.nn.log_softmax(np.asarray(logits, np.float64)))
    y = np.zeros(len(clean), int)
    moved = np.roll(clean, shift % classes, axis=1)
    on = frozenset({"metric_softmax"})
    floor = 1 - (np.e - 1) / (np.e + classes - 1)
    value = score(on, y, clean, moved)["softmax_robustness"]
    assert floor - 1e-9 <= value <= 1


def test_floor_is_reached_by_one_hot_predictions():
    clean = np.log(np.eye(10)[:3] + 1e-300)
    moved = np.roll(clean, 1, axis=1)
    numbers = score(frozenset({"metric_softmax"}), np.arange(3), clean, moved)
    assert numbers["softmax_robustness"] == pytest.approx(0.8534, abs=5e-5)
    assert (numbers["accuracy"], numbers["fgsm"], numbers["pgd"]) == (1.0, 1.0, 0.0)
    sound = score(ablation.NONE, np.arange(3), clean, moved)
    assert sound["softmax_robustness"] == pytest.approx(0.0, abs=1e-12)


def test_several_predictions_are_averaged():
    """Right in one of two predictions of every image: one half, with an interval over both."""
    right, wrong = np.log([[0.9, 0.1]] * 4), np.log([[0.1, 0.9]] * 4)
    both = np.stack([right, wrong])
    found = ablation.judge(ablation.NONE, np.zeros(4, int), both, both, both[::-1])
    numbers = ablation.summarise(found)
    assert (numbers["accuracy"], numbers["pgd"]) == (0.5, 0.5)
    assert numbers["softmax_robustness"] == pytest.approx(1 - 0.8)
    low, high = numbers["intervals"]["pgd"]
    assert low < 0.1
    assert high > 0.9


def test_rows_hold_every_switch_alone_and_left_out():
    rows = ablation.list_rows()
    assert len({r.on for r in rows}) == len(rows) == 4 + 2 * len(ablation.SWITCHES)
    assert [r.on for r in rows if r.group == "alone"] == [{name} for name in ablation.SWITCHES]
    assert all(r.on == ablation.IN_2020 - {r.switch} for r in rows if r.group == "all_but")
    half = [r.on for r in rows if r.group == "half"]
    assert not half[0] & half[1]
    assert half[0] | half[1] == ablation.IN_2020
    version = {r.switch: r.on for r in rows if r.group == "version"}
    assert version["today"] - version["2020"] == {"draws"}
    assert version["today"] == set(ablation.SWITCHES)


def test_unknown_switches_are_named():
    with pytest.raises(ValueError, match=r"hmc_steps.*Known: double_softmax"):
        ablation.check_departures({"hmc_steps", "draws"})


def test_combinations_are_all_subsets():
    found = list(ablation.combinations(ablation.IN_2020))
    assert len(set(found)) == len(found) == 64
    assert found[0] == ablation.NONE
    assert found[-1] == ablation.IN_2020
