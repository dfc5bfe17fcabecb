"""Samplers, and attacks whose gradients are those of new draws at every step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from bnn_adv.attacks import AttackSettings, batches, pgd, square
from bnn_adv.attacks.batches import Batch
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import LInf, random_starts
from bnn_adv.compute import parallel
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs, shard_posterior
from bnn_adv.posteriors.sampler import FreshDraws, Sampler
from tests.flat import run_attack
from tests.unreliable import Unplugged, Unreliable

KEY = jax.random.key(0)
MARGIN = OBJECTIVES["mean_logit_margin"]
MEAN = jnp.asarray([1.0, -2.0, 0.7, -0.6, 1.5])
# The same for most tests, so that they share their programs.
ATTACK = pgd.build(num_steps=20)
THREAT = LInf(0.2)


def binary_apply(params, x):
    score = x @ params["w"]
    return jnp.stack([-score, score], axis=-1) / 2


def draw_weights(mean, scale, rng_key):
    return {"w": mean + scale * jax.random.normal(rng_key, mean.shape)}


def binary(mean=MEAN, scale=1.0):
    """Logits (-w.x, w.x) / 2 with w ~ N(mean, scale^2 I)."""
    return Sampler(binary_apply, Partial(draw_weights, mean, jnp.float32(scale)))


def images(count=20):
    x = np.random.default_rng(1).uniform(0.1, 0.9, (count, 5)).astype(np.float32)
    return x, np.ones(count, np.int32)


def fresh_draws(num_samples=3, held_out=8, **options):
    sampler = binary(**options)
    return FreshDraws(sampler, num_samples, sampler.sample(jax.random.key(5), held_out))


def test_a_sample_is_one_draw_a_key():
    sampler = dataclasses.replace(binary(), precision="bfloat16")
    posterior = sampler(KEY, 4)
    assert posterior.precision == "bfloat16"
    assert posterior.apply_fn is binary_apply
    one_by_one = [sampler.draw(key)["w"] for key in jax.random.split(KEY, 4)]
    np.testing.assert_array_equal(posterior.samples["w"], np.stack(one_by_one))
    shapes = sampler.shapes(4)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, posterior)


def test_one_program_serves_all_keys_and_all_bound_arrays():
    traces = []

    @jax.jit
    def predict(rng_key, sampler, x):
        traces.append(x.shape)
        return predict_log_probs(sampler.sample(rng_key, 3), x)

    x, _ = images()
    first = predict(KEY, binary(), x)
    assert not np.array_equal(predict(jax.random.key(1), binary(), x), first)
    assert not np.array_equal(predict(KEY, binary(MEAN + 1), x), first)
    np.testing.assert_array_equal(predict(KEY, binary(), x), first)
    assert len(traces) == 1


def test_a_plain_function_draws_as_well():
    plain = Sampler(binary_apply, lambda key: draw_weights(MEAN, 1.0, key))
    drawn = jax.jit(lambda sampler, key: sampler.sample(key, 2).samples)(plain, KEY)
    np.testing.assert_allclose(drawn["w"], binary()(KEY, 2).samples["w"], rtol=1e-6)


@pytest.mark.slow
def test_dropout_is_a_draw_of_its_key():
    """Logits of a linear layer behind dropout: their mean is the layer's without dropout."""

    def draw(weights, rng_key):
        return {"weights": weights, "key": rng_key}

    def apply_fn(params, x):
        kept = jax.random.bernoulli(params["key"], 0.75, x.shape)
        return binary_apply({"w": params["weights"]}, kept * x / 0.75)

    x, y = images()
    sampler = Sampler(apply_fn, Partial(draw, MEAN))
    posterior = sampler.sample(KEY, 2000)
    logits = jax.vmap(lambda one: apply_fn(one, x))(posterior.samples)
    error = logits.std(axis=0) / np.sqrt(2000)
    assert (np.abs(logits.mean(axis=0) - binary_apply({"w": MEAN}, x)) < 5 * error).all()
    fresh = FreshDraws(sampler, 3, posterior.take(np.arange(8)))
    moved = run_attack(KEY, ATTACK, MARGIN, fresh, x, y, threat=THREAT)
    assert (moved @ np.asarray(MEAN) < x @ np.asarray(MEAN)).all()


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["mean_logit_margin", "scaled_margin"])
def test_every_step_follows_the_gradient_of_its_own_new_draws(objective):
    """The gradient is -mean(w_s), or -mean(2 w_s / |w_s.x|), at x clean, of the step's draws."""
    x, y = images(32)
    fresh, key = fresh_draws(), jax.random.key(11)
    batch = Batch(jax.random.split(KEY, 32), x, y, LInf(np.full(32, 0.1, np.float32)), key)
    static = ATTACK, OBJECTIVES[objective], 1
    state, scales, _ = batches.start(fresh, batch, *static)
    assert scales.shape == (8, 32)

    def expected(number):
        w = np.asarray(fresh.sampler(jax.random.fold_in(key, number), 3).samples["w"])
        if objective == "mean_logit_margin":
            return np.broadcast_to(-w.mean(axis=0), x.shape)
        return -(2 * w[None] / np.abs(x @ w.T)[:, :, None]).mean(axis=1)

    np.testing.assert_allclose(state.gradient, expected(0), rtol=1e-4, atol=1e-5)
    # Step numbers count from the start of the attack, however its steps are cut into calls.
    for first, count in ((0, 3), (3, 1), (4, 2)):
        state, _ = batches.advance(fresh, batch, state, scales, (first, count), *static)
        np.testing.assert_allclose(state.gradient, expected(first + count), rtol=1e-4, atol=1e-5)
    assert not np.allclose(expected(5), expected(6), rtol=0.1)


