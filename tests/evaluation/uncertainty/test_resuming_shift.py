"""An interrupted evaluation of semantic shift ends as an uninterrupted one."""

import time

import jax
import numpy as np
import pytest

import bnn_adv
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.compute.identity import OtherWorkError
from bnn_adv.compute.pacing import Pacer
from bnn_adv.evaluation.uncertainty import ShiftSettings
from tests.conftest import random_posterior


class Unplugged(Exception):
    """Stands for a process that is gone: nothing is saved on the way out."""


class Unreliable(Checkpoints):
    """Checkpoints of a process that dies after some ticks."""

    def __init__(self, folder, *, ticks):
        super().__init__(folder, every_seconds=None, every_steps=1, log=lambda message: None)
        self.left = ticks

    def tick(self, step, tree, meta=None):
        super().tick(step, tree, meta)
        self.left -= 1
        if not self.left:
            raise Unplugged


def evaluate(checkpoints=None, epsilon=0.1, **settings):
    random = np.random.default_rng(5)
    inside, outside = random.uniform(0.2, 0.8, (2, 6, 6)).astype(np.float32)
    return bnn_adv.evaluate_shift(
        random_posterior(3),
        inside,
        np.arange(6) % 4,
        outside,
        threat=bnn_adv.LInf(epsilon),
        rng_key=jax.random.key(0),
        settings=ShiftSettings(
            batch_size=4, checkpoints=checkpoints, **{"num_steps": 12, **settings}
        ),
        progress=None,
    )


@pytest.mark.slow
def test_it_goes_on_within_and_between_attacks(tmp_path, monkeypatch):
    whole = evaluate()
    random = np.random.default_rng(2)
    monkeypatch.setattr(Pacer, "next", lambda self, most: min(most, int(random.integers(3, 9))))
    found, starts, began = None, 0, time.monotonic()
    while found is None:
        starts += 1
        try:
            found = evaluate(Unreliable(tmp_path, ticks=25))
        except Unplugged:
            continue
    assert starts > 2
    # Of all starts: most of it passed before the last one.
    assert 0.5 < found.seconds / (time.monotonic() - began) < 1.1
    for name, values in whole.arrays.items():
        if name != "seconds":
            np.testing.assert_array_equal(found.arrays[name], values, err_msg=name)


def test_another_evaluation_is_refused(tmp_path):
    with pytest.raises(Unplugged):
        evaluate(Unreliable(tmp_path, ticks=2))
    for other in ({"epsilon": 0.2}, {"num_steps": 13}, {"weight": 0.7}):
        with pytest.raises(OtherWorkError, match="something else"):
            evaluate(Unreliable(tmp_path, ticks=99), **other)
