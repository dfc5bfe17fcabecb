"""Certificates of predictors that draw anew: their bounds hold as often as they say."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.tree_util import Partial

import bnn_adv
from bnn_adv.certification import CertificationError
from bnn_adv.certification.concentration import bernstein_lower, clopper_pearson_lower
from bnn_adv.certification.fresh import conclude_counts
from bnn_adv.certification.fresh_draws import Counted, Totals
from bnn_adv.compute import files

EPSILON, SPREAD = 0.1, 1.5
CENTRE = np.array([1.0, -0.4])
X = np.array([[0.5, 0.5], [0.9, 0.2], [0.2, 0.9]], np.float32)
Y = np.array([0, 0, 1])
IBP = bnn_adv.FreshCertificationSettings(method="ibp", sample_chunk=4)


def draw(centre, rng_key):
    return {"w": centre + SPREAD * jax.random.normal(rng_key, (2,), jnp.float32)}


def draw_often_nothing(centre, rng_key):
    found = draw(centre, rng_key)
    return {"w": jnp.where(found["w"][0] < centre[0], jnp.nan, found["w"])}


def apply_fn(params, x):
    """Two logits whose difference is ``w x``."""
    return jnp.stack([x @ params["w"], jnp.zeros(len(x))], axis=1)


def sampler_of(draw_fn=draw, **options):
    return bnn_adv.Sampler(apply_fn, Partial(draw_fn, jnp.asarray(CENTRE, jnp.float32)), **options)


def certify(seed=0, sampler=None, settings=IBP, num_samples=30, **options):
    return bnn_adv.certify_fresh(
        sampler or sampler_of(),
        X,
        Y,
        threat=bnn_adv.LInf(EPSILON),
        num_samples=num_samples,
        rng_key=jax.random.key(seed),
        settings=settings,
        **options,
    )


def smallest_gaps(w):
    """Return the smallest ``w x'`` times the label's sign over each ball, [S, N]: at a corner."""
    sign = np.where(Y == 0, 1.0, -1.0)
    return sign * (w @ X.T) - EPSILON * np.abs(w).sum(axis=1, keepdims=True)


def true_expectations():
    """Return ``min_x E tanh(w x / 2)`` over each ball: Gaussian, by quadrature on a grid of x."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    sides = np.linspace(-EPSILON, EPSILON, 21)
    moved = X[:, None] + np.array(list(itertools.product(sides, sides)))
    mean = moved @ CENTRE
    spread = SPREAD * np.linalg.norm(moved, axis=-1)
    values = np.tanh((mean[..., None] + spread[..., None] * nodes) / 2) @ weights
    values /= weights.sum()
    return (np.where(Y == 0, 1.0, -1.0)[:, None] * values).min(axis=1)


def count_by_numpy(w):
    gaps = smallest_gaps(w)
    values = np.zeros((*gaps.shape, 2))
    values[:, np.arange(len(Y)), 1 - Y] = np.tanh(gaps / 2)
    safe = gaps > 0
    return Counted(
        Totals(values.sum(axis=0), (values**2).sum(axis=0)),
        safe.sum(axis=0),
        safe.sum(axis=0),
        safe.sum(axis=1),
    )


def test_bernstein_by_hand():
    values = np.array([-1.0, 0.0, 0.5, 1.0])
    log_term = np.log(2 / 0.1)
    variance = np.var(values, ddof=1)
    wanted = 0.125 - np.sqrt(2 * variance * log_term / 4) - 7 * 2 * log_term / (3 * 3)
    found = bernstein_lower(values.sum(), (values**2).sum(), 4, delta=0.1, width=2.0)
    assert found == pytest.approx(wanted, abs=1e-12)
    assert found < wanted
    # Of equal numbers rounding leaves no negative variance.
    many = bernstein_lower(1e6 * 0.7, 1e6 * 0.7**2 * (1 - 1e-14), 10**6, delta=0.1, width=2.0)
    assert many == pytest.approx(0.7, abs=1e-4)


def test_clopper_pearson_is_scipys():
    counts = np.arange(21)
    found = clopper_pearson_lower(counts, 20, delta=0.03)
    for k in counts:
        test = scipy.stats.binomtest(int(k), 20, alternative="greater")
        assert found[k] == pytest.approx(test.proportion_ci(0.97, "exact").low, abs=1e-9)


