"""The driver: one program a shape, early stop, progress, errors before work."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import AttackSettings, batches, fgsm, pgd
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import THREATS, LInf
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from tests.flat import run_attack

KEY = jax.random.key(0)
MARGIN = OBJECTIVES["mean_logit_margin"]


@pytest.mark.slow
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
    for rows in (slice(16), slice(5)):
        run_attack(
            KEY,
            pgd.build(),
            MARGIN,
            counted,
            x[rows],
            y[rows],
            threat=LInf(0.1),
            settings=AttackSettings(batch_size=16),
        )
    both_shapes = len(traces)
    for epsilon in (0.1, 0.2):
        run_attack(
            KEY,
            pgd.build(),
            MARGIN,
            counted,
            x,
            y,
            threat=LInf(epsilon),
            settings=AttackSettings(batch_size=16),
        )
    assert len(traces) == both_shapes
    # Traced with one and two images only to learn how large intermediate values are.
    assert {shape[0] for shape in traces} == {1, 2, 8, 16}


@pytest.mark.slow
def test_host_loop_does_not_retrace(posterior, batch):
    x, y = batch

    def apply_fn(params, inputs):
        return posterior.apply_fn(params, inputs)

    # Scales, init and step, each with forward and backward passes and rest chunks: a few traces.
    limited = Posterior(chex.assert_max_traces(apply_fn, n=12), posterior.samples)
    run_attack(KEY, pgd.build(num_steps=50), MARGIN, limited, x, y, threat=LInf(0.1))


@pytest.mark.slow
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
            settings=AttackSettings(on_steps=lambda done, total, seen=seen: seen.append(done)),
        )
        calls.append(len(seen))
        assert seen[-1] == 60 * len(y)
        assert seen == sorted(seen)
    assert calls[0] < calls[1]


@pytest.mark.slow
def test_images_leave_the_batch_when_they_are_fooled(posterior, batch):
    """Each image's result is that of an attack on it alone, and ever fewer are evaluated."""
    x, y = batch
    x = np.concatenate([x] * 8)
    y = np.asarray(jnp.argmax(predict_log_probs(posterior, x), -1))
    sizes = []

    def apply_fn(params, inputs):
        jax.debug.callback(lambda: sizes.append(inputs.shape[0]))
        return posterior.apply_fn(params, inputs)

    watched = Posterior(apply_fn, posterior.samples)
    attack = pgd.build(num_steps=40, stop_on_success=True)
    # Most images are fooled, early or late, and some never.
    run = functools.partial(run_attack, KEY, attack, MARGIN, threat=LInf(0.3))
    whole = run(watched, x, y, batch_size=72)
    fooled = np.asarray(jnp.argmax(predict_log_probs(posterior, whole), -1)) != y
    assert 0 < fooled.sum() < len(y)
    assert sizes[0] == 72
    assert sizes[-1] < 72
    for row in (0, 5, 40, 71):
        alone = run(posterior, x[row : row + 1], y[row : row + 1], indices=[row])
        np.testing.assert_allclose(alone[0], whole[row], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", THREATS)
def test_every_image_may_have_a_radius_of_its_own(norm, posterior, batch):
    x, y = batch
    radii = np.linspace(0, 0.3, len(y)).astype(np.float32)
    run = functools.partial(run_attack, KEY, pgd.build(num_steps=5), MARGIN, posterior)
    together = run(x, y, threat=THREATS[norm](radii), batch_size=4)
    for row in (0, 3, 8):
        threat = THREATS[norm](float(radii[row]))
        alone = run(x[row : row + 1], y[row : row + 1], threat=threat, indices=[row])
        np.testing.assert_allclose(together[row], alone[0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threat": LInf(-0.1)}, "epsilon must be at least 0, got -0.1"),
        ({"threat": LInf(float("nan"))}, "epsilon"),
        ({"x": np.full((9, 6), 1.5, np.float32)}, r"box \[0.0, 1.0\].*1.5"),
        ({"y": np.zeros(3, np.int32)}, "9 inputs and 3 labels"),
        ({"batch_size": 0}, "batch_size"),
        ({"sample_chunk": 9}, "number of draws"),
    ],
)
def test_errors_come_before_work(change, message, posterior, batch):
    arguments = {"x": batch[0], "y": batch[1], "threat": LInf(0.1), **change}
    x, y = arguments.pop("x"), arguments.pop("y")
    with pytest.raises(ValueError, match=message):
        run_attack(KEY, fgsm.build(), MARGIN, posterior, x, y, **arguments)


@pytest.mark.parametrize(
    ("count", "batch_size", "parts", "size"),
    [
        (128, 128, 1, 128),
        (65, 128, 1, 128),
        (64, 128, 1, 64),
        (33, 128, 1, 64),
        (3, 128, 1, 8),
        (1, 5, 1, 5),
        (10, 96, 1, 12),
        (10, 96, 8, 24),
    ],
)
def test_batches_are_filled_up_to_the_largest_halved_again_and_again(
    count, batch_size, parts, size
):
    rows = np.arange(count) + 7
    padded = batches.pad(rows, batch_size, parts)
    assert len(padded) == size
    np.testing.assert_array_equal(padded[:count], rows)
    assert (padded[count:] == rows[-1]).all()
