"""Settings of ``experiments.geometry``; its run is that of ``make reproduce``."""

import dataclasses

import pytest

from experiments.geometry.config import SCALES, Config, normalise


@pytest.mark.parametrize("scale", SCALES)
def test_scales_are_settings(scale):
    config = normalise(dataclasses.replace(Config(), **SCALES[scale]))
    assert config.num_seeds >= 2


def test_lists_from_the_command_line_become_numbers():
    config = normalise(dataclasses.replace(Config(), widths=("3", "5")))
    assert config.widths == (3, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": ("a",)}, "--widths needs whole numbers, got a"),
        ({"steps": (5, 5)}, "--steps needs two rising numbers"),
        ({"methods": ("mcmc",)}, "--methods must be of hmc, vi, ensemble"),
        ({"supports": ()}, "--supports must be of moons"),
        (
            {"posterior_samples": 10},
            r"--posterior_samples must be a multiple of",
        ),
        ({"thickness": 0.3}, r"--thickness must lie in \(0, 0.25\]"),
        ({"num_seeds": 1}, "--num_seeds must be at least 2, got 1"),
        ({"mirror_points": 50}, r"--mirror_points must be at most --num_probe \(40\)"),
        ({"activation": "step"}, "Unknown --activation: step"),
    ],
)
def test_settings_are_checked_before_work(changes, message):
    with pytest.raises(ValueError, match=message):
        normalise(dataclasses.replace(Config(), **changes))
