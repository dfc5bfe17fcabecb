"""The driver: one program a shape, early stop, progress, errors before work."""

import chex
import jax
import numpy as np
import pytest

from bnn_adv.attacks import fgsm, pgd, run_attack
from bnn_adv.objectives import OBJECTIVES
from bnn_adv.posterior import Posterior
from bnn_adv.threat import LInf

KEY = jax.random.key(0)
MARGIN = OBJECTIVES["mean_logit_margin"]


def test_one_compilation_a_shape(posterior):
    """37 images in batches of 16, 40 steps, two radii: traced once for each of two shapes.

    Each program traces the network a fixed number of times; it must not depend on the number of
    batches, steps or radii.
    """
    rng = np.random.default_rng(0)
    traces = []

    def counting(params, x):
        traces.append(x.shape)
        return posterior.apply_fn(params, x)

    counted = Posterior(counting, posterior.samples)
    x = rng.uniform(size=(37, 6)).astype(np.float32)
    y = np.zeros(37, np.int32)
    run_attack(KEY, pgd.build(), MARGIN, counted, x[:16], y[:16], threat=LInf(0.1), batch_size=16)
    per_shape = len(traces)
    for epsilon in (0.1, 0.2):
        run_attack(KEY, pgd.build(), MARGIN, counted, x, y, threat=LInf(epsilon), batch_size=16)
    assert len(traces) == per_shape
    # Traced with one and two images only to learn how large intermediate values are.
    assert {shape[0] for shape in traces} == {1, 2, 16}


def test_host_loop_does_not_retrace(posterior, batch):
    x, y = batch

    def apply_fn(params, inputs):
        return posterior.apply_fn(params, inputs)

    # Scales, init and step, each with forward and backward passes and rest chunks: a few traces.
    limited = Posterior(chex.assert_max_traces(apply_fn, n=12), posterior.samples)
    run_attack(KEY, pgd.build(num_steps=50), MARGIN, limited, x, y, threat=LInf(0.1))


def test_a_batch_ends_when_all_its_images_are_fooled(posterior, batch):
    x, y = batch
    calls = []
    for stop in (True, False):
        seen = []
        run_attack(
            KEY,
            pgd.build(num_steps=60, stop_on_success=stop),
            MARGIN,
            posterior,
            x,
            y,
            threat=LInf(1.0),
            on_steps=lambda done, total, seen=seen: seen.append(done),
        )
        calls.append(len(seen))
        assert seen[-1] == 60 * len(y)
        assert seen == sorted(seen)
    assert calls[0] < calls[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threat": LInf(-0.1)}, "epsilon must be at least 0, got -0.1"),
        ({"threat": LInf(float("nan"))}, "epsilon"),
        ({"x": np.full((9, 6), 1.5, np.float32)}, r"box \[0.0, 1.0\].*1.5"),
        ({"y": np.zeros(3, np.int32)}, "9, 3"),
        ({"batch_size": 0}, "batch_size"),
        ({"sample_chunk": 9}, "number of draws"),
    ],
)
def test_errors_come_before_work(change, message, posterior, batch):
    arguments = {"x": batch[0], "y": batch[1], "threat": LInf(0.1), **change}
    x, y = arguments.pop("x"), arguments.pop("y")
    with pytest.raises(ValueError, match=message):
        run_attack(KEY, fgsm.build(), MARGIN, posterior, x, y, **arguments)
