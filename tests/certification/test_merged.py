"""Intervals whose last affine steps are merged with the differences of logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bnn_adv
from bnn_adv.certification import referee_balls, referee_bounds, referee_network
from bnn_adv.posteriors.posterior import Posterior

UNITS, CLASSES, DRAWS = 5, 3, 2


def network(draw, x):
    hidden = jax.nn.relu(x @ draw["a"] + draw["b"])
    return hidden @ draw["c"] + draw["d"]


def posterior_of(seed, rule):
    rng = np.random.default_rng(seed)
    shapes = {"a": (4, UNITS), "b": (UNITS,), "c": (UNITS, CLASSES), "d": (CLASSES,)}
    draws = {k: rng.normal(size=(DRAWS, *s)).astype(np.float32) for k, s in shapes.items()}
    return Posterior(network, jax.tree.map(jnp.asarray, draws), decision_rule=rule)


def smallest_difference(posterior, x, y, epsilon):
    """Smallest mean over draws of ``z_y - z_k`` with hidden units in their intervals."""
    total = np.zeros(CLASSES)
    for s in range(DRAWS):
        a, b, c, d = (np.asarray(posterior.samples[k][s], np.float64) for k in "abcd")
        low, high = np.maximum(x - epsilon, 0.0), np.minimum(x + epsilon, 1.0)
        centre, radius = (low + high) / 2 @ a + b, (high - low) / 2 @ np.abs(a)
        low, high = np.maximum(centre - radius, 0), np.maximum(centre + radius, 0)
        rows = c[:, [y]] - c
        total += np.minimum(rows * low[:, None], rows * high[:, None]).sum(0) + d[y] - d
    return np.delete(total / DRAWS, y).min()


@pytest.mark.parametrize("seed", [0, 1])
def test_margins_of_intervals_are_those_of_the_merged_layer(seed, tmp_path):
    posterior = posterior_of(seed, "mean_logits")
    x = np.random.default_rng(seed + 9).uniform(0, 1, (6, 4)).astype(np.float32)
    logits = jax.vmap(network, (0, None))(posterior.samples, x)
    y = np.asarray(logits.mean(axis=0).argmax(axis=-1))
    threat = bnn_adv.LInf(0.03)
    found = {
        method: bnn_adv.certify(
            posterior, x, y, threat=threat, settings=bnn_adv.CertificationSettings(method=method)
        )
        for method in ("ibp", "crown-ibp")
    }
    expected = [smallest_difference(posterior, *pair, 0.03) for pair in zip(x, y, strict=True)]
    assert (found["ibp"].margin <= expected).all()
    np.testing.assert_allclose(found["ibp"].margin, expected, atol=2e-5)
    # Lines may be looser than intervals; both count.
    assert (found["crown-ibp"].margin >= found["ibp"].margin - 1e-12).all()
    found["ibp"].save(tmp_path / "certificate.npz")
    assert found["ibp"].certified.any()
    bnn_adv.verify_certificate(tmp_path / "certificate.npz", posterior)


@pytest.mark.parametrize("method", ["ibp", "crown-ibp"])
def test_what_logits_share_cancels(method):
    """Logits that differ by their bias alone are never turned round, however wide the ball."""
    samples = dict(posterior_of(3, "mean_probabilities").samples)
    samples["c"] = jnp.broadcast_to(samples["c"][..., :1], samples["c"].shape)
    samples["d"] = jnp.tile(jnp.array([0.0, 1.0, 0.0]), (DRAWS, 1))
    posterior = Posterior(network, samples)
    x, y = np.full((1, 4), 0.5, np.float32), np.array([1])
    settings = bnn_adv.CertificationSettings(method=method)
    found = bnn_adv.certify(posterior, x, y, threat=bnn_adv.LInf(0.5), settings=settings)
    gap = (np.e - 1) / (np.e + 2)
    np.testing.assert_allclose(found.alone, gap, atol=1e-4)
    assert found.certified.all()


def test_intervals_count_where_lines_are_looser(tmp_path):
    """A unit that may be on or off adds at least zero; the line below it falls under that."""
    samples = dict(posterior_of(4, "mean_logits").samples)
    samples["b"] = 0.2 - 0.5 * samples["a"].sum(axis=1)
    samples["c"] = jnp.zeros_like(samples["c"]).at[..., 1].set(1.0).at[:, :2, 0].set(0.9)
    samples["d"] = jnp.tile(jnp.array([0.0, 0.1, 0.0]), (DRAWS, 1))
    posterior = Posterior(network, samples, decision_rule="mean_logits")
    x, y = np.full((1, 4), 0.5, np.float32), np.array([1])
    settings = bnn_adv.CertificationSettings(method="crown")
    found = bnn_adv.certify(posterior, x, y, threat=bnn_adv.LInf(0.3), settings=settings)
    assert found.certified.all()
    np.testing.assert_allclose(found.margin, 0.1, atol=1e-4)
    found.save(tmp_path / "certificate.npz")
    bnn_adv.verify_certificate(tmp_path / "certificate.npz", posterior)


def test_the_referee_merges_the_last_layer_too():
    """By its own reading of the network: at most the exact intervals', and about that."""
    posterior = posterior_of(5, "mean_logits")
    draw = jax.tree.map(lambda w: w[0], posterior.samples)
    x = np.random.default_rng(6).uniform(0, 1, (3, 4)).astype(np.float32)
    ball = referee_balls.open_ball("linf", x, np.full(3, 0.05), (0.0, 1.0))
    read = referee_network.read(referee_network.trace(network, draw, (4,)), draw, (4,))
    bounds = referee_bounds.bound(read, ball, is_linear=False, most_rows=0)
    rows = np.eye(CLASSES)[[0]] - np.eye(CLASSES)
    found = referee_bounds.minimise_merged(read, bounds, rows[None])
    one = Posterior(network, jax.tree.map(lambda w: jnp.stack([w[0]] * DRAWS), posterior.samples))
    for i in range(3):
        expected = smallest_difference(one, x[i], 0, 0.05)
        assert expected - 2e-5 <= found[i, 1:].min() <= expected
