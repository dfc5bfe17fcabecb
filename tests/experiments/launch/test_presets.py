"""Presets whose chains mix; what their runs reached is in the committed results."""

import dataclasses

import pytest

from experiments.launch.compare_config import make_comparison
from experiments.launch.presets import PRESETS
from experiments.loss_gradients import config as loss_gradients


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("mixed_")])
def test_mixed_presets_can_mix(name):
    """Four chains or more of long trajectories from the prior, enough for an ESS of 100."""
    (hmc,) = make_comparison(PRESETS[name]).rows
    config = hmc.config
    assert config.num_chains >= 4
    assert config.init == "prior"
    assert config.trajectory_length >= 1.3
    assert config.num_draws * config.thinning >= 600
    assert config.num_draws >= 400


def test_the_demos_hmc_row_is_a_mixed_one():
    demo, mixed = (make_comparison(PRESETS[name]).rows[-1] for name in ("digits", "mixed_digits"))
    assert demo.describe() == mixed.describe() == "fc, 32 units, relu"
    assert mixed.config == dataclasses.replace(demo.config, num_samples=200, num_warmup=100)


def test_loss_gradients_on_digits_are_those_of_the_demos_row():
    (*_, demo) = make_comparison(PRESETS["digits"]).rows
    config = loss_gradients.Config()
    item = loss_gradients.build_item(config, "digits-hmc")
    assert item.size == "fc 32"
    assert item.settings.trajectory_length == demo.config.trajectory_length
    steps = dataclasses.replace(config, hmc_num_integration_steps=5)
    settings = loss_gradients.build_item(steps, "digits-hmc").settings
    assert (settings.num_integration_steps, settings.trajectory_length) == (5, None)
