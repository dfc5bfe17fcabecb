"""What every attack must do: a newcomer in the registry is tested by being there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_adv.attacks import ATTACKS, AttackSettings
from bnn_adv.attacks.base import Attack, Loss
from bnn_adv.attacks.batches import bind
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import L1, L2, THREATS, LInf
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from tests.conftest import random_posterior
from tests.flat import run_attack

NAMES = pytest.mark.parametrize("name", ATTACKS)

# Settings that reach the maximum of a linear objective to rounding, by radius. Steps as long as
# the radius: along a Euclidean ball each one halves the angle that is left.
EXACT = {
    "bim": lambda epsilon: {"num_steps": 40, "step_size": epsilon},
    "mi_fgsm": lambda epsilon: {"num_steps": 40, "step_size": epsilon},
    "pgd": lambda epsilon: {"num_steps": 40, "step_size": epsilon},
    "square": lambda epsilon: {"num_steps": 1500, "stop_on_success": False},
}

# Attacks that see values only, and how often a step asks for them in its program. How near the
# maximum they come is tested apart, but for the square attack.
SEARCHES = {"genetic": 1, "nes": 3, "noise": 1, "corner": 1}


def build_short(name):
    """Few steps: in many, float32 rounding grows until it can be seen."""
    module = ATTACKS[name]
    has_steps = "num_steps" in {field.name for field in dataclasses.fields(module.Config)}
    return module.build(num_steps=5) if has_steps else module.build()


def knows(name, norm):
    norms = ATTACKS[name].build().norms
    return norms is None or norm in norms


def binary_apply(params, x):
    score = x @ params["w"] + params["b"]
    return jnp.stack([-score, score], axis=-1) / 2


def binary_linear(num_samples=1, dim=5, seed=0):
    """Draws of a linear two-class model: logits (-w.x - b, w.x + b) / 2."""
    rng = np.random.default_rng(seed)  # the same function each time: nothing compiles anew
    w = rng.normal(size=(num_samples, dim)).astype(np.float32)
    b = rng.normal(size=num_samples).astype(np.float32)
    return Posterior(binary_apply, {"w": jnp.asarray(w), "b": jnp.asarray(b)}), w, b


def exact_minimum(w, b, x, threat):
    """Smallest w.x' + b over ball and box, in closed form (l2 by bisection on the multiplier)."""
    room = np.where(w > 0, x, 1 - x)
    if isinstance(threat, LInf):
        return w @ x + b - np.sum(np.abs(w) * np.minimum(threat.epsilon, room))
    if isinstance(threat, L1):
        left, fall = threat.epsilon, 0.0
        for index in np.argsort(-np.abs(w)):
            fall += abs(w[index]) * min(left, room[index])
            left -= min(left, room[index])
        return w @ x + b - fall
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        inside = np.linalg.norm(np.minimum(middle * np.abs(w), room)) <= threat.epsilon
        low, high = (middle, high) if inside else (low, middle)
    return w @ x + b - np.sum(np.abs(w) * np.minimum(low * np.abs(w), room))


@NAMES
def test_has_the_members_of_its_siblings(name):
    module = ATTACKS[name]
    attack = module.build()
    assert isinstance(attack, Attack)
    assert attack.name == name
    assert dataclasses.is_dataclass(module.Config)
    assert {"x_adv", "success"} <= set(module.State._fields)
    assert attack.init is module.init
    assert attack.step is module.step
    assert attack == module.build()
    assert hash(attack) == hash(module.build())
    for member in (module, module.Config, module.State, module.init, module.step, module.build):
        assert member.__doc__


