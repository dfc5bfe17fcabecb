"""Bad values of flags: refused in one line, before any work, and nothing is left behind."""

import pytest

from experiments.geometry import __main__ as geometry
from tests.experiments.command import refuse

CASES = [
    ({"seed": 2**32}, "--seed must be at most 4294967295, got 4294967296"),
    ({"num_seeds": 1}, "--num_seeds must be at least 2, got 1"),
    ({"dim": 2}, "--dim must be at least 3, got 2"),
    ({"thickness": 0.3}, "--thickness must be at most 0.25, got 0.3"),
    ({"thickness": "nan"}, "--thickness must be a finite number of float32, got nan"),
    ({"activation": "step"}, "--activation=step: value should be one of <relu|"),
    ({"learning_rate": "inf"}, "--learning_rate must be a finite number of float32, got inf"),
    ({"learning_rate": 0}, "--learning_rate must be above 0, got 0.0"),
    ({"minibatch_size": 0}, "--minibatch_size must be at least 1, got 0"),
    ({"steps": "5,5"}, "--steps must not name anything twice, got 5, 5"),
    ({"steps": "9,5"}, "--steps must rise, got 9, 5"),
    ({"steps": "5"}, "--steps needs at least 2 of them, got 5"),
    ({"widths": "a"}, "--widths must be an integer, got 'a'"),
    ({"widths": "8,8"}, "--widths must not name anything twice, got 8, 8"),
    ({"data_sizes": "0,8"}, "--data_sizes must be at least 1, got 0"),
    ({"supports": ""}, "--supports needs at least 1 of them, got nothing"),
    ({"methods": "mcmc"}, "--methods must be one of hmc, vi, ensemble, got 'mcmc'"),
    ({"methods": "vi,vi"}, "--methods must not name anything twice, got vi, vi"),
    ({"mirror_points": 50}, "--mirror_points must be at most num_probe (40), got 50"),
    ({"mirror_steps": 0}, "--mirror_steps must be at least 1, got 0"),
    ({"posterior_samples": 10}, "--posterior_samples must be a multiple of hmc_chains (4), got 10"),
    ({"ensemble_members": 3}, "--ensemble_members must be a multiple of hmc_chains (4), got 3"),
    ({"hmc_chains": 1}, "--hmc_chains must be at least 2, got 1"),
    ({"hmc_warmup": -1}, "--hmc_warmup must be at least 0, got -1"),
    ({"checkpoint_every": -1}, "--checkpoint_every must be at least 0, got -1.0"),
]


@pytest.mark.parametrize(("given", "message"), CASES)
def test_bad_values_are_refused(given, message, tmp_path, capsys):
    assert message in refuse(tmp_path, capsys, module=geometry, **given)
