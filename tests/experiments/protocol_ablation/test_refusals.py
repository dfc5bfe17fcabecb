"""Bad values of flags: refused in one line, before any work, and nothing is left behind."""

import pytest

from experiments.protocol_ablation import __main__ as protocol_ablation
from tests.experiments.command import refuse

CASES = [
    ({"parts": "vi"}, "--parts must be one of published, hmc, got 'vi'"),
    ({"dataset": "letters"}, "--dataset=letters: value should be one of <digits|"),
    (
        {"dataset": "digits", "num_test": 12},
        "--architecture=conv does not take the inputs of digits, of shape [8,",
    ),
    ({"dataset": "half_moons"}, "--architecture=conv does not take the inputs of half_moons"),
    ({"dataset": "mnist", "data_dir": "/nowhere"}, "mnist was not found in /nowhere"),
    ({"dataset": "digits", "architecture": "fc", "num_test": 361}, "num_test=361, but digits has"),
    ({"num_train": -1}, "--num_train must be at least 0, got -1"),
    ({"num_rows": -1}, "--num_rows must be at least 0, got -1"),
    ({"epsilon": 1.5}, "--epsilon must be at most 1, got 1.5"),
    ({"epsilon": "nan"}, "--epsilon must be a finite number of float32, got nan"),
    ({"suite": "corrected"}, "--suite=corrected: value should be one of <"),
    ({"num_factorial": -1}, "--num_factorial must be at least 0, got -1"),
    ({"architecture": "resnet"}, "--architecture=resnet: value should be one of <fc|"),
    ({"hidden": 0}, "--hidden must be at least 1, got 0"),
    ({"activation": "step"}, "--activation=step: value should be one of <relu|"),
    ({"vi_epochs": 0}, "--vi_epochs must be at least 1, got 0"),
    ({"vi_learning_rate": "inf"}, "--vi_learning_rate must be a finite number of float32, got inf"),
    ({"vi_minibatch_size": 0}, "--vi_minibatch_size must be at least 1, got 0"),
    ({"num_draws": 0}, "--num_draws must be at least 1, got 0"),
    ({"attacker_draws": "ten"}, "--attacker_draws must be 1 or more different whole numbers"),
    ({"attacker_draws": "1,1"}, "whole numbers of at least 1, got 1,1"),
    ({"attacker_draws": ""}, "--attacker_draws needs at least 1 of them, got nothing"),
    ({"attacker_draws": "20"}, "--attacker_draws must be at most the smallest of defender_draws"),
    (
        {"dataset": "digits", "architecture": "fc", "num_test": 20, "mixed_num_train": 2000},
        "--mixed_num_train must be at most the 1437 training examples, or 0 for none, got 2000",
    ),
    ({"hmc_hidden": 0}, "--hmc_hidden must be at least 1, got 0"),
    ({"hmc_minibatch_size": 0}, "--hmc_minibatch_size must be at least 1, got 0"),
    ({"hmc_num_samples": 0}, "--hmc_num_samples must be at least 1, got 0"),
    ({"hmc_num_chains": 0}, "--hmc_num_chains must be at least 1, got 0"),
    ({"hmc_num_warmup": -1}, "--hmc_num_warmup must be at least 0, got -1"),
    ({"hmc_step_size": "1e308"}, "--hmc_step_size must be a finite number of float32, got 1e+308"),
    ({"hmc_num_integration_steps": 0}, "--hmc_num_integration_steps must be at least 1, got 0"),
    ({"batch_size": 0}, "--batch_size must be at least 1, got 0"),
    ({"seed": -1}, "--seed must be at least 0, got -1"),
]


@pytest.mark.parametrize(("given", "message"), CASES)
def test_bad_values_are_refused(given, message, tmp_path, capsys):
    assert message in refuse(tmp_path, capsys, module=protocol_ablation, **given)