@pytest.mark.parametrize("num_samples", [3, 12, 60])
def test_bounds_are_violated_as_seldom_as_they_say(num_samples):
    """2,000 samples each; what is violated more often than it says fails by four deviations."""
    rng, delta, trials = np.random.default_rng(num_samples), 0.2, 2000
    many = smallest_gaps(CENTRE + SPREAD * rng.normal(size=(400_000, 2)))
    truth = {"margin": true_expectations(), "safe": (many > 0).mean(axis=0)}
    accuracy = float((many > 0).mean())
    wrong = {"margin": [], "safe": [], "draw": [], "margins": [], "safes": [], "plain": []}
    for _ in range(trials):
        counted = count_by_numpy(CENTRE + SPREAD * rng.normal(size=(num_samples, 2)))
        found = conclude_counts(counted, Y, num_samples, 1 - delta)
        for name in ("margin", "safe"):
            wrong[name].append(found[name] > truth[name])
            wrong[f"{name}s"].append(np.any(found[f"{name}_together"] > truth[name]))
        wrong["draw"].append(found["draw_accuracy"] > accuracy)
        own = counted.totals.gaps[np.arange(3), 1 - Y] / num_samples
        wrong["plain"].append(own > truth["margin"])
    most = delta + 4 * np.sqrt(delta * (1 - delta) / trials)
    shares = {name: np.mean(values, axis=0).max() for name, values in wrong.items()}
    plain = shares.pop("plain")
    assert all(share <= most for share in shares.values()), shares
    # The test can tell: Clopper's and Pearson's bound is nearly reached, and a mean is no bound.
    assert shares["safe"] > 0.02
    assert plain > 0.25


def test_draws_are_counted_as_numpy_does():
    cert = certify(seed=5)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(5), jnp.arange(30))
    w = np.asarray(jax.vmap(sampler_of().draw)(keys)["w"], np.float64)
    counted = count_by_numpy(w)
    wanted = conclude_counts(counted, Y, 30, 0.95)
    np.testing.assert_array_equal(cert.num_safe, counted.num_safe)
    signed = np.where(Y == 0, 1, -1) * (w @ X.T)
    np.testing.assert_array_equal(cert.num_right, (signed > 0).sum(axis=0))
    for name in ("margin", "margin_together", "safe", "safe_together", "draw_accuracy"):
        np.testing.assert_allclose(getattr(cert, name), wanted[name], atol=2e-5, err_msg=name)
    # Rounding only ever takes away.
    assert (cert.margin <= wanted["margin"]).all()
    np.testing.assert_array_equal(cert.nearest, 1 - Y)


def test_certified_margins_are_below_the_truth():
    truth = true_expectations()
    found = [certify(seed, confidence=0.5, num_samples=400) for seed in range(4)]
    assert all((cert.margin <= truth).all() for cert in found)
    assert all((cert.margin > truth - 0.5).all() for cert in found)
    assert any(cert.certified.any() for cert in found)
    for cert in found:
        assert (cert.margin_together <= cert.margin).all()
        assert (cert.safe_together <= cert.safe).all()
        assert (cert.num_safe <= cert.num_right).all()
        assert not (cert.certified_together & ~cert.certified).any()


def test_results_follow_from_the_key_alone():
    first, again, other = certify(1), certify(1), certify(2)
    longer = bnn_adv.FreshCertificationSettings(method="ibp", sample_chunk=7)
    third = certify(1, settings=longer)
    for name in ("margin", "margin_together", "safe", "num_safe", "num_right", "draw_accuracy"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        np.testing.assert_array_equal(getattr(first, name), getattr(third, name))
    assert (first.margin != other.margin).any()
    assert first.settings == third.settings


def test_draws_that_are_not_finite_are_unsafe():
    sampler = sampler_of(draw_often_nothing)

    def lost(seed):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(30))
        return np.isnan(np.asarray(jax.vmap(sampler.draw)(keys)["w"])).any(axis=1)

    # The first two are looked at before any work, as those of every sampler.
    seed = next(seed for seed in range(99) if not lost(seed)[:2].any())
    cert, number = certify(seed, sampler), lost(seed).sum()
    assert number > 5
    assert (cert.num_safe <= 30 - number).all()
    assert (cert.num_right <= 30 - number).all()
    assert (cert.margin < certify(seed).margin).all()


