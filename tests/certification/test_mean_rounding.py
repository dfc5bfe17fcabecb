"""What float32 loses in adding up many draws is within what a certificate allows for."""

import jax.numpy as jnp
import numpy as np
import pytest

import bnn_adv
from bnn_adv.posteriors.posterior import predict_log_probs

RANDOM = np.random.default_rng(0)
NUM_DRAWS, SHIFT = 600, 1000.0


def apply_fn(params, x):
    return x @ params["w"] + params["b"]


@pytest.mark.parametrize("rule", ["mean_probabilities", "mean_logits"])
def test_rounding_grows_with_the_number_of_draws(rule):
    is_mean = rule == "mean_logits"
    w = 3 * RANDOM.normal(size=(NUM_DRAWS, 1, 2)).astype(np.float32)
    w[:, 0, 0] += 1.0
    shift = SHIFT * is_mean * RANDOM.uniform(size=(NUM_DRAWS, 1)) * np.ones(2)
    params = {"w": w, "b": shift.astype(np.float32)}
    x = RANDOM.uniform(0.2, 1, size=(64, 1)).astype(np.float32)
    posterior = bnn_adv.Posterior(apply_fn, params, decision_rule=rule)
    settings = bnn_adv.CertificationSettings(method="ibp")
    y = np.zeros(64, int)
    cert = bnn_adv.certify(posterior, x, y, threat=bnn_adv.LInf(0.0), settings=settings)
    # In float32, the draws added up one by one; and in float64 of the same logits.
    narrow = np.asarray(predict_log_probs(posterior, x, sample_chunk=1), np.float64)
    logits = np.stack(
        [
            np.asarray(apply_fn({"w": a, "b": b}, jnp.asarray(x)), np.float64)
            for a, b in zip(params["w"], params["b"], strict=True)
        ]
    )
    if is_mean:
        wide = logits.mean(axis=0)
    else:
        wide = np.exp(logits - np.logaddexp(logits[..., :1], logits[..., 1:])).mean(axis=0)
        narrow = np.exp(narrow)
    lost = np.abs((narrow[:, 0] - narrow[:, 1]) - (wide[:, 0] - wide[:, 1]))
    assert cert.clean_correct.all()
    assert (lost < cert.rounding).all()
    # More than a constant would allow for, and not so much that nothing could be certified.
    assert lost.max() > 2.0**-19
    assert cert.rounding.max() < (0.2 if is_mean else 2e-3)
