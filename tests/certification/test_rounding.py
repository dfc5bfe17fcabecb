"""What float32 may take from a margin: no more than can reach it, and never less than it does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bnn_adv
from bnn_adv.certification.predictive import mean_rounding
from bnn_adv.certification.settings import CertificationSettings

SETTINGS = CertificationSettings(method="ibp", num_halvings=0)


def certify(posterior, x, y, tmp_path, epsilon=0.0):
    """Return a certificate, each of whose claims the referee confirms."""
    found = bnn_adv.certify(posterior, x, y, threat=bnn_adv.LInf(epsilon), settings=SETTINGS)
    found.save(tmp_path / "certificate.npz")
    verified = bnn_adv.verify_certificate(tmp_path / "certificate.npz", posterior)
    verified.check()
    return found


def with_dead_units(params, x):
    alive, dead = (jax.nn.relu(x @ params[name] + params["b" + name]) for name in ("w", "v"))
    return jnp.concatenate([alive, dead], axis=1) @ params["u"]


def test_activations_that_are_off_pass_no_rounding_on(tmp_path):
    """However large their weights are, before and after."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.3, 1, size=(1, 8)).astype(np.float32)
    draw = {
        "w": rng.uniform(size=(8, 6)),
        "bw": np.zeros(6),
        "v": -1e4 * rng.uniform(size=(8, 6)),
        "bv": np.full(6, -1.0),
        "u": np.concatenate([rng.normal(size=(6, 3)), 1e4 * rng.normal(size=(6, 3))]),
    }

    def rounding_of(draw):
        draw = {name: jnp.asarray(value, jnp.float32) for name, value in draw.items()}
        params = {name: value[None] for name, value in draw.items()}
        posterior = bnn_adv.Posterior(with_dead_units, params, decision_rule="mean_logits")
        y = np.asarray(with_dead_units(draw, x)).argmax(axis=1)
        found = certify(posterior, x, y, tmp_path, epsilon=0.01)
        assert found.certified.all()
        return found.rounding[0]

    off = rounding_of(draw)
    assert off < 1e-4
    # Where they are on, errors of all these weights count.
    assert rounding_of(draw | {"bv": np.full(6, 4e4)}) > 1e6 * off


def test_an_input_that_overflows_leaves_the_others_alone(tmp_path):
    """Of it nothing is certified, and the file of all is read and confirmed."""

    def overflows(params, x):
        return x @ params["w"] + jax.nn.relu(x @ params["v"] - 1.0) @ params["u"]

    params = {
        "w": jnp.array([[[1.0, -1.0]]]),
        "v": jnp.full((1, 1, 4), -3e38),
        "u": jnp.full((1, 4, 2), 3e38),
    }
    x = np.array([[0.2], [0.9]], np.float32)
    found = certify(bnn_adv.Posterior(overflows, params), x, np.zeros(2, int), tmp_path, 0.01)
    assert found.clean_correct.all()
    assert found.certified.tolist() == [True, False]
    assert found.rounding[1] == np.inf
    assert found.least[1] == -np.inf


def one_unit(params, x):
    return jax.nn.relu(x @ params["w"] + params["b"]) @ params["u"]


@pytest.mark.parametrize(("below", "may_be_on"), [(0.05, True), (0.6, False)])
def test_an_activation_that_rounding_may_turn_on_passes_it_on(below, may_be_on, tmp_path):
    """It is off in real arithmetic, by less than its sum may be off."""
    x, y = np.ones((1, 64), np.float32), np.zeros(1, int)
    w = np.broadcast_to(cancelling(0.0)["w"][0, :, :2], (64, 2))
    u = np.array([[0.0, 1e3, 0.0], [0.0, 0.0, 0.0]])
    draw = {"w": w, "b": np.full(2, -below), "u": u}
    params = {name: jnp.asarray(value[None], jnp.float32) for name, value in draw.items()}
    posterior = bnn_adv.Posterior(one_unit, params, decision_rule="mean_logits")
    found = certify(posterior, x, y, tmp_path)
    error = 66 * 2.0**-24 * 57600
    if may_be_on:
        assert found.rounding[0] > 1e3 * (error - below)
    else:
        assert found.rounding[0] < 1e-3


@pytest.mark.parametrize(("share", "is_certified"), [(0.5, False), (2.0, True)])
def test_adding_up_many_draws_is_allowed_for(share, is_certified, tmp_path):
    """Also where no logit is off by anything to speak of."""
    allowed = float(mean_rounding(2, 600, jnp.zeros(())))
    # The difference of two probabilities is half that of their logits.
    b = np.broadcast_to(np.array([2 * share * allowed, 0.0], np.float32), (600, 2))
    params = {"w": jnp.zeros((600, 1, 2)), "b": jnp.asarray(b)}
    found = certify(
        bnn_adv.Posterior(affine, params), np.ones((1, 1), np.float32), np.zeros(1, int), tmp_path
    )
    assert found.margin[0] == pytest.approx(share * allowed, rel=1e-3)
    assert found.certified[0] == is_certified


def affine(params, x):
    return x @ params["w"] + params["b"]


def cancelling(gap, num_classes=10, size=64):
    """Return weights, [1, size, C], of ones that cancel to equal logits but for the first class."""
    signs = np.where(np.arange(size) % 2, -1.0, 1.0)
    w = np.broadcast_to(900.0 * signs[:, None], (size, num_classes)).astype(np.float32)
    b = np.zeros(num_classes, np.float32)
    b[0] = gap
    return {"w": jnp.asarray(w[None]), "b": jnp.asarray(b[None])}


@pytest.mark.parametrize(("gap", "is_certified"), [(0.75, True), (0.3, False)])
def test_small_probabilities_move_less_than_logits(gap, is_certified, tmp_path):
    """A logit may be off by more than ten probabilities differ; their order stays."""
    x, y = np.ones((1, 64), np.float32), np.zeros(1, int)
    params = cancelling(gap)
    found = certify(bnn_adv.Posterior(affine, params), x, y, tmp_path)
    # Each logit adds up 64 products and a bias of 57,600 in all.
    error = 66 * 2.0**-24 * 57600
    margin = (np.exp(gap) - 1) / (np.exp(gap) + 9)
    assert found.margin[0] == pytest.approx(margin, rel=1e-6)
    assert margin < error
    assert found.certified[0] == is_certified
    assert is_certified == (gap > 2 * error)


def test_no_order_of_sums_takes_more_than_is_allowed_for(tmp_path):
    """Sums as bad as float32's may be: all large terms of one sign come first."""
    x, y = np.ones((1, 64), np.float32), np.zeros(1, int)
    rng = np.random.default_rng(3)
    w = (900 * rng.normal(size=(64, 10))).astype(np.float32)
    w[-1] -= w.astype(np.float64).sum(axis=0).astype(np.float32)
    params = {"w": jnp.asarray(w[None]), "b": jnp.asarray(cancelling(2.0)["b"])}
    found = certify(bnn_adv.Posterior(affine, params), x, y, tmp_path)

    def margin_of(order):
        logits = np.zeros(10, np.float32)
        for j in range(10):
            for i in order[j]:
                logits[j] = np.float32(logits[j] + w[i, j])
        logits = (logits + np.asarray(params["b"][0])).astype(np.float64)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        return p[0] - np.delete(p, 0).max()

    worst = [np.argsort(w[:, 0]), *(np.argsort(-w[:, j]) for j in range(1, 10))]
    orders = [worst, *([rng.permutation(64) for _ in range(10)] for _ in range(50))]
    taken = found.margin[0] - min(margin_of(order) for order in orders)
    assert 0 < taken <= found.rounding[0]
