"""Objectives against naive reference implementations over all draws at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_adv.attacks import objectives
from bnn_adv.attacks.objectives import OBJECTIVES, Aim, value_and_gradient
from bnn_adv.posteriors.posterior import Posterior

evaluate = jax.jit(value_and_gradient, static_argnums=0, static_argnames="sample_chunk")


def bias_apply(params, x):
    return params + 0 * x.sum(-1, keepdims=True)


def all_logits(posterior, x):
    return jax.vmap(lambda params: posterior.apply_fn(params, x))(posterior.samples)


def one_margin(scores, label):
    return jnp.max(jnp.where(jnp.arange(scores.size) == label, -jnp.inf, scores)) - scores[label]


def naive_value(name, posterior, x, label, scales):
    """Write down each definition for one input and all draws, equation by equation."""
    z = all_logits(posterior, x[None])[:, 0]
    log_p = jax.nn.log_softmax(z)
    lbar = jax.nn.logsumexp(log_p, axis=0) - jnp.log(z.shape[0])
    margins = jnp.stack([one_margin(row, label) for row in z])
    if name == "expected_loss":
        return -log_p[:, label].mean()
    if name == "loss_of_mean":
        return -lbar[label]
    if name == "mean_logit_margin":
        return one_margin(z.mean(axis=0), label)
    if name == "scaled_margin":
        return (margins / scales).mean()
    if name == "normalised_vote":
        return margins.mean()
    if name == "log_predictive_margin":
        return one_margin(lbar, label)
    if name == "dlr":
        ordered = jnp.sort(lbar)[::-1]
        ratio = one_margin(lbar, label) / (ordered[0] - ordered[2])
        return jnp.where(lbar[label] > ordered[2], ratio, one_margin(lbar, label))
    if name == "published":
        return -jax.nn.log_softmax(jnp.exp(log_p).mean(axis=0))[label]
    raise AssertionError(f"no reference for {name}: write one")


def naive_gradient(name, posterior, x, label, scales):
    if name != "normalised_vote":
        return jax.grad(lambda row: naive_value(name, posterior, row, label, scales))(x)
    votes = []
    for index in range(posterior.num_samples):
        one = posterior.take([index])
        gradient = jax.grad(lambda row, p=one: one_margin(all_logits(p, row[None])[0, 0], label))(x)
        votes.append(gradient / jnp.linalg.norm(gradient))
    return jnp.stack(votes).mean(axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_streamed_equals_naive(name, posterior, batch):
    """For any chunk: one that divides the draws, ones that leave a rest, all at once."""
    x, y = batch
    scales = objectives.compute_scales(OBJECTIVES[name], posterior, x)

    @jax.jit
    def naive(x, y, scales):
        per_image = jax.vmap(lambda *image: naive_value(name, posterior, *image), (0, 0, 1))
        gradient = jax.vmap(lambda *image: naive_gradient(name, posterior, *image), (0, 0, 1))
        return per_image(x, y, scales), gradient(x, y, scales)

    value, gradient = naive(x, y, scales)
    expected = jax.nn.logsumexp(jax.nn.log_softmax(all_logits(posterior, x)), axis=0) - np.log(7)
    for chunk in (1, 2, 3, 7):
        found = evaluate(OBJECTIVES[name], posterior, x, y, scales=scales, sample_chunk=chunk)
        np.testing.assert_allclose(found.value, value, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(found.gradient, gradient, rtol=2e-4, atol=2e-6)
        np.testing.assert_allclose(found.log_probs, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_float64_agrees_with_float32(name, posterior, batch):
    x, y = batch
    single = evaluate(OBJECTIVES[name], posterior, x, y)
    with jax.enable_x64(True):
        samples = jax.tree.map(lambda w: jnp.asarray(np.asarray(w), jnp.float64), posterior.samples)
        x64 = jnp.asarray(np.asarray(x), jnp.float64)
        step = 1e-6 * np.random.default_rng(0).normal(size=x.shape)
        wide = Posterior(posterior.apply_fn, samples)
        scales = objectives.compute_scales(OBJECTIVES[name], wide, x64)
        double, ahead, behind = (
            evaluate(OBJECTIVES[name], wide, x64 + s, y, scales=scales, sample_chunk=2)
            for s in (0 * step, step, -step)
        )
        assert double.gradient.dtype == jnp.float64
        gradient = np.asarray(double.gradient)
        slope = np.sum(gradient * step, axis=-1)
        change = np.asarray(ahead.value - behind.value) / 2
    np.testing.assert_allclose(single.gradient, gradient, rtol=1e-3, atol=1e-5)
    if not OBJECTIVES[name].normalise:  # the vote follows a direction that is no gradient
        np.testing.assert_allclose(change, slope, rtol=1e-4, atol=1e-12)


def test_expected_gradient_is_mean_of_draws_gradients(posterior, batch):
    x, y = batch
    whole = evaluate(OBJECTIVES["expected_loss"], posterior, x, y)
    parts = [
        evaluate(OBJECTIVES["expected_loss"], posterior.take([s]), x, y).gradient
        for s in range(posterior.num_samples)
    ]
    np.testing.assert_allclose(whole.gradient, np.mean(parts, axis=0), rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(
    logits=st.lists(
        st.lists(st.floats(-2000, 2000, width=32), min_size=10, max_size=10),
        min_size=1,
        max_size=4,
    ),
    label=st.integers(0, 9),
)
def test_published_loss_is_confined(logits, label):
    """Its input is a probability vector: log(9 + e) - 1 <= loss <= log(9 + e) for 10 classes."""
    bias_only = Posterior(bias_apply, np.asarray(logits, np.float32))
    y = np.asarray([label], np.int32)
    value = evaluate(OBJECTIVES["published"], bias_only, np.zeros((1, 3), np.float32), y).value[0]
    assert 1.4611 < value < 2.4612


@pytest.mark.slow
def test_log_space_objectives_are_finite_with_gaps_of_800():
    samples = jnp.asarray([[800.0, 0.0, -800.0], [700.0, 0.0, -900.0]])
    extreme = Posterior(lambda params, x: params * x.sum(-1, keepdims=True), samples)
    x, y = jnp.asarray([[0.5, 0.5]]), jnp.asarray([0])
    for name in ("log_predictive_margin", "loss_of_mean", "mean_logit_margin", "expected_loss"):
        found = evaluate(OBJECTIVES[name], extreme, x, y)
        assert bool(jnp.isfinite(found.value).all() & jnp.isfinite(found.gradient).all()), name
    margin = evaluate(OBJECTIVES["log_predictive_margin"], extreme, x, y)
    # lbar_1 - lbar_0 is dominated by the draw with the smaller gap: exactly -700 - log 2.
    np.testing.assert_allclose(margin.value, [-700 - np.log(2)], rtol=1e-6)


def test_normalised_vote_gives_draws_of_any_scale_one_vote():
    weights = jnp.asarray([[[0.0, 1000.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.001]]])
    two = Posterior(lambda params, x: x @ params, weights)
    found = evaluate(
        OBJECTIVES["normalised_vote"], two, jnp.asarray([[0.3, 0.6]]), jnp.asarray([0])
    )
    np.testing.assert_allclose(found.gradient, [[0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize(("classes", "label"), [(2, 0), (3, 1), (5, 4)])
def test_dlr_falls_back_to_the_margin(classes, label):
    """Fewer than four classes, or a label that ranks third or lower."""
    scores = jnp.arange(classes, 0, -1, dtype=jnp.float32)[None] ** 2
    aim = Aim(jnp.asarray([label]))
    np.testing.assert_array_equal(objectives.dlr(scores, aim), objectives.margin(scores, aim))


NAMES = ("expected_loss", "mean_logit_margin", "log_predictive_margin", "dlr", "loss_of_mean")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_target_pulls_towards_its_class(name, posterior, batch):
    """Written down anew for every image and its class: value, and gradient by jax.grad."""
    x, y = batch
    target = (y + 1 + jnp.arange(len(y)) % 3) % 4

    def naive(row, label, to):
        z = all_logits(posterior, row[None])[:, 0]
        log_p = jax.nn.log_softmax(z)
        lbar = jax.nn.logsumexp(log_p, axis=0) - jnp.log(z.shape[0])
        gap = lbar[to] - lbar[label]
        top = jnp.sort(lbar)[::-1]
        ratio = gap / (top[0] - (top[2] + top[3]) / 2)
        return {
            "expected_loss": log_p[:, to].mean(),
            "mean_logit_margin": z.mean(0)[to] - z.mean(0)[label],
            "log_predictive_margin": gap,
            "dlr": jnp.where(lbar[label] > top[2], ratio, gap),
            "loss_of_mean": lbar[to],
        }[name]

    found = evaluate(OBJECTIVES[name], posterior, x, y, target=target, sample_chunk=2)
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(naive)))(x, y, target)
    np.testing.assert_allclose(found.value, value, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(found.gradient, gradient, rtol=2e-4, atol=2e-6)


def test_chunk_larger_than_draws_is_refused(posterior, batch):
    with pytest.raises(ValueError, match="number of draws \\(7\\), got 8"):
        value_and_gradient(OBJECTIVES["expected_loss"], posterior, *batch, sample_chunk=8)


def test_unknown_objective_lists_the_known():
    with pytest.raises(ValueError, match=r"'loss'.*expected_loss"):
        objectives.get_objective("loss")
