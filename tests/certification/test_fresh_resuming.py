"""Certificates of fresh draws go on where a process died, to the same bits, on several devices."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import bnn_adv
from bnn_adv.compute import parallel
from tests.certification.test_resuming import Unplugged, Unreliable

CENTRE = {"w": jnp.array([[2.0, -1.0], [0.5, 1.5], [1.0, -0.5]]), "b": jnp.array([0.5, 0.0])}
X = np.random.default_rng(3).uniform(0.2, 0.8, (5, 3)).astype(np.float32)
Y = np.array([0, 0, 0, 1, 0])
SETTINGS = bnn_adv.FreshCertificationSettings(method="ibp", batch_size=2, sample_chunk=4)
FIELDS = ("margin", "margin_together", "safe", "num_safe", "num_right", "draw_accuracy")


def apply_fn(params, x):
    return x @ params["w"] + params["b"]


def draw(centre, rng_key):
    noise = jax.random.normal(rng_key, (3, 2))
    return centre | {"w": centre["w"] + 0.4 * noise}


SAMPLER = bnn_adv.Sampler(apply_fn, Partial(draw, CENTRE))


def certify(seed=0, num_samples=10, epsilon=0.1, **changes):
    return bnn_adv.certify_fresh(
        SAMPLER,
        X,
        Y,
        threat=bnn_adv.LInf(epsilon),
        num_samples=num_samples,
        rng_key=jax.random.key(seed),
        settings=dataclasses.replace(SETTINGS, **changes),
    )


def assert_same(found, expected):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.settings == expected.settings


@pytest.fixture(scope="module")
def whole():
    return certify()


def test_what_was_finished_is_not_computed_again(whole, tmp_path):
    found, starts, done = None, 0, []
    while found is None and starts < 9:
        starts += 1
        with contextlib.suppress(Unplugged):
            keeper = Unreliable(tmp_path, ticks=1)
            found = certify(checkpoints=keeper, progress=lambda now, _: done.append(now))
    # Of three batches the first start finished two.
    assert starts == 2
    assert done[-1] == 50
    assert_same(found, whole)
    assert 0 < whole.num_safe.sum() < 50


@pytest.mark.parametrize(
    ("change", "message"),
    [({"seed": 1}, "key"), ({"num_samples": 11}, "num_samples"), ({"epsilon": 0.2}, "threat")],
)
def test_other_work_is_refused(change, message, tmp_path):
    with pytest.raises(Unplugged):
        certify(checkpoints=Unreliable(tmp_path, ticks=1))
    with pytest.raises(ValueError, match=f"something else: .*{message} '.*there"):
        certify(checkpoints=Unreliable(tmp_path, ticks=9), **change)


@pytest.mark.parametrize(
    ("confidence", "text"),
    [(0.999, "99.9 %"), (0.9999999, "99.99999 %"), (1 - 1e-16, "99.999999999999986 %")],
)
def test_no_confidence_reads_as_certainty(confidence, text, whole):
    found = dataclasses.replace(whole, confidence=confidence)
    assert f"{text} confidence" in repr(found)


def test_inputs_are_split_over_devices(whole):
    mesh = parallel.make_mesh("data:2")
    assert_same(certify(mesh=mesh), whole)
    with pytest.raises(ValueError, match="batch_size=3 cannot be split evenly over data:2"):
        certify(mesh=mesh, batch_size=3)
