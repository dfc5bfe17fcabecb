"""Bad values of flags: refused in one line, before any work, and nothing is left behind."""

import pytest

from experiments.ensembles import __main__ as ensembles
from tests.experiments.command import refuse

CASES = [
    ({"dataset": "letters"}, "--dataset=letters: value should be one of <digits|"),
    (
        {"dataset": "digits", "num_test": 12},
        "--architecture=conv does not take the inputs of digits, of shape [8,",
    ),
    ({"dataset": "half_moons"}, "--architecture=conv does not take the inputs of half_moons"),
    ({"dataset": "mnist", "data_dir": "/nowhere"}, "mnist was not found in /nowhere"),
    ({"dataset": "digits", "architecture": "fc", "num_test": 361}, "num_test=361, but digits has"),
    (
        {"dataset": "digits", "architecture": "fc", "num_test": 9, "num_train": 9999},
        "num_train=9999, but digits",
    ),
    ({"num_test": 0}, "--num_test must be at least 1, got 0"),
    ({"num_train": -1}, "--num_train must be at least 0, got -1"),
    ({"architecture": "fc9"}, "--architecture=fc9: value should be one of <fc|"),
    ({"hidden": 0}, "--hidden must be at least 1, got 0"),
    ({"activation": "step"}, "--activation=step: value should be one of <relu|"),
    ({"sizes": ""}, "--sizes needs at least 1 of them, got nothing"),
    ({"sizes": "0,2"}, "--sizes must be at least 1, got 0"),
    ({"sizes": "2,2"}, "--sizes must not name anything twice, got 2, 2"),
    ({"sgd_epochs": 0}, "--sgd_epochs must be at least 1, got 0"),
    ({"sgd_learning_rate": "1e308"}, "--sgd_learning_rate must be a finite number of float32, got"),
    ({"sgd_learning_rate": 0}, "--sgd_learning_rate must be above 0, got 0.0"),
    ({"member_chunk": -1}, "--member_chunk must be at least 0, got -1"),
    ({"epsilons": "nan"}, "--epsilons must be a finite number of float32, got nan"),
    ({"epsilons": "-0.1"}, "--epsilons must be at least 0, got -0.1"),
    ({"batch_size": 0}, "--batch_size must be at least 1, got 0"),
    ({"seed": -1}, "--seed must be at least 0, got -1"),
]


@pytest.mark.parametrize(("given", "message"), CASES)
def test_bad_values_are_refused(given, message, tmp_path, capsys):
    assert message in refuse(tmp_path, capsys, module=ensembles, **given)