# An attack sees an objective's value and gradient only: not every pair needs a test.
@pytest.mark.slow
@pytest.mark.parametrize("threat", [LInf(0.13), L2(0.3), L1(0.8), LInf(3.0), L2(3.0)], ids=str)
@pytest.mark.parametrize(
    ("name", "objective"),
    [*((name, "expected_loss") for name in ATTACKS), ("pgd", "mean_logit_margin")],
)
def test_reaches_the_closed_form_on_a_binary_linear_model(name, threat, objective):
    """Box active: several inputs lie at or near its walls."""
    if not knows(name, threat.norm):
        pytest.skip("not defined for the norm")
    if ATTACKS[name].build().minimises_norm:
        pytest.skip("looks for the nearest input that fools, not for the largest objective")
    posterior, w, b = binary_linear()
    x = np.random.default_rng(1).uniform(size=(12, 5)).astype(np.float32)
    x[:4, 0], x[:4, 1] = 0.0, 1.0
    y = np.ones(12, np.int32)
    adversarial = run_attack(
        jax.random.key(0),
        ATTACKS[name].build(**EXACT.get(name, lambda epsilon: {})(threat.epsilon)),
        OBJECTIVES[objective],
        posterior,
        x,
        y,
        threat=threat,
    )
    reached = adversarial @ w[0] + b[0]
    expected = [exact_minimum(w[0], b[0], row, threat) for row in x]
    assert (reached > np.array(expected) - 2e-6).all()
    if name in SEARCHES:
        assert (reached < x @ w[0] + b[0]).all()
        return
    if (name, threat.norm) == ("square", "l2"):
        return  # Random search meets corners exactly; how near it comes otherwise is tested apart.
    if threat.norm == "l1" and name != "fgsm":
        # Sparse steps of one length end near the corner of the ball, not on it.
        assert (reached < np.array(expected) + 0.1).all()
        return
    np.testing.assert_allclose(reached, expected, atol=2e-6, rtol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "norm", "objective"),
    [
        pytest.param(name, norm, "loss_of_mean", marks=[pytest.mark.slow] * (norm != "linf"))
        for name in ATTACKS
        for norm in THREATS
        if knows(name, norm)
    ]
    + [("pgd", "linf", objective) for objective in OBJECTIVES],
)
def test_stays_in_ball_and_box(name, norm, objective, posterior, batch):
    x, y = batch
    threat = THREATS[norm](0.2)
    adversarial = run_attack(
        jax.random.key(0),
        ATTACKS[name].build(),
        OBJECTIVES[objective],
        posterior,
        x,
        y,
        threat=threat,
        settings=AttackSettings(batch_size=3),
    )
    assert adversarial.dtype == np.float32
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert float(threat.distance(jnp.asarray(adversarial), x).max()) <= 0.2 + 1e-6
    assert not np.array_equal(adversarial, x)


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(
    epsilon=st.sampled_from([0.0, 1e-3, 0.5, 1e4]),
    pair=st.sampled_from([(n, norm) for n in ATTACKS for norm in THREATS if knows(n, norm)]),
    seed=st.integers(0, 1000),
)
def test_any_epsilon(epsilon, pair, seed):
    name, norm = pair
    x = np.random.default_rng(seed).uniform(size=(3, 6)).astype(np.float32)
    # The programs are those of the test above.
    adversarial = run_attack(
        jax.random.key(seed),
        ATTACKS[name].build(),
        OBJECTIVES["loss_of_mean"],
        random_posterior(7),
        x,
        np.zeros(3, np.int32),
        threat=THREATS[norm](epsilon),
        settings=AttackSettings(batch_size=3),
    )
    assert adversarial.dtype == x.dtype
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    distance = THREATS[norm](epsilon).distance(jnp.asarray(adversarial), jnp.asarray(x))
    assert float(distance.max()) <= epsilon + 1e-6
    if epsilon == 0:
        np.testing.assert_array_equal(adversarial, x)


@pytest.mark.slow
@NAMES
def test_results_depend_on_neither_batches_nor_chunks_nor_the_other_images(name, posterior, batch):
    def run(rows, **options):
        return run_attack(
            jax.random.key(3),
            build_short(name),
            OBJECTIVES["expected_loss"],
            posterior,
            batch[0][rows],
            batch[1][rows],
            threat=L2(0.3),
            **options,
            settings=AttackSettings(indices=rows),
        )

    rows = np.arange(len(batch[0]))
    whole = run(rows)
    np.testing.assert_array_equal(run(rows), whole)
    np.testing.assert_allclose(run(rows, batch_size=3, sample_chunk=3), whole, atol=1e-5)
    some = np.array([2, 5])
    np.testing.assert_allclose(run(some, batch_size=3, sample_chunk=3), whole[some], atol=1e-5)


