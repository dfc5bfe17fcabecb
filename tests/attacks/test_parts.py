"""What is compiled with low effort, and in parts, walks as everything else does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import apgd, batches, pgd
from bnn_adv.attacks.base import by_value
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.parts import parts_of
from bnn_adv.attacks.threat import L1, L2, LInf
from bnn_adv.compute import effort
from bnn_adv.posteriors.posterior import Posterior
from tests.flat import run_attack, trace_attack

RNG = np.random.default_rng(0)
SAMPLES = {"w": jnp.asarray(RNG.normal(size=(3, 5, 3)), jnp.float32)}
X = RNG.uniform(0.2, 0.8, (11, 5)).astype(np.float32)


def apply_fn(params, x):
    return jnp.tanh((x - 0.5) @ params["w"])


POSTERIOR = Posterior(apply_fn, SAMPLES)
Y = np.asarray(np.argmax(np.tanh((X - 0.5) @ np.asarray(SAMPLES["w"])).mean(axis=0), axis=1))
ATTACKS = {
    "pgd": pgd.build(num_steps=25, stop_on_success=True),
    "last": pgd.build(num_steps=3, step_size=0.05, random_start=False, keep="last"),
    "apgd": apgd.build(num_steps=25, stop_on_success=True),
}


def both(run):
    """Return what a function returns with full and with low effort."""
    full = run()
    with effort.lower():
        return full, run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "threat"), [("pgd", LInf), ("last", L2), ("apgd", LInf), ("apgd", L1)]
)
def test_results_are_those_of_full_effort(name, threat):
    """Also where fooled images leave: with low effort the batch keeps its size, and their rows."""
    size = 0.3 if threat is LInf else 0.8
    # Those that stay are the last ones.
    radii = np.linspace(size, 0.01, len(X)).astype(np.float32)
    sizes = []

    def attack():
        found = run_attack(
            jax.random.key(1),
            ATTACKS[name],
            OBJECTIVES["mean_logit_margin"],
            POSTERIOR,
            X,
            Y,
            threat=threat(radii),
            batch_size=16,
        )
        sizes.append((batches._start._cache_size(), batches._advance._cache_size()))
        return found

    full, low = both(attack)
    # One program makes the start and all steps.
    assert sizes[1] == (sizes[0][0], sizes[0][1] + 1)
    np.testing.assert_allclose(low, full, atol=1e-6)
    fooled = np.argmax(np.tanh((full - 0.5) @ np.asarray(SAMPLES["w"])).mean(axis=0), 1) != Y
    assert 2 <= fooled.sum() < len(X)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["log_predictive_margin", "scaled_margin"])
def test_walks_are_those_of_full_effort(objective):
    """Where draws have scales, they are measured at the clean inputs by a program of their own."""

    def trace():
        attack, key = ATTACKS["pgd"], jax.random.key(2)
        return trace_attack(key, attack, OBJECTIVES[objective], POSTERIOR, X, Y, threat=LInf(0.1))

    for full, low in zip(*both(trace), strict=True):
        np.testing.assert_allclose(low, full, atol=1e-5)


def test_an_attack_with_a_function_of_its_own_is_not_taken_apart():
    attack = ATTACKS["pgd"]
    assert parts_of(attack) is not None
    assert parts_of(by_value(attack)) is None
    assert parts_of(dataclasses.replace(attack, step=apgd.step)) is None


def test_with_low_effort_all_batches_have_one_size():
    rows = np.arange(3)
    assert len(batches.pad(rows, 64, 1)) == 8
    with effort.lower():
        padded = batches.pad(rows, 64, 1)
    np.testing.assert_array_equal(padded, [0, 1] + [2] * 62)
