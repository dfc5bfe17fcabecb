"""Bad values of flags: refused in one line, before any work, and nothing is left behind."""

import pytest

from experiments.robustness_accuracy import __main__ as robustness_accuracy
from tests.experiments.command import refuse

CASES = [
    ({"datasets": "letters"}, "--datasets must be one of digits, "),
    ({"datasets": "digits,digits"}, "--datasets must not name anything twice, got digits, digits"),
    ({"datasets": ""}, "--datasets needs at least 1 of them, got nothing"),
    (
        {"datasets": "digits", "num_test": 12},
        "--sources=table5,table6,table7,own does not take the inputs of digits",
    ),
    ({"datasets": "half_moons"}, "architecture=conv of the grids --sources=table5,"),
    ({"datasets": "mnist", "data_dir": "/nowhere"}, "mnist was not found in /nowhere"),
    ({"sources": "table9"}, "--sources must be one of table5, table6, table7, own, got 'table9'"),
    ({"sources": "own,own"}, "--sources must not name anything twice, got own, own"),
    ({"grid_filter": "hidden=3"}, "--grid_filter leaves no network of the grids table5"),
    ({"grid_filter": "width=3"}, "--grid_filter cannot be read: A term of the filter is"),
    ({"num_shapes": -1}, "--num_shapes must be at least 0, got -1"),
    ({"width_divisor": 0}, "--width_divisor must be at least 1, got 0"),
    ({"draws_divisor": 0}, "--draws_divisor must be at least 1, got 0"),
    ({"sgd_repeats": 0}, "--sgd_repeats must be at least 1, got 0"),
    ({"time_budget": "inf"}, "--time_budget must be a finite number of float32, got inf"),
    ({"num_test": 0}, "--num_test must be at least 1, got 0"),
    ({"epsilon": "nan"}, "--epsilon must be a finite number of float32, got nan"),
    ({"epsilon": -0.1}, "--epsilon must be at least 0, got -0.1"),
    ({"suite": "corrected"}, "--suite=corrected: value should be one of <strong|fast|full>"),
    ({"num_attacked": -1}, "--num_attacked must be at least 0, got -1"),
    ({"hmc_num_warmup": -1}, "--hmc_num_warmup must be at least 0, got -1"),
    ({"vi_num_samples": 0}, "--vi_num_samples must be at least 1, got 0"),
    ({"vi_minibatch_size": 0}, "--vi_minibatch_size must be at least 1, got 0"),
    ({"least_accuracy": 2}, "--least_accuracy must be at most 1, got 2.0"),
    ({"batch_size": 0}, "--batch_size must be at least 1, got 0"),
    ({"seed": 2**64}, f"--seed must be below 2**63, got {2**64}"),
]


@pytest.mark.parametrize(("given", "message"), CASES)
def test_bad_values_are_refused(given, message, tmp_path, capsys):
    assert message in refuse(tmp_path, capsys, module=robustness_accuracy, **given)
