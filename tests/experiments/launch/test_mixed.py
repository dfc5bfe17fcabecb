"""``experiments.launch.mixed``: settings of chains that mix, and what is said of them."""

import json

import pytest

from bnn_adv.inference import hmc
from bnn_adv.inference.diagnostics import has_mixed
from experiments.bayesian_gain import config as bayesian_gain
from experiments.bayesian_gain.trainings import TRAININGS
from experiments.half_moons import config as half_moons
from experiments.launch.compare_config import make_comparison
from experiments.launch.mixed import CHAINS, MixedChains, describe_chains, mixed_hmc
from experiments.launch.presets import PRESETS
from experiments.readme.__main__ import ROOT

GOOD = {
    **{"num_chains": 4, "rhat": "rank-normalised split", "max_rhat": 1.012, "min_ess": 182.4},
    **{"log_density_rhat": 1.031, "log_density_ess": 390.0},
}

GAIN_SCALES = [bayesian_gain.SCALES[name] for name in ("digits", "cpu")]
SAME = {"adapt": "step_size", "init": "prior"}
HMC = {
    # Warm-up, draws a chain, first step, length, acceptance rate, most steps.
    "digits": (50, 150, 0.005, 1.3, 0.6, 1000),
    "mixed_digits": (100, 200, 0.005, 1.3, 0.6, 1000),
    "mixed_half_moons": (60, 150, 0.003, 1.3, 0.7, 1000),
    "mixed_mnist": (50, 100, 0.003, 1.3, 0.7, 1000),
    "mixed_fashion_mnist": (200, 40, 0.003, 1.3, 0.7, 1000),
    "studies": (50, 100, 0.003, 1.3, 0.7, 800),
    "half_moons": (100, 200, 0.004, 1.5, 0.8, 800),
    "gain digits": (100, 100, 0.01, 1.5, 0.8, 400),
    "gain cpu": (50, 100, 0.003, 1.3, 0.7, 500),
    "gain paper": (60, 100, 0.003, 1.3, 0.7, 800),
}
THINNING = {
    **{"mixed_mnist": 3, "mixed_fashion_mnist": 49, "studies": 3},
    **{"gain cpu": 3, "gain paper": 5},
}


def _chains(name):
    """Return the settings of HMC that a preset or a study uses."""
    if name in PRESETS:
        return make_comparison(PRESETS[name]).rows[-1].config
    if name == "studies":
        return mixed_hmc(MixedChains())
    if name == "half_moons":
        return mixed_hmc(half_moons.Config(**half_moons.SCALES["cpu"]))
    config = bayesian_gain.Config(**bayesian_gain.SCALES[name.removeprefix("gain ")])
    return TRAININGS["hmc"].configure(config, 6000)


@pytest.mark.parametrize("name", [f"mixed_{name}" for name in CHAINS])
def test_committed_runs_of_the_presets_have_mixed(name):
    """What is judged by these chains stands on this."""
    path = ROOT / "experiments" / "results" / name / "results.json"
    (row,) = json.loads(path.read_text("utf-8"))["rows"]
    found = row["diagnostics"]
    assert has_mixed(found)
    assert found["num_chains"] >= 4
    assert max(found["max_rhat"], found["log_density_rhat"]) <= 1.05
    assert min(found["min_ess"], found["log_density_ess"]) >= 100
    assert found["num_divergent"] == 0


@pytest.mark.parametrize("name", HMC)
def test_settings_are_those_that_were_run(name):
    """Committed results are of these: one declaration serves presets and studies."""
    warmup, samples, step, length, rate, most = HMC[name]
    assert _chains(name) == hmc.Config(
        num_warmup=warmup,
        num_samples=samples,
        step_size=step,
        trajectory_length=length,
        target_acceptance_rate=rate,
        max_integration_steps=most,
        thinning=THINNING.get(name, 1),
        **SAME | {"num_chains": 16 if name == "mixed_fashion_mnist" else 4},
    )


def test_values_of_a_data_set_stand_in_one_place():
    """What presets and studies use follows from it."""
    for name in ("digits", "half_moons", "mnist", "fashion_mnist"):
        flags = CHAINS[name].to_flags()
        assert flags.items() <= PRESETS[f"mixed_{name}"].items()
        assert flags["hmc.step_size"] == CHAINS[name].step_size
    cold = [(config["cold_draws"], config["cold_length"]) for config in GAIN_SCALES]
    assert cold == [(400, 3.0), (100, 1.3)]


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
