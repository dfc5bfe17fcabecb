"""Bad values of flags: refused in one line, before any work, and nothing is left behind."""

import pytest

from experiments.loss_gradients import __main__ as loss_gradients
from tests.experiments.command import refuse

CASES = [
    ({"items": "cifar-vi"}, "--items must be one of mnist-hmc, "),
    ({"items": ""}, "--items needs at least 1 of them, got nothing"),
    (
        {"items": "mnist-vi,mnist-vi"},
        "--items must not name anything twice, got mnist-vi, mnist-vi",
    ),
    ({"items": "mnist-vi", "data_dir": "/nowhere"}, "mnist was not found in /nowhere"),
    ({"items": "digits-vi", "counts": "1", "num_test": 361}, "num_test=361, but digits has 360"),
    ({"counts": "1,501"}, "--counts must be at most the draws of mnist-hmc (500), got 501"),
    ({"counts": "10,1"}, "--counts must rise, got 10,1"),
    (
        {"counts": "1,1"},
        "--counts must be 1 or more different whole numbers of at least 1, got 1,1",
    ),
    ({"counts": "1,ten"}, "--counts must be 1 or more different whole numbers"),
    ({"counts": ""}, "of at least 1, got nothing"),
    ({"num_images": 0}, "--num_images must be at least 1, got 0"),
    ({"num_orders": 0}, "--num_orders must be at least 1, got 0"),
    ({"batch_size": 0}, "--batch_size must be at least 1, got 0"),
    ({"precision": "float16"}, "--precision=float16: value should be one of <highest|"),
    ({"hmc_hidden": -1}, "--hmc_hidden must be at least 0, got -1"),
    ({"hmc_step_size": "nan"}, "--hmc_step_size must be a finite number of float32, got nan"),
    ({"hmc_step_size": "inf"}, "--hmc_step_size must be a finite number of float32, got inf"),
    ({"vi_hidden": "cifar:3"}, "--vi_hidden must be one number or pairs such as mnist:512"),
    ({"vi_hidden": "0"}, "--vi_hidden must be 1 or more different whole numbers of at least 1"),
    ({"vi_epochs": "3,mnist:4"}, "--vi_epochs must be one number or pairs such as mnist:512"),
    # Also of what is not trained.
    ({"items": "mnist-hmc", "vi_epochs": "mnist:x"}, "--vi_epochs must be 1 or more different"),
    ({"vi_learning_rate": -1}, "--vi_learning_rate must be at least 0, got -1.0"),
    ({"seed": -1}, "--seed must be at least 0, got -1"),
    ({"checkpoint_every": "inf"}, "--checkpoint_every must be a finite number of float32, got inf"),
]


@pytest.mark.parametrize(("given", "message"), CASES)
def test_bad_values_are_refused(given, message, tmp_path, capsys):
    assert message in refuse(tmp_path, capsys, module=loss_gradients, **given)
