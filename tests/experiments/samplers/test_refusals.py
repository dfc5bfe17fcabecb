"""Bad values of flags: refused in one line, before any work, and nothing is left behind."""

import pytest

from experiments.samplers import __main__ as samplers
from tests.experiments.command import refuse

CASES = [
    ({"targets": "cifar"}, "--targets must be one of digits, half_moons, "),
    ({"targets": ""}, "--targets needs at least 1 of them, got nothing"),
    ({"methods": "hmc,hmc"}, "--methods must not name anything twice, got hmc, hmc"),
    ({"targets": "mnist_6000", "data_dir": "/nowhere"}, "mnist was not found in /nowhere"),
    ({"num_held_out": 361}, "--num_held_out must be at most 360, the test "),
    ({"num_chains": 1}, "--num_chains must be at least 2, got 1"),
    ({"budget": 99}, "--budget must be at least 100, got 99"),
    ({"num_draws": 7}, "--num_draws must be at least 8, got 7"),
    ({"num_points": 0}, "--num_points must be at least 1, got 0"),
    ({"step_factor": 0}, "--step_factor must be above 0, got 0.0"),
    ({"hidden": -1}, "--hidden must be at least 0, got -1"),
    ({"seed": -1}, "--seed must be at least 0, got -1"),
    ({"checkpoint_every": "inf"}, "--checkpoint_every must be a finite number of float32, got inf"),
]


@pytest.mark.parametrize(("given", "message"), CASES)
def test_bad_values_are_refused(given, message, tmp_path, capsys):
    assert message in refuse(tmp_path, capsys, module=samplers, **given)
