"""Networks that stack, tile and take apart, and that hold jitted parts without the input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bnn_adv


@jax.jit
def double(w):
    return 2 * w


def apply_fn(params, x):
    """Return ``(x w, 0)`` by a detour."""
    left, right = jnp.unstack(jnp.tile(x, (1, 2))[:, 1:3], axis=1)
    score = left * double(params["w"])[1] / 2 + right * params["w"][0]
    return jnp.stack([score, jnp.zeros(len(x))], axis=1)


def test_bounds_pass_through_them():
    x, w = np.array([[0.4, 0.6]], np.float32), np.array([3.0, -1.0], np.float32)
    posterior = bnn_adv.Posterior(apply_fn, {"w": w[None]})
    settings = bnn_adv.CertificationSettings(method="ibp")
    found = bnn_adv.certify(posterior, x, [0], threat=bnn_adv.LInf(0.1), settings=settings)
    wanted = np.tanh((x[0] @ w - 0.1 * np.abs(w).sum()) / 2)
    assert found.margin[0] == pytest.approx(wanted, abs=1e-5)
    assert found.margin[0] < wanted
