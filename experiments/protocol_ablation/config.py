"""Settings of ``experiments.protocol_ablation`` and its scales."""

from __future__ import annotations

import dataclasses
from typing import Any

from bnn_adv.compute.settings import setting
from bnn_adv.data import DATASETS
from bnn_adv.evaluation.suites import SUITES, get_suite
from bnn_adv.networks import ACTIVATIONS, build_network

_SUITES = tuple(name for name, protocol in SUITES.items() if protocol.worst_case)


@dataclasses.dataclass(frozen=True)
class Config:
    """Every flag of the experiment; see ``--help``."""

    dataset: str = setting("mnist", f"Data set: {', '.join(DATASETS)}.")
    data_dir: str = setting("", "Folder of the data; empty looks in the usual places.")
    num_train: int = setting(0, "Training examples (a random subset by seed); 0 takes all.")
    num_test: int = setting(
        500, "Test images of the table of versions (the first ones); 0 takes all."
    )
    num_rows: int = setting(
        0, "Test images (the first ones) of the table of departures; 0 takes all of the above."
    )
    seed: int = setting(0, "Seed from which every result follows.")
    epsilon: float = setting(0.3, "l_inf radius of the attacks, in units of inputs in [0, 1].")
    suite: str = setting("strong", "Suite of the strong worst case.", choices=_SUITES)
    num_factorial: int = setting(
        100,
        "Images (the first ones) that are also attacked under every combination of the switches of "
        "2020 (32 of PGD), for each switch's share of the difference; 0 leaves this out.",
    )
    architecture: str = setting("conv", "Network of VI: fc, fc2 .. fc5 or conv.")
    hidden: int = setting(512, "Units a hidden layer, or channels of the second convolution.")
    activation: str = setting(
        "leaky_relu", f"Activation of VI's network: {', '.join(ACTIVATIONS)}."
    )
    vi_epochs: int = setting(5, "Epochs of variational inference.")
    vi_learning_rate: float = setting(0.01, "Adam's step size.")
    vi_minibatch_size: int = setting(128, "Examples a gradient step.")
    num_draws: int = setting(10, "Draws S that are attacked and predict in the rows of departures.")
    attacker_draws: tuple[str, ...] = setting(
        ("1", "10"), "Draws of attackers in the table of versions."
    )
    defender_draws: tuple[str, ...] = setting(
        ("10", "50", "100"), "Draws of a prediction in the table of versions."
    )
    hmc_hidden: int = setting(32, "Units of HMC's network, which has one hidden layer.")
    hmc_activation: str = setting("relu", f"Activation of it: {', '.join(ACTIVATIONS)}.")
    hmc_minibatch_size: int = setting(5000, "Examples of the published code's HMC minibatches.")
    hmc_num_samples: int = setting(25, "Draws kept of each chain on all the data.")
    hmc_num_chains: int = setting(2, "Chains.")
    hmc_num_warmup: int = setting(100, "Adapting transitions before the first kept draw.")
    hmc_step_size: float = setting(0.002, "First leapfrog step size; it is adapted.")
    hmc_num_integration_steps: int = setting(
        10,
        "Leapfrog steps a transition; on one minibatch, as published, of the first step size: the "
        "trajectory keeps its length as the step size adapts.",
    )
    batch_size: int = setting(125, "Images attacked at once; a divisor of num_test wastes least.")
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.")


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
    """Return the numbers of draws of a setting, rising.

    Raises:
      ValueError: One is not a number of draws, or there is none.
    """
    given = getattr(config, name)
    if not given or not all(text.isdigit() and int(text) for text in given):
        raise ValueError(f"{name} must be numbers of draws, at least 1, got {','.join(given)!r}.")
    return tuple(sorted({int(text) for text in given}))


def validate(config: Config) -> None:
    """Raise before any work starts if a setting is out of range.

    Raises:
      ValueError: The message names the setting, its value and what is allowed.
    """
    for name in ("num_train", "num_test", "num_rows", "num_factorial"):
        if getattr(config, name) < 0:
            raise ValueError(f"{name} must be at least 0, got {getattr(config, name)}.")
    for name in ("num_draws", "batch_size", "hmc_minibatch_size"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}.")
    for name in ("attacker_draws", "defender_draws"):
        list_draws(config, name)
    if max(list_draws(config, "attacker_draws")) > min(list_draws(config, "defender_draws")):
        raise ValueError(
            "attacker_draws must not exceed defender_draws: the first draws of the list that "
            f"predicts are attacked, got {config.attacker_draws} and {config.defender_draws}."
        )
    if not 0 < config.epsilon <= 1:
        raise ValueError(f"epsilon must lie in (0, 1], got {config.epsilon}.")
    if not get_suite(config.suite).worst_case:
        raise ValueError(
            f"suite must be one with a worst case ({', '.join(_SUITES)}), got {config.suite!r}."
        )
    build_network(
        config.architecture, hidden=config.hidden, num_classes=10, activation=config.activation
    )
    build_network("fc", hidden=config.hmc_hidden, num_classes=10, activation=config.hmc_activation)
