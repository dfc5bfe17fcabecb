"""What is refused before any work starts, and what the message says to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks.threat import LInf
from bnn_adv.attacks.validation import check_problem
from bnn_adv.posteriors.posterior import Posterior
from tests.conftest import linear_apply

X = np.random.default_rng(0).uniform(size=(5, 6)).astype(np.float32)
Y = np.arange(5) % 4
SAMPLES = {"w": np.ones((3, 6, 4), np.float32), "b": np.zeros((3, 4), np.float32)}


def probabilities(params, x):
    return jax.nn.softmax(linear_apply(params, x))


def one_score(params, x):
    return linear_apply(params, x)[:, 0]


def one_logit(params, x):
    return linear_apply(params, x)[:, :1]


def not_a_number(params, x):
    return linear_apply(params, x) * jnp.nan


def of_one_input(params, x):
    return linear_apply(params, x)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": X * 255}, r"box \[0.0, 1.0\].*Scale them"),
        ({"x": (X * 255).astype(np.uint8)}, "uint8. Divide bytes by 255"),
        ({"x": X[0]}, r"x\[None\]"),
        ({"x": X[:0], "y": Y[:0]}, "N of at least 1"),
        ({"x": np.where(X > 0.9, np.nan, X)}, "NaN or infinite"),
        ({"y": np.eye(4)[Y]}, "argmax"),
        ({"y": Y.astype(float)}, "integers"),
        ({"y": Y[:3]}, r"shape \(5,\)"),
        ({"y": Y + 1}, r"0\.\.3.*found 1\.\.4.*counted from 0"),
        ({"y": Y - 1}, r"found -1"),
        ({"apply_fn": probabilities}, "returns probabilities.*Leave out"),
        ({"apply_fn": one_score}, r"stacking \(0, s\)"),
        ({"apply_fn": one_logit}, "two classes at least"),
        ({"apply_fn": of_one_input}, "jax.vmap"),
        ({"apply_fn": not_a_number}, "NaN or infinite logits"),
        ({"samples": {**SAMPLES, "b": SAMPLES["b"][:2]}}, "b: 2, w: 3.*Posterior.stack"),
        ({"samples": {}}, "no arrays"),
        ({"threat": LInf(-0.1)}, "at least 0"),
    ],
)
def test_says_what_is_wrong(change, message):
    given = {"x": X, "y": Y, "apply_fn": linear_apply, "samples": SAMPLES, "threat": LInf(0.1)}
    given |= change
    posterior = Posterior(given["apply_fn"], given["samples"])
    with pytest.raises(ValueError, match=message):
        check_problem(posterior, given["x"], given["y"], given["threat"])


def test_accepts_logits_and_log_probabilities():
    assert check_problem(Posterior(linear_apply, SAMPLES), X, Y, LInf(0.1)) == 4

    def log_probabilities(params, x):
        return jax.nn.log_softmax(linear_apply(params, x))

    assert check_problem(Posterior(log_probabilities, SAMPLES), X, Y, LInf(0.1)) == 4
    shifted = LInf(0.1, lower=-1.0, upper=2.0)
    assert check_problem(Posterior(linear_apply, SAMPLES), 3 * X - 1, Y, shifted) == 4


def of_the_batch(params, x):
    """Normalise by the batch's own mean, as BatchNorm does in training."""
    return linear_apply(params, x - x.mean(axis=0))


def ranked(params, x):
    """Depend on the batch without a derivative."""
    return linear_apply(params, x) + 3.0 * jnp.argsort(jnp.argsort(x[:, 0]))[:, None]


def masked_by_place(params, x):
    mask = jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)
    return linear_apply(params, x * mask)


@pytest.mark.slow
@pytest.mark.parametrize("network", [of_the_batch, ranked, masked_by_place])
@pytest.mark.parametrize("count", [1, 5])
def test_networks_that_look_at_the_batch_are_refused_by_that_name(network, count):
    samples = {"w": np.random.default_rng(1).normal(size=(3, 6, 4)).astype(np.float32)}
    samples |= {"b": SAMPLES["b"]}
    with pytest.raises(ValueError, match="depends on the other inputs in its batch"):
        check_problem(Posterior(network, samples), X[:count], Y[:count], LInf(0.1))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({"w": SAMPLES["w"], "b": np.full((3, 4), np.nan, np.float32)}, "NaN.*b: 3"),
        ({"w": SAMPLES["w"], "b": np.array([["a"] * 4] * 3)}, "numbers, got <U1 for b"),
        ({"w": SAMPLES["w"] > 0, "b": SAMPLES["b"] > 0}, "booleans alone"),
        ({"w": [[[1.0] * 4] * 6] * 3, "b": SAMPLES["b"]}, "arrays of numbers"),
    ],
)
def test_draws_that_are_no_numbers_are_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        check_problem(Posterior(linear_apply, samples), X, Y, LInf(0.1))


def test_the_limit_of_accuracy_stays_below_one():
    from bnn_adv.evaluation.masking.base import Probe
    from bnn_adv.evaluation.masking.draws import check_low_accuracy

    for count in range(1, 40):
        for classes in (2, 3, 10):
            right = Probe(np.ones(count, bool), np.ones(count, bool), classes, 1)
            found = check_low_accuracy(type("E", (), {"probe": right})())
            assert not found.raised
            assert found.threshold < 1
