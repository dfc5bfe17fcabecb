"""``experiments.launch.mixed``: settings of chains that mix, and what is said of them."""

import pytest

from experiments.launch.mixed import MixedChains, describe_chains, mixed_hmc

GOOD = {
    **{"num_chains": 4, "rhat": "rank-normalised split", "max_rhat": 1.012, "min_ess": 182.4},
    **{"log_density_rhat": 1.031, "log_density_ess": 390.0},
}


def test_trajectories_have_the_priors_scale():
    config = mixed_hmc(MixedChains(mixed_num_samples=7, mixed_num_chains=3), num_warmup=5)
    assert (config.num_draws, config.num_warmup, config.trajectory_length) == (21, 5, 1.3)
    assert (config.init, config.adapt) == ("prior", "step_size")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "mixed (maximum R-hat 1.03, smallest ESS 182)"),
        ({"max_rhat": 2.0}, "unmixed: not judged (maximum R-hat 2.00)"),
        ({"num_chains": 1}, "not judged (one chain)"),
    ],
)
def test_chains_are_described_with_the_numbers_that_say_so(changes, words):
    assert describe_chains(GOOD | changes) == words
