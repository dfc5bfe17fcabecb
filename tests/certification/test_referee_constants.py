"""What a network computes from its weights alone is part of what predicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bnn_adv
from bnn_adv.compute import files


def residual(params, x):
    # Zero where the product is rounded before it is subtracted, not where both are fused.
    weights = (params["a"] * params["b"] - params["c"]) * 1e8
    return x @ weights + jnp.asarray([0.0, 1.5])


@pytest.mark.slow
def test_a_network_that_predicts_otherwise_is_not_confirmed(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(1, 2, (1, 2, 2)).astype(np.float32) for _ in range(2))
    c = (a * b).astype(np.float32) - np.float32(1e-7) * rng.integers(-2, 3, (1, 2, 2)).astype("f4")
    posterior = bnn_adv.Posterior(residual, {"a": a, "b": b, "c": c})
    x = rng.uniform(0, 1, (4, 2)).astype(np.float32)
    y = np.asarray(residual(jax.tree.map(lambda w: w[0], posterior.samples), x)).argmax(axis=1)
    certificate = bnn_adv.certify(posterior, x, y, threat=bnn_adv.LInf(0.01))
    certificate.save(tmp_path / "honest.npz")
    arrays = files.read_arrays(tmp_path / "honest.npz")
    arrays["certified"] = np.ones(4, bool)
    arrays["margin"], arrays["radius"] = np.full(4, 0.1), arrays["epsilon"].astype(float)
    arrays["clean_correct"] = np.ones(4, bool)
    files.write_arrays(tmp_path / "forged.npz", arrays)

    from bnn_adv.certification import referee_network

    compute = referee_network._evaluate

    def computed_otherwise(equation, values, names):
        found = compute(equation, values, names)
        return [0 * value for value in found] if equation.primitive.name == "sub" else found

    monkeypatch.setattr(referee_network, "_evaluate", computed_otherwise)
    verified = bnn_adv.verify_certificate(tmp_path / "forged.npz", posterior)
    assert not verified.same_network.any()
    assert not verified.confirmed.any()
    assert "predicts otherwise" in str(verified)


def test_a_radius_is_looked_for_from_zero():
    def apply_fn(params, x):
        return x @ params

    posterior = bnn_adv.Posterior(apply_fn, np.eye(2, dtype=np.float32)[None] * 3)
    x, y = np.asarray([[0.9, 0.1], [0.3, 0.6]], np.float32), np.array([0, 1])
    settings = bnn_adv.CertificationSettings(num_halvings=14)
    found = bnn_adv.certify(posterior, x, y, threat=bnn_adv.LInf(0.0), settings=settings)
    # Both inputs move towards each other: half the gap.
    np.testing.assert_allclose(found.radius, [0.4, 0.15], atol=1e-3)
    assert (found.radius < [0.4, 0.15]).all()


def test_a_division_may_be_a_product_with_a_rounded_inverse():
    def apply_fn(params, x):
        last = jnp.broadcast_to(params, (len(x), 1))
        return jnp.concatenate([x[:, :1] / 255.0, x[:, 1:] / 61.0, last], axis=1)

    posterior = bnn_adv.Posterior(apply_fn, np.asarray([-1e7], np.float32))
    lower, upper = 3.2993676e7, 1.3792435e8
    x = np.asarray([[upper - 256, lower + 256]], np.float32)
    y = np.array([1])
    found = bnn_adv.certify(posterior, x, y, threat=bnn_adv.LInf(256.0, lower, upper))
    assert not found.certified.any()
