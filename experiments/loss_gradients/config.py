"""Settings of ``experiments.loss_gradients``, and the networks and methods that they name."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from flax import linen as nn

from bnn_adv.compute.settings import setting
from bnn_adv.inference import hmc, svi
from bnn_adv.inference.base import check_positive
from bnn_adv.networks import build_network
from experiments.launch.presets import PRESETS

DATASETS = ("mnist", "fashion_mnist", "digits")
METHODS = ("hmc", "vi")
ITEMS = tuple(f"{dataset}-{method}" for dataset in DATASETS for method in METHODS)
"""Data set and method; an item's place here decides its random keys."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Every flag; see ``python -m experiments.loss_gradients --help``.

    Where a setting of HMC or VI is 0 or empty, it is the paper's (tables 3 and 4).
    """

    seed: int = setting(0, "Seed from which every result follows.")
    data_dir: str = setting("", "Folder with the data; empty looks in the usual places.")
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.")
    items: tuple[str, ...] = setting(ITEMS[:4], f"What to measure, of {', '.join(ITEMS)}.")
    counts: tuple[str, ...] = setting(
        ("1", "10", "50", "100", "500"), "Numbers of draws S in the expectation, rising."
    )
    num_train: int = setting(0, "Training examples (a random subset by seed); 0 takes all.")
    num_test: int = setting(1000, "Test images whose gradients are taken (the first ones).")
    num_images: int = setting(4, "Images in a figure of pixels.")
    selection: str = setting(
        "seed",
        "Images in that figure: drawn by seed, or as published by outcome (the first whose norm "
        "never rises with S).",
        choices=("seed", "published"),
    )
    num_orders: int = setting(16, "Random orders of the draws over which norms are taken.")
    batch_size: int = setting(128, "Images at once.")
    precision: str = setting(
        "highest",
        "Matrix products of sampling and gradients; highest is float32.",
        choices=("highest", "tensorfloat32", "bfloat16"),
    )
    hmc_hidden: int = setting(0, "Units of the HMC network; 0: table 3.")
    hmc_num_samples: int = setting(0, "Draws kept of each chain; 0: table 3.")
    hmc_num_chains: int = setting(0, "Chains side by side; 0: one.")
    hmc_num_warmup: int = setting(0, "Adapting transitions before the first draw; 0: 100.")
    hmc_step_size: float = setting(0.0, "First leapfrog step size; 0: table 3.")
    hmc_num_integration_steps: int = setting(0, "Leapfrog steps a transition; 0: table 3.")
    hmc_init: str = setting(
        "",
        "Start of the chains: the prior, or the network's initialiser; empty: the prior.",
        choices=("", "prior", "network"),
    )
    vi_hidden: tuple[str, ...] = setting(
        (), "Width of the VI network: one number, or data_set:number pairs; empty: table 4."
    )
    vi_epochs: tuple[str, ...] = setting((), "Epochs of VI, written alike; empty: table 4.")
    vi_learning_rate: float = setting(0.0, "Adam's step size of VI; 0: table 4.")
    vi_protocol: str = setting(
        "published",
        "Start of the guide and weight of its KL term: as published, or corrected.",
        choices=("published", "corrected"),
    )


SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "items": ("digits-hmc", "digits-vi"),
        "counts": ("1", "4", "8"),
        "num_train": 200,
        "num_test": 12,
        "num_images": 2,
        "num_orders": 4,
        "hmc_hidden": 16,
        "hmc_num_samples": 4,
        "hmc_num_chains": 2,
        "hmc_num_warmup": 10,
        "hmc_num_integration_steps": 5,
        "vi_hidden": ("16",),
        "vi_epochs": ("4",),
    },
    # The VI network of MNIST is the paper's; the others are narrower, for two cores.
    "cpu": {
        "counts": ("1", "10", "50", "100"),
        "num_test": 500,
        "hmc_hidden": 64,
        "hmc_num_samples": 50,
        "hmc_num_chains": 2,
        "hmc_init": "network",
        "vi_hidden": ("mnist:512", "fashion_mnist:32"),
        "vi_epochs": ("mnist:5", "fashion_mnist:2"),
    },
    # Tables 3 and 4, and 1,000 test images: the defaults.
    "paper": {},
}


class Item(NamedTuple):
    """What is trained for one item.

    name: In ``ITEMS``.
    dataset: Name of the data set.
    method: ``"hmc"`` or ``"vi"``.
    network: The network.
    settings: ``hmc.Config`` or ``svi.Config``.
    size: The network's width, for captions.
    """

    name: str
    dataset: str
    method: str
    network: nn.Module
    settings: Any
    size: str


def build_item(config: Config, name: str) -> Item:
    """Return what an item trains: the paper's settings, overlaid by flags that are not empty."""
    dataset, method = name.split("-")
    table = {"hmc": "table3", "vi": "table4"}[method]
    preset = PRESETS["digits" if dataset == "digits" else f"{table}_{dataset}"]
    build = _hmc if method == "hmc" else _vi
    hidden, settings = build(config, dataset, preset)
    architecture = preset["architecture"]
    network = build_network(
        architecture, hidden=hidden, num_classes=10, activation=preset["activation"]
    )
    return Item(name, dataset, method, network, settings, f"{architecture} {hidden}")


