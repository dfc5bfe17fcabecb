"""Bad values of flags: refused in one line, before any work, and nothing is left behind."""

import pytest

from experiments.half_moons import __main__ as half_moons
from tests.experiments.command import refuse

CASES = [
    ({"scale": "huge"}, "Unknown scale 'huge'. Known: smoke, cpu, paper"),
    ({"hidden": ""}, "--hidden needs at least 1 of them, got nothing"),
    ({"hidden": "32,32"}, "--hidden must not name anything twice, got 32, 32"),
    ({"hidden": "32,0"}, "--hidden must be at least 1, got 0"),
    ({"hidden": "32,wide"}, "--hidden must be an integer, got 'wide'"),
    ({"num_train": 24001}, "--num_train must be at most 24000, got 24001"),
    ({"num_warmup": -1}, "--num_warmup must be at least 0, got -1"),
    ({"num_samples": 3}, "--num_samples must be at least 4, got 3"),
    ({"num_chains": 0}, "--num_chains must be at least 1, got 0"),
    ({"num_leapfrog": 0}, "--num_leapfrog must be at least 1, got 0"),
    ({"step_size": "inf"}, "--step_size must be a finite number of float32, got inf"),
    ({"step_size": "1e308"}, "--step_size must be a finite number of float32, got 1e+308"),
    ({"step_size": 0}, "--step_size must be above 0, got 0.0"),
    ({"adapt": "mass"}, "--adapt=mass: value should be one of <step_size|window|none>"),
    ({"least_accuracy": "nan"}, "--least_accuracy must be a finite number of float32, got nan"),
    ({"least_accuracy": 1.5}, "--least_accuracy must be at most 1, got 1.5"),
    ({"num_held_out": 6001}, "--num_held_out must be at most 6000, got 6001"),
    ({"num_points": 1}, "--num_points must be at least 2, got 1"),
    ({"num_ticks": 1}, "--num_ticks must be at least 2, got 1"),
    ({"norms": "linf,l7"}, "--norms must be one of linf, l2, l1, got 'l7'"),
    ({"norms": "l2,l2"}, "--norms must not name anything twice, got l2, l2"),
    ({"epsilons": "0.1,inf"}, "--epsilons must be a finite number of float32, got inf"),
    ({"epsilons": "0.1,0.10"}, "--epsilons must not name anything twice, got 0.1, 0.1"),
    ({"epsilons": "-0.1"}, "--epsilons must be at least 0, got -0.1"),
    ({"suite": "corrected"}, "--suite=corrected: value should be one of <strong|fast|full>"),
    ({"num_attacked": 251}, "--num_attacked must be at most the draws, num_samples x num_chains"),
    ({"seed": -1}, "--seed must be at least 0, got -1"),
    ({"seed": 2**64}, f"--seed must be below 2**63, got {2**64}"),
    ({"checkpoint_every": "nan"}, "--checkpoint_every must be a finite number of float32, got nan"),
    ({"compilation_cache": ""}, "--compilation_cache must be auto, off or a folder, got ''"),
]


@pytest.mark.parametrize(("given", "message"), CASES)
def test_bad_values_are_refused(given, message, tmp_path, capsys):
    assert message in refuse(tmp_path, capsys, module=half_moons, **given)
