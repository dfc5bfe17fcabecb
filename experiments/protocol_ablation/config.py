"""Settings of ``experiments.protocol_ablation`` and its scales."""

from __future__ import annotations

import dataclasses
from typing import Any

from bnn_adv.compute.settings import SettingError, seed, setting
from bnn_adv.data import DATASETS
from bnn_adv.evaluation.suites import SUITES
from bnn_adv.networks import ACTIVATIONS, ARCHITECTURES
from experiments.launch.checks import parse_counts
from experiments.launch.mixed import SampledChains

PARTS = ("published", "hmc")

_SUITES = tuple(name for name, suite in SUITES.items() if suite.worst_case)


@dataclasses.dataclass(frozen=True)
class Config(SampledChains):
    """Settings of ``experiments.protocol_ablation``."""

    parts: tuple[str, ...] = setting(
        PARTS,
        "What is done: published, the versions and departures of the published code on VI; hmc, "
        "HMC on all the data, on one minibatch as published, and mixed.",
        choices=PARTS,
        is_distinct=True,
        least_length=1,
    )
    dataset: str = setting("mnist", "Data set.", choices=tuple(DATASETS))
    data_dir: str = setting(
        "", "Folder of the data; empty looks in the usual places.", is_path=True
    )
    num_train: int = setting(
        0, "Training examples (a random subset by seed); 0 takes all.", least=0
    )
    num_test: int = setting(
        500, "Test images of the table of versions (the first ones); 0 takes all.", least=0
    )
    num_rows: int = setting(
        0,
        "Test images (the first ones) of the table of departures; 0 takes all of the above.",
        least=0,
    )
    seed: int = seed()
    epsilon: float = setting(
        0.3, "l_inf radius of the attacks, in units of inputs in [0, 1].", above=0, most=1
    )
    suite: str = setting("strong", "Suite of the strong worst case.", choices=_SUITES)
    num_factorial: int = setting(
        100,
        "Images (the first ones) that are also attacked under every combination of the switches of "
        "2020 (32 of PGD), for each switch's share of the difference; 0 leaves this out.",
        least=0,
    )
    architecture: str = setting("conv", "Network of VI.", choices=ARCHITECTURES)
    hidden: int = setting(
        512, "Units a hidden layer, or channels of the second convolution.", least=1
    )
    activation: str = setting(
        "leaky_relu", "Activation of VI's network.", choices=tuple(ACTIVATIONS)
    )
    vi_epochs: int = setting(5, "Epochs of variational inference.", least=1)
    vi_learning_rate: float = setting(0.01, "Adam's step size.", above=0)
    vi_minibatch_size: int = setting(128, "Examples a gradient step.", least=1)
    num_draws: int = setting(
        10, "Draws S that are attacked and predict in the rows of departures.", least=1
    )
    attacker_draws: tuple[str, ...] = setting(
        ("1", "10"), "Draws of attackers in the table of versions.", least_length=1
    )
    defender_draws: tuple[str, ...] = setting(
        ("10", "50", "100"), "Draws of a prediction in the table of versions.", least_length=1
    )
    hmc_hidden: int = setting(32, "Units of HMC's network, which has one hidden layer.", least=1)
    hmc_activation: str = setting("relu", "Activation of it.", choices=tuple(ACTIVATIONS))
    hmc_minibatch_size: int = setting(
        5000, "Examples of the published code's HMC minibatches.", least=1
    )
    hmc_num_samples: int = setting(25, "Draws kept of each chain on all the data.", least=1)
    hmc_num_chains: int = setting(2, "Chains.", least=1)
    hmc_num_warmup: int = setting(100, "Adapting transitions before the first kept draw.", least=0)
    hmc_step_size: float = setting(0.002, "First leapfrog step size; it is adapted.", above=0)
    hmc_num_integration_steps: int = setting(
        10,
        "Leapfrog steps a transition; on one minibatch, as published, of the first step size: the "
        "trajectory keeps its length as the step size adapts.",
        least=1,
    )
    mixed_num_train: int = setting(
        0, "Mixed HMC: training examples (a random subset by seed); 0 leaves it out.", least=0
    )
    mixed_hidden: int = setting(32, "Mixed HMC: units of the network.", least=1)
    mixed_num_draws: int = setting(
        50, "Mixed HMC: draws, evenly spaced along the chains, that predict.", least=1
    )
    batch_size: int = setting(
        125, "Images attacked at once; a divisor of num_test wastes least.", least=1
    )
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.", least=0)

    def __post_init__(self) -> None:
        """Check every field, and that no attacker has more draws than a prediction."""
        super().__post_init__()
        attackers, defenders = (
            parse_counts(name, getattr(self, name)) for name in ("attacker_draws", "defender_draws")
        )
        if max(attackers) > min(defenders):
            raise SettingError(
                "attacker_draws",
                f"must be at most the smallest of defender_draws ({min(defenders)}), as the first "
                f"draws of the list that predicts are attacked, got {max(attackers)}.",
            )


SCALES: dict[str, dict[str, Any]] = {
    # The embedded 8x8 digits: seconds. Its numbers show that everything runs, and nothing else.
    # One draw each, HMC's network that of VI: the time goes into programs, and these share them.
    "smoke": {
        "dataset": "digits",
        "num_train": 200,
        "num_test": 12,
        "epsilon": 0.2,
        "suite": "fast",
        "num_factorial": 0,
        "architecture": "fc",
        "hidden": 16,
        "activation": "relu",
        "vi_epochs": 10,
        "num_draws": 1,
        "attacker_draws": ("1",),
        "defender_draws": ("1", "2"),
        "hmc_hidden": 16,
        "hmc_minibatch_size": 100,
        "hmc_num_samples": 1,
        "hmc_num_chains": 1,
        "hmc_num_warmup": 20,
        "hmc_step_size": 0.005,
        "batch_size": 12,
        "checkpoint_every": 0.0,
    },
    # Table 4's network as it is: with 32 channels the published training has not learnt after its 5
    # epochs (17 of the first 100 test images), and no gradient is zero.
    "cpu": {
        "num_test": 500,
        "num_rows": 200,
        "batch_size": 100,
        "num_factorial": 40,
        "suite": "fast",
        "mixed_num_train": 6000,
    },
    # Table 4's network on Table 2's 1,000 images; HMC as Table 3.
    "paper": {
        "num_test": 1000,
        "batch_size": 1000,
        "hmc_hidden": 1024,
        "hmc_num_samples": 500,
        "hmc_num_chains": 1,
    },
}


def list_draws(config: Config, name: str) -> tuple[int, ...]:
    """Return the numbers of draws of a setting, rising."""
    return tuple(sorted(map(int, getattr(config, name))))
