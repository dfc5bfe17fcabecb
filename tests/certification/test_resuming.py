"""Certificates go on where a process died, to the same bits, and on several devices."""

import contextlib
import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import bnn_adv
from bnn_adv.bounds import AFFINE, Affine
from bnn_adv.compute import parallel
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.posteriors.posterior import shard_posterior


class Unplugged(Exception):
    """The process died."""


class Unreliable(Checkpoints):
    """Checkpoints of a process that dies after some ticks."""

    def __init__(self, folder, ticks):
        super().__init__(folder, every_seconds=None, every_steps=1, log=lambda message: None)
        self.left = ticks

    def tick(self, step, tree, meta=None):
        super().tick(step, tree, meta)
        self.left -= 1
        if self.left < 0:
            raise Unplugged


def apply_fn(params, x):
    return jnp.maximum(x @ params["w"], 0) @ params["v"]


def other_apply_fn(params, x):
    return jnp.maximum(x @ params["w"], 0) @ params["v"] * 2


RANDOM = np.random.default_rng(0)
POSTERIOR = bnn_adv.Posterior(
    apply_fn,
    {
        "w": RANDOM.normal(size=(4, 3, 5)).astype(np.float32),
        "v": np.array([[3, 0]] * 5, np.float32) + RANDOM.normal(size=(4, 5, 2)).astype(np.float32),
    },
)
X = RANDOM.uniform(size=(7, 3)).astype(np.float32)
Y = np.array([0, 0, 0, 0, 0, 1, 0])
SETTINGS = bnn_adv.CertificationSettings(method="ibp", batch_size=2, num_halvings=4)
NAMES = ("certified", "margin", "rounding", "alone", "cancellation", "nearest", "least", "radius")


def certify(checkpoints=None, posterior=POSTERIOR, x=X, y=Y, epsilon=0.3, **changes):
    settings = dataclasses.replace(SETTINGS, checkpoints=checkpoints, **changes)
    progress = []
    found = bnn_adv.certify(
        posterior,
        x,
        y,
        threat=bnn_adv.LInf(epsilon),
        settings=settings,
        progress=lambda done, total: progress.append((done, total)),
    )
    assert progress == sorted(progress)
    assert progress[-1] == (35, 35)
    return found


@pytest.mark.slow
def test_what_was_finished_is_not_computed_again(tmp_path):
    whole = certify()
    found, starts = None, 0
    while found is None and starts < 99:
        starts += 1
        with contextlib.suppress(Unplugged):
            found = certify(Unreliable(tmp_path, ticks=2))
    # Each start got two batches further, of four a radius at most.
    assert 5 < starts < 12
    for name in NAMES:
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert 0 < whole.certified.sum() < 7
    assert len(np.unique(whole.radius)) > 2
    assert found.settings == whole.settings
    assert "checkpoints" not in found.settings


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unfinished")
    with pytest.raises(Unplugged):
        certify(Unreliable(folder, ticks=2))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.4}, "threat.*epsilon=0.3.*epsilon=0.4"),
        ({"method": "crown"}, "method 'ibp.* there, 'crown"),
        ({"num_halvings": 5}, "num_halvings"),
        ({"batch_size": 4}, "batch_size"),
        ({"x": X[::-1]}, "inputs"),
        ({"y": 1 - Y}, "labels"),
        ({"posterior": dataclasses.replace(POSTERIOR, apply_fn=other_apply_fn)}, "apply_fn"),
        ({"posterior": POSTERIOR.take([0, 1, 2, 2])}, "draws"),
        (
            {"posterior": dataclasses.replace(POSTERIOR, decision_rule="mean_logits")},
            "decision_rule",
        ),
    ],
)
def test_other_work_is_refused(change, message, unfinished):
    with pytest.raises(ValueError, match=f"something else.*{message}"):
        certify(Unreliable(unfinished, ticks=99), **change)


def test_other_rules_of_primitives_are_refused(unfinished, monkeypatch):
    monkeypatch.setitem(AFFINE, "neg", Affine(lambda p, a: a, apply_absolute=lambda p, a: a))
    with pytest.raises(ValueError, match=r"something else.*rules"):
        certify(Unreliable(unfinished, ticks=99))


@pytest.mark.slow
def test_several_devices_find_the_same():
    mesh = parallel.make_mesh("draws:2,data:2")
    whole, found = certify(), certify(posterior=shard_posterior(POSTERIOR, mesh), mesh=mesh)
    np.testing.assert_array_equal(found.certified, whole.certified)
    for name in ("margin", "least", "radius"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-12)
    with pytest.raises(ValueError, match=r"batch_size=3 cannot be split evenly over data:2"):
        bnn_adv.CertificationSettings(batch_size=3, mesh=mesh)