def read_counts(config: Config) -> tuple[int, ...]:
    """Return the numbers of draws as integers.

    Raises:
      ValueError: One is no integer.
    """
    return tuple(_integer("counts", text) for text in config.counts)


def validate(config: Config) -> None:
    """Raise before any work starts if a setting is out of range.

    Raises:
      ValueError: The message names the setting, its value and what is allowed.
    """
    unknown = [name for name in config.items if name not in ITEMS]
    if unknown or not config.items or len(set(config.items)) < len(config.items):
        raise ValueError(
            f"--items must be different ones of {', '.join(ITEMS)}, got {', '.join(config.items)}."
        )
    check_positive(config, "num_test", "num_images", "num_orders", "batch_size")
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.type in ("int", "float") and field.name != "seed" and not value >= 0:
            raise ValueError(f"--{field.name} must be at least 0, got {value}.")
    counts = read_counts(config)
    if not counts or counts[0] < 1 or list(counts) != sorted(set(counts)):
        raise ValueError(f"--counts must rise from 1 or more, got {','.join(config.counts)}.")
    for name in config.items:
        item = build_item(config, name)
        if item.method == "hmc":
            draws = item.settings.num_samples * item.settings.num_chains
            if counts[-1] > draws:
                raise ValueError(
                    f"--counts asks for {counts[-1]} draws and {name} has {draws}: raise "
                    "--hmc_num_samples or --hmc_num_chains, or lower --counts."
                )


def _hmc(config: Config, dataset: str, preset: dict[str, Any]) -> tuple[int, hmc.Config]:
    def pick(name: str) -> Any:
        return getattr(config, f"hmc_{name}") or preset[f"hmc_{name}"]

    settings = hmc.Config(
        num_samples=pick("num_samples"),
        num_warmup=pick("num_warmup"),
        num_chains=pick("num_chains"),
        step_size=pick("step_size"),
        num_integration_steps=pick("num_integration_steps"),
        adapt=preset["hmc_adapt"],
        init=pick("init"),
        precision=config.precision,
    )
    return config.hmc_hidden or preset["hidden"], settings


def _vi(config: Config, dataset: str, preset: dict[str, Any]) -> tuple[int, svi.Config]:
    is_published = config.vi_protocol == "published"
    settings = svi.Config(
        num_samples=read_counts(config)[-1],
        num_epochs=_by_dataset("vi_epochs", config.vi_epochs, dataset) or preset["vi_epochs"],
        learning_rate=config.vi_learning_rate or preset["vi_learning_rate"],
        kl_weight="published" if is_published else "corrected",
        init="published" if is_published else "network",
    )
    return _by_dataset("vi_hidden", config.vi_hidden, dataset) or preset["hidden"], settings


def _by_dataset(flag: str, values: tuple[str, ...], dataset: str) -> int:
    """Return a data set's number, or 0 where none is given."""
    if len(values) == 1 and ":" not in values[0]:
        return _integer(flag, values[0])
    pairs = dict(value.split(":", 1) for value in values if ":" in value)
    if len(pairs) < len(values) or not set(pairs) <= set(DATASETS):
        raise ValueError(
            f"--{flag} must be one number or pairs such as mnist:512 with the data sets "
            f"{', '.join(DATASETS)}, got {','.join(values)}."
        )
    return _integer(flag, pairs[dataset]) if dataset in pairs else 0


def _integer(flag: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ValueError(f"--{flag} must hold whole numbers of at least 1, got {text!r}.")
    return value