@pytest.mark.slow
def test_held_out_draws_judge_and_new_ones_lead():
    """They disagree about the direction: what the new draws raise, the held-out ones lower."""
    x, y = images()
    sampler = binary(scale=0.0)
    against = FreshDraws(sampler, 3, binary(-MEAN, 0.0)(KEY, 8))
    run = functools.partial(
        run_attack, KEY, objective=MARGIN, posterior=against, x=x, y=y, threat=THREAT
    )
    corner = np.clip(x - 0.2 * np.sign(MEAN), 0, 1)
    last = run(pgd.build(num_steps=20, keep="last"))
    np.testing.assert_allclose(last, corner, atol=1e-6)
    start = random_starts(THREAT, batches.derive_keys(KEY, np.arange(20)), jnp.asarray(x))
    np.testing.assert_array_equal(run(ATTACK), start)
    # Random search asks for values only, and climbs those of the held-out draws.
    searched = run(square.build(num_steps=100, stop_on_success=False))
    assert ((searched - x) @ np.asarray(MEAN) > 0.3).all()


@pytest.mark.slow
def test_results_depend_on_key_and_index_alone():
    x, y = images()
    run = functools.partial(run_attack, KEY, ATTACK, MARGIN, fresh_draws(), threat=THREAT)
    whole = run(x, y)
    np.testing.assert_array_equal(run(x, y), whole)
    np.testing.assert_array_equal(run(x, y, batch_size=8, sample_chunk=3), whole)
    rows = np.arange(3, 20)
    np.testing.assert_array_equal(run(x[rows], y[rows], indices=rows), whole[rows])


@pytest.mark.slow
def test_fooled_images_leave_the_batch():
    """By the held-out draws' verdict; what is left goes on with the same draws as alone."""
    x, y = images(32)
    x = 0.5 + 0.1 * (x - 0.5)
    x[::4] = np.where(MEAN > 0, 0.9, 0.1) + x[::4] - 0.5
    fresh = fresh_draws(num_samples=8)
    attack = pgd.build(num_steps=20, stop_on_success=True)
    run = functools.partial(run_attack, KEY, attack, MARGIN, fresh, threat=THREAT)
    whole = run(x, y, batch_size=32)
    stands = np.argmax(predict_log_probs(fresh.held_out, whole), -1) == y
    assert 0 < stands.sum() <= 8
    for row in (1, int(np.flatnonzero(stands)[0])):
        alone = run(x[row : row + 1], y[row : row + 1], indices=[row])
        np.testing.assert_allclose(alone[0], whole[row], atol=1e-5)


def test_an_interrupted_attack_goes_on_bit_for_bit(tmp_path):
    x, y = images()

    def run(checkpoints=None, num_samples=3):
        fresh = fresh_draws(num_samples)
        how = {"threat": THREAT, "checkpoints": checkpoints}
        return run_attack(KEY, ATTACK, MARGIN, fresh, x, y, **how)

    with pytest.raises(Unplugged):
        run(Unreliable(tmp_path, ticks=2, every_steps=1))
    with pytest.raises(ValueError, match=r"something else.*3 new draws.*4 new draws"):
        run(Unreliable(tmp_path, ticks=99, every_steps=1), num_samples=4)
    np.testing.assert_array_equal(run(Unreliable(tmp_path, ticks=99, every_steps=1)), run())


@pytest.mark.slow
def test_a_mesh_gives_what_one_device_gives():
    x, y = images()
    mesh = parallel.make_mesh("draws:2,data:2")
    fresh = fresh_draws()
    run = functools.partial(run_attack, KEY, ATTACK, MARGIN, threat=THREAT)
    one = run(fresh, x, y)
    spread = FreshDraws(fresh.sampler, 3, shard_posterior(fresh.held_out, mesh))
    np.testing.assert_allclose(run(spread, x, y, mesh=mesh), one, atol=1e-6)


def test_numbers_of_draws_are_checked():
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        binary().sample(KEY, 0)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got -1"):
        FreshDraws(binary(), -1, binary()(KEY, 2))
    x, y = images(2)
    with pytest.raises(ValueError, match=r"sample_chunk.*got 0"):
        run_attack(
            KEY,
            pgd.build(),
            MARGIN,
            fresh_draws(),
            x,
            y,
            threat=LInf(0.1),
            settings=AttackSettings(sample_chunk=0),
        )


def test_posteriors_are_no_samplers_and_are_attacked_as_before():
    """A sampler without randomness is attacked as the posterior of its one draw is."""
    x, y = images()
    one = {"w": MEAN[None]}
    run = functools.partial(run_attack, KEY, ATTACK, MARGIN, threat=THREAT)
    frozen = run(Posterior(binary_apply, one), x, y)
    fresh = run(fresh_draws(scale=0.0), x, y)
    np.testing.assert_allclose(fresh, frozen, atol=1e-6)
