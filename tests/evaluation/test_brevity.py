"""Which evaluations are compiled with low effort: a rule of what is computed alone."""

import dataclasses

import numpy as np
import pytest

from bnn_adv.attacks.threat import LInf
from bnn_adv.compute import blocks, effort
from bnn_adv.compute.disk import store_in
from bnn_adv.evaluation.cascade import Subject
from bnn_adv.evaluation.evaluate import EvaluationSettings, _is_brief
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.posteriors.sampler import Sampler

SAMPLES = {"w": np.zeros((4, 6, 2), np.float32)}
HOW = EvaluationSettings()


def apply_fn(params, x):
    return x @ params["w"]


POSTERIOR = Posterior(apply_fn, SAMPLES)


def judge(count=40, suite="fast", posterior=POSTERIOR, sampler=None, how=HOW):
    x = np.broadcast_to(np.float32(0.5), (count, 6))
    subject = Subject(posterior, x, np.zeros(count, int), LInf(0.1))
    return _is_brief(get_suite(suite), subject, sampler, how)


def test_by_inputs_draws_and_steps():
    each = blocks.bytes_per_input(apply_fn, {"w": SAMPLES["w"][0]}, np.zeros((3, 6), np.float32))
    # Three attacks of 20 steps, and a thousand passes besides.
    most = effort.MOST_BYTES // (1060 * 4 * each)
    assert judge(most)
    assert not judge(most + 1)
    assert not judge(most, suite="strong")
    assert judge(40, suite="strong")


def test_predictions_of_a_sampler_count_and_what_does_not_lie_in_memory_is_never_brief(tmp_path):
    sampler = Sampler(apply_fn, lambda key: {"w": SAMPLES["w"][0]})
    assert judge(sampler=sampler)
    assert not judge(sampler=sampler, how=dataclasses.replace(HOW, num_predictions=10**7))
    assert not judge(posterior=Posterior(apply_fn, store_in(tmp_path)(SAMPLES)))
    assert not judge(posterior=Posterior(apply_fn, SAMPLES, shards=2))


@pytest.mark.parametrize("name", ["num_probe", "num_curve", "batch_size"])
def test_how_much_is_looked_at_does_not_decide(name):
    """The attacks' own results would differ in the last digit."""
    assert judge(how=dataclasses.replace(HOW, **{name: 1}))
    assert judge(how=dataclasses.replace(HOW, **{name: 10**9}))
