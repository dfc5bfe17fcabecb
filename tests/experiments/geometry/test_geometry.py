"""Settings of ``experiments.geometry``; its run is that of ``make reproduce``."""

import dataclasses

import pytest

from experiments.geometry.config import SCALES, Config
from experiments.launch.config import make


@pytest.mark.parametrize("scale", SCALES)
def test_scales_are_settings(scale):
    config = Config(**SCALES[scale])
    assert config.num_seeds >= 2


def test_lists_from_the_command_line_become_numbers():
    config = make(Config, {"widths": ("3", "5")})
    assert config.widths == (3, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": ("a",)}, "widths must be an integer, got 'a'"),
        ({"steps": (5, 5)}, "steps must not name anything twice, got 5, 5"),
        ({"steps": (9, 5)}, "steps must rise, got 9, 5"),
        ({"steps": (5,)}, "steps needs at least 2 of them, got 5"),
        ({"methods": ("mcmc",)}, "methods must be one of hmc, vi, ensemble, got 'mcmc'"),
        ({"supports": ()}, "supports needs at least 1 of them, got nothing"),
        (
            {"posterior_samples": 10},
            r"posterior_samples must be a multiple of hmc_chains \(4\), got 10",
        ),
        ({"thickness": 0.3}, "thickness must be at most 0.25, got 0.3"),
        ({"num_seeds": 1}, "num_seeds must be at least 2, got 1"),
        ({"mirror_points": 50}, r"mirror_points must be at most num_probe \(40\)"),
        ({"activation": "step"}, "activation must be one of relu, .*, got 'step'"),
    ],
)
def test_settings_are_checked_before_work(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Config(), **changes)
