"""Numbers of a prefix of a run, on chains whose law is known."""

import math

import numpy as np
import pytest

from bnn_adv.inference.diagnostics import has_mixed
from experiments.samplers.measure import list_points
from experiments.samplers.prefixes import (
    Draws,
    keep_half,
    largest_rhat,
    list_prefixes,
    smallest_ess,
    summarise,
)

CHAINS, DRAWS, EXAMPLES = 4, 256, 6


def make(shift=0.0, seed=0):
    """Return independent draws of binary predictions; the last chain is shifted."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(CHAINS, DRAWS, EXAMPLES, 2))
    logits[-1, ..., 0] += shift
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    density = 5 * rng.normal(size=(CHAINS, DRAWS)) - 100
    gradients = np.tile(10.0 * np.arange(1, DRAWS + 1), (CHAINS, 1))
    return Draws(log_probs, np.zeros(EXAMPLES, np.int32), density, gradients)


def test_prefixes_are_evenly_spaced_by_ratio_and_end_with_the_run():
    found = list_prefixes(1600.0, 5)
    assert found == pytest.approx([100, 200, 400, 800, 1600])
    assert list_prefixes(1600.0, 1) == [1600]


def test_the_second_half_of_a_prefix_is_kept():
    draws = make()
    kept = keep_half(draws, 1280.0)
    assert kept.gradients.min() == 650
    assert kept.gradients.max() == 1280
    assert kept.log_density.shape == (CHAINS, 64)
    np.testing.assert_array_equal(kept.log_density, draws.log_density[:, 64:128])
    np.testing.assert_array_equal(kept.log_probs, draws.log_probs[:, 64:128])
    assert keep_half(draws, 60.0) is None


def test_chains_that_cost_more_are_cut_at_their_own_share():
    draws = make()
    draws.gradients[1] *= 3
    kept = keep_half(draws, draws.total / 2)
    assert kept.log_density.shape == (CHAINS, 64)
    np.testing.assert_array_equal(kept.log_density[1], draws.log_density[1, 64:128])


def test_a_warm_up_leaves_nothing_of_prefixes_within_it():
    draws = make()
    late = draws._replace(gradients=draws.gradients + 2560.0)
    points = list_points(late, 8)
    assert min(point["gradients"] for point in points) > 2560
    assert points[-1]["num_draws"] == DRAWS


def test_independent_draws_have_mixed():
    point = summarise(keep_half(make(), 2560.0), 2560.0)
    assert has_mixed(point) is True
    assert largest_rhat(point) < 1.03
    assert 300 < smallest_ess(point) < 700
    assert point["num_draws"] == 128
    # Five nats of spread over about 512 draws.
    assert point["density_error"] == pytest.approx(5 / math.sqrt(512), rel=0.2)
    assert point["density"] == pytest.approx(-100, abs=1)


def test_a_chain_elsewhere_has_not_mixed():
    point = summarise(keep_half(make(shift=4.0), 2560.0), 2560.0)
    assert has_mixed(point) is False
    assert point["max_rhat"] > 1.3


def test_chains_that_stand_still_or_repeat_are_counted():
    draws = make()
    draws.log_probs[0] = draws.log_probs[0, :1]
    draws.log_probs[2] = draws.log_probs[1]
    point = summarise(keep_half(draws, 2560.0), 2560.0)
    assert (point["num_still_chains"], point["num_equal_chains"]) == (1, 1)
    assert has_mixed(point) is False


def test_the_predictive_is_the_mean_of_probabilities():
    draws = make()
    draws.log_probs[:] = np.log([0.8, 0.2])
    draws.log_probs[:2] = np.log([0.1, 0.9])
    point = summarise(keep_half(draws, 2560.0), 2560.0)
    assert point["log_likelihood"] == pytest.approx(math.log(0.45))
    assert point["accuracy"] == 0
