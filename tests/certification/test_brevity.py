"""Which certificates are compiled with low effort: a rule of what is certified alone."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bnn_adv
from bnn_adv.attacks.validation import open_problem
from bnn_adv.certification.certify import _is_brief, open_network
from bnn_adv.certification.rounds import bound_batch
from bnn_adv.compute import blocks, effort
from bnn_adv.compute.disk import store_in
from bnn_adv.posteriors.posterior import Posterior

RNG = np.random.default_rng(0)
SAMPLES = {
    "w": RNG.normal(size=(4, 6, 5)).astype(np.float32),
    "u": RNG.normal(size=(4, 5, 3)).astype(np.float32),
}


def apply_fn(params, x):
    return jax.nn.relu(x @ params["w"]) @ params["u"]


POSTERIOR = Posterior(apply_fn, SAMPLES)


def judge(count=10, posterior=POSTERIOR, **settings):
    x = np.broadcast_to(np.float32(0.5), (count, 6))
    problem = open_problem(POSTERIOR, x, np.zeros(count, int), bnn_adv.LInf(0.1))
    how = bnn_adv.CertificationSettings(**settings)
    return _is_brief(open_network(POSTERIOR, (6,)), posterior, problem, how)


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        # Both ends of five units and three bounds of three classes; a radius, and eight more.
        ({"method": "crown", "num_halvings": 8}, 19 * 9),
        ({"method": "crown", "num_halvings": 0}, 19),
        ({"method": "crown", "num_halvings": 0, "most_rows": 4}, 9),
        ({"method": "crown-ibp", "num_halvings": 0}, 9),
        ({"method": "alpha-crown", "num_halvings": 0, "num_rounds": 3}, 19 * 4),
    ],
)
def test_by_inputs_draws_rows_rounds_and_radii(settings, passes):
    one = {name: leaf[0] for name, leaf in SAMPLES.items()}
    each = 2 * blocks.bytes_per_input(apply_fn, one, np.zeros((3, 6), np.float32))
    most = effort.MOST_BYTES // (passes * 4 * each)
    assert judge(most, **settings)
    assert not judge(most + 1, **settings)


def test_what_does_not_lie_in_memory_or_on_one_device_is_never_brief(tmp_path):
    assert judge()
    assert not judge(posterior=Posterior(apply_fn, store_in(tmp_path)(SAMPLES)))
    assert not judge(posterior=Posterior(apply_fn, SAMPLES, shards=2))


def test_brief_certificates_are_compiled_with_low_effort_and_say_the_same(monkeypatch):
    x = RNG.uniform(size=(6, 6)).astype(np.float32)
    y = np.asarray(jnp.argmax(bnn_adv.posteriors.posterior.predict_log_probs(POSTERIOR, x), 1))
    module, asked, found = sys.modules["bnn_adv.certification.certify"], [], []

    def spy(*args, **options):
        asked.append(effort.is_low())
        return bound_batch(*args, **options)

    monkeypatch.setattr(module, "bound_batch", spy)
    settings = bnn_adv.CertificationSettings(num_halvings=3)
    for most, is_low in ((effort.MOST_BYTES, bool(effort.options())), (0, False)):
        monkeypatch.setattr(effort, "MOST_BYTES", most)
        asked.clear()
        threat = bnn_adv.LInf(0.01)
        found.append(bnn_adv.certify(POSTERIOR, x, y, threat=threat, settings=settings))
        assert set(asked) == {is_low}
    brief, whole = found
    np.testing.assert_array_equal(brief.certified, whole.certified)
    assert brief.certified.any()
    np.testing.assert_allclose(brief.margin, whole.margin, rtol=0, atol=1e-12)