@pytest.mark.slow
def test_no_safe_draw_breaks_and_the_mean_stays_above(tmp_path):
    """Two layers by linear bounds, with masks drawn from a key among the parameters."""

    def draw_network(rng_key):
        first, second, mask = jax.random.split(rng_key, 3)
        w1 = jax.random.normal(first, (2, 4)) * 2
        return {"w1": w1, "w2": jax.random.normal(second, (4, 3)), "key": mask}

    def network(params, x):
        kept = jax.random.bernoulli(params["key"], 0.8, (len(x), 4))
        return jnp.where(kept, jnp.tanh(x @ params["w1"]), 0.0) @ params["w2"]

    sampler = bnn_adv.Sampler(network, draw_network)
    settings = bnn_adv.FreshCertificationSettings(method="alpha-crown", num_rounds=1)
    key, count = jax.random.key(0), 24
    cert = bnn_adv.certify_fresh(
        sampler,
        X,
        Y,
        threat=bnn_adv.LInf(0.04),
        num_samples=count,
        rng_key=key,
        settings=settings,
    )
    draws = sampler.sample_each(jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count)))
    rng = np.random.default_rng(0)
    moved = np.clip(2 * rng.uniform(-0.04, 0.04, size=(200, 1, 2)), -0.04, 0.04)
    moved = np.concatenate([X[None], X + moved])
    points = np.clip(moved, 0, 1).astype(np.float32).reshape(-1, 2)
    probs = np.exp(np.asarray(bnn_adv.posteriors.posterior.log_probs(draws, points)))
    probs = probs.reshape(count, -1, 3, 3)
    right = (probs.argmax(axis=-1) == Y).all(axis=1)
    assert (cert.num_safe <= right.sum(axis=0)).all()
    assert cert.num_safe.sum() > 0.5 * right.sum() > 0
    np.testing.assert_array_equal(cert.num_right, (probs[:, 0].argmax(axis=-1) == Y).sum(axis=0))
    own = np.take_along_axis(probs, Y[None, None, :, None], axis=-1)
    rest = np.where(np.arange(3) == Y[:, None], np.inf, own - probs)
    assert (cert.margin <= rest.mean(axis=0).min(axis=(0, 2))).all()
    cert.save(tmp_path / "fresh.npz")
    stored = files.read_arrays(tmp_path / "fresh.npz")
    np.testing.assert_array_equal(stored["margin"], cert.margin)
    assert "24 i.i.d. draws, alpha-crown, 95 % confidence" in repr(cert)


POSTERIOR = bnn_adv.Posterior(apply_fn, {"w": jnp.ones((4, 2))})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sampler": POSTERIOR}, TypeError, "Markov chain depend on each other.* bnn_adv.certify "),
        ({"sampler": apply_fn}, TypeError, "needs a bnn_adv.Sampler, got function"),
        (
            {"sampler": sampler_of(decision_rule="mean_logits")},
            CertificationError,
            "averages logits.*mean_probabilities",
        ),
        ({"sampler": sampler_of(precision="bfloat16")}, CertificationError, "in bfloat16"),
        ({"num_samples": 1}, ValueError, "num_samples must be at least 2"),
        ({"confidence": 1.0}, ValueError, "confidence must lie between 0 and 1"),
        ({"confidence": 95}, ValueError, "confidence must lie between 0 and 1.* got 95"),
    ],
)
def test_what_says_nothing_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        certify(**change)


def test_keys_and_settings_are_checked():
    with pytest.raises(TypeError, match="typed key"):
        bnn_adv.certify_fresh(sampler_of(), X, Y, threat=bnn_adv.LInf(0.1), rng_key=0)
    with pytest.raises(ValueError, match="Unknown method 'milp'"):
        bnn_adv.FreshCertificationSettings(method="milp")
    with pytest.raises(ValueError, match="sample_chunk must be at least 1"):
        bnn_adv.FreshCertificationSettings(sample_chunk=0)
    with pytest.raises(TypeError, match=r"Sampler\b.* use bnn_adv.certify_fresh"):
        bnn_adv.certify(sampler_of(), X, Y, threat=bnn_adv.LInf(0.1))
