"""An interrupted evaluation of semantic shift ends as an uninterrupted one."""

import jax
import numpy as np
import pytest

import bnn_adv
from bnn_adv.compute.identity import OtherWorkError
from bnn_adv.compute.pacing import Pacer
from bnn_adv.evaluation.uncertainty import ShiftSettings
from tests.conftest import random_posterior
from tests.unreliable import Unplugged, Unreliable


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
    found, starts = None, 0
    while found is None:
        starts += 1
        try:
            found = evaluate(Unreliable(tmp_path, ticks=25, every_steps=1))
        except Unplugged:
            continue
    assert starts > 2
    for name, values in whole.arrays.items():
        if name != "seconds":
            np.testing.assert_array_equal(found.arrays[name], values, err_msg=name)


def test_the_time_is_that_of_all_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(Unreliable, "seconds", 1234.56)
    found = evaluate(Unreliable(tmp_path, ticks=999), num_steps=1)
    assert found.seconds == pytest.approx(1234.6)


def test_another_evaluation_is_refused(tmp_path):
    with pytest.raises(Unplugged):
        evaluate(Unreliable(tmp_path, ticks=2, every_steps=1))
    for other in ({"epsilon": 0.2}, {"num_steps": 13}, {"weight": 0.7}):
        with pytest.raises(OtherWorkError, match="something else"):
            evaluate(Unreliable(tmp_path, ticks=99, every_steps=1), **other)
