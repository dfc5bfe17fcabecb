"""Bad values of flags: refused in one line, before any work, and nothing is left behind."""

import pytest

from experiments.bayesian_gain import __main__ as bayesian_gain
from tests.experiments.command import refuse

CASES = [
    ({"datasets": "letters"}, "--datasets must be one of digits, "),
    ({"datasets": ""}, "--datasets needs at least 1 of them, got nothing"),
    ({"datasets": "mnist", "data_dir": "/nowhere"}, "mnist was not found in /nowhere"),
    ({"datasets": "digits", "num_test": 361, "num_train": 0}, "num_test=361, but digits has"),
    ({"datasets": "digits", "num_test": 9, "num_train": 9999}, "num_train=9999, but digits"),
    ({"hidden": "0"}, "--hidden must be at least 1, got 0"),
    (
        {"networks": "fc", "channels": "4,8"},
        "--channels of 4,8 are for small_conv; the",
    ),
    ({"num_repeats": 0}, "--num_repeats must be at least 1, got 0"),
    ({"methods": "sgd,vi"}, "--methods needs sgd and hmc, which all others are compared with"),
    ({"sampler": "mclmc", "methods": "sgd,hmc"}, "compared with, got sgd, hmc: add them, or"),
    ({"methods": "sgd,hmc", "mclmc_thinning": 3}, "--mclmc_thinning is of mclmc, got 3: add it"),
    ({"methods": "sgd,mclmc", "sampler": "mclmc", "hmc_draws": 402}, "--hmc_draws must be a mul"),
    ({"methods": "sgd,hmc,mclmc", "mixed_runs": "x", "hmc_draws": 402}, "--hmc_draws must be a"),
    ({"methods": "sgd,hmc,sam"}, "--methods must be one of sgd, map, vi"),
    ({"epsilons": "0,0.1"}, "--epsilons must be above 0, got 0.0"),
    ({"epsilons": "0.1,5"}, "--epsilons must be at most 1, got 5.0"),
    ({"close_epsilons": "0.07"}, "--close_epsilons must be some of epsilons, got [0.07]"),
    ({"num_draws": 102}, "--num_draws must be a multiple of chains (4), got 102"),
    ({"hmc_draws": 402}, "--hmc_draws must be a multiple of chains (4), got 402"),
    ({"hmc_draws": 40}, "--hmc_draws must be at least num_draws (100), got 40"),
    ({"cold_draws": 40}, "--cold_draws must be at least num_draws (100), got 40"),
    ({"members": 101}, "--members must be at most num_draws (100), got 101"),
    ({"num_fresh": 51}, "--num_fresh must be at most half of num_draws (100), got 51"),
    ({"sizes": "1,1"}, "--sizes must not name anything twice, got 1, 1"),
    ({"suite": "published"}, "--suite=published: value should be one of <strong|fast|full>"),
    ({"cold": 1.0}, "--cold must be below 1, got 1.0"),
    ({"hmc_length": 0}, "--hmc_length must be above 0, got 0.0"),
]


@pytest.mark.parametrize(("given", "message"), CASES)
def test_bad_values_are_refused(given, message, tmp_path, capsys):
    assert message in refuse(tmp_path, capsys, module=bayesian_gain, **given)
