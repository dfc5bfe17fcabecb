"""Versions of the published code: whose draws, which constants."""

import numpy as np
import pytest

from experiments.protocol_ablation.published_versions import (
    CONSTANTS,
    average_predictions,
    build_pgd,
    list_settings,
    miss,
)

# Six draws of one image: class 0 with .9 three times, then .2 three times.
EACH = np.log([[[0.9, 0.1]]] * 3 + [[[0.2, 0.8]]] * 3)


def test_fixed_draws_are_the_first_of_the_list():
    for size, expected in ((1, 0.9), (3, 0.9), (4, (3 * 0.9 + 0.2) / 4), (6, 0.55)):
        found = np.exp(average_predictions(EACH, size, version="2020"))
        assert found.shape == (1, 1, 2)
        assert found[0, 0, 0] == pytest.approx(expected)


def test_redrawn_predictions_share_no_draw():
    for size, expected in ((1, [0.9] * 3 + [0.2] * 3), (2, [0.9, 0.55, 0.2]), (4, [0.725])):
        found = np.exp(average_predictions(EACH, size, version="today"))[:, 0, 0]
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("size", [0, 7])
def test_more_draws_than_there_are_is_refused(size):
    with pytest.raises(ValueError, match=rf"must lie in 1\.\.6, got {size}"):
        average_predictions(EACH, size, version="2020")


def test_settings_and_constants_are_those_of_the_code():
    settings = list_settings((1, 10), (10, 50, 100))
    assert len(set(settings)) == 2 * 2 * 2 * 3
    assert [tuple(constants[1:]) for constants in CONSTANTS] == [
        (0.3, 2.0, 40),
        (0.5, pytest.approx(0.00889, abs=1e-5), 40),
    ]
    config = build_pgd(CONSTANTS[1]).config
    assert (config.step_size, config.random_start, config.keep) == (2 / 225, False, "last")


def test_a_line_misses_by_its_worse_number():
    assert miss(0.9, 0.898) == 0
    assert miss(0.85, 0.90) == pytest.approx(0.05)
    assert miss(0.91, 0.42) == pytest.approx(0.478)
