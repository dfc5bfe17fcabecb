"""What is refused before any work starts, and what the message says to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.posterior import Posterior
from bnn_adv.threat import LInf
from bnn_adv.validation import check_problem
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