@pytest.mark.slow
@NAMES
def test_steps_are_pure_functions_that_vmap_over_posteriors(name, posterior, batch):
    """Attack each draw by itself under one vmap; equals attacking them one after another."""
    x, y = batch
    attack = build_short(name)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(len(y)))

    def attack_one_draw(params):
        def loss_fn(inputs, target=None):
            sign, aim = (-1, y) if target is None else (1, target)

            def total(z):
                log_p = jax.nn.log_softmax(posterior.apply_fn(params, z))
                value = sign * jnp.take_along_axis(log_p, aim[:, None], 1)[:, 0]
                return value.sum(), (value, log_p)

            gradient, (value, log_p) = jax.grad(total, has_aux=True)(inputs)
            return Loss(value, gradient, jnp.argmax(log_p, -1) != y, log_p)

        def step(_, state):
            return attack.step(keys, state, loss_fn, x, LInf(0.1), attack.config)

        state = attack.init(keys, loss_fn, x, LInf(0.1), attack.config)
        return jax.lax.fori_loop(0, attack.num_steps, step, state).x_adv

    together = jax.jit(jax.vmap(attack_one_draw))(posterior.samples)
    for index in (0, 6):
        alone = run_attack(
            jax.random.key(0),
            attack,
            OBJECTIVES["expected_loss"],
            posterior.take([index]),
            x,
            y,
            threat=LInf(0.1),
        )
        np.testing.assert_allclose(together[index], alone, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SEARCHES, "square"])
def test_a_black_box_compiles_no_backward_pass(name, posterior):
    """Of the matrix products of a step, none are more than those of its forward passes."""
    attack = ATTACKS[name].build()
    assert not attack.uses_gradient
    x, y = jnp.full((64, 6), 0.5), jnp.zeros(64, jnp.int32)
    keys = jax.random.split(jax.random.key(0), 64)
    loss_fn = bind(OBJECTIVES["expected_loss"], posterior, y, jnp.ones((7, 64)), 7)

    def count(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().as_text().count(" dot(")

    threat, config = LInf(0.1), attack.config
    state = jax.eval_shape(lambda: attack.init(keys, loss_fn, x, threat, config))
    products = count(lambda now: attack.step(keys, now, loss_fn, x, threat, config), state)
    forward = count(lambda inputs: loss_fn(inputs).value, x)
    assert 0 < products <= SEARCHES.get(name, 1) * forward


@pytest.mark.slow
def test_the_published_attack_is_blind_on_a_saturated_posterior(saturated):
    """Logits of the order of 1,000: the gradient dies, the attack stays, the margin finds a way."""
    rng = np.random.default_rng(0)
    y = np.arange(40, dtype=np.int32) % 4
    x = rng.uniform(0.2, 0.3, (40, 4)).astype(np.float32)
    x[np.arange(40), y] += 0.45
    threat, key = LInf(0.3), jax.random.key(0)
    pgd = ATTACKS["pgd"]

    def accuracy(attack, objective):
        images = run_attack(key, attack, OBJECTIVES[objective], saturated, x, y, threat=threat)
        return float((jnp.argmax(predict_log_probs(saturated, images), -1) == y).mean())

    published = pgd.build(step_size=2.0, random_start=False, keep="last")
    assert accuracy(published, "published") == 1.0
    assert accuracy(ATTACKS["fgsm"].build(), "published") == 1.0
    assert accuracy(pgd.build(num_steps=40), "mean_logit_margin") == 0.0
    assert accuracy(pgd.build(num_steps=40), "normalised_vote") == 0.0
