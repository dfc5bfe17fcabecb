"""Settings of ``experiments.loss_gradients``, and the networks and methods that they name."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any, NamedTuple

from flax import linen as nn

from bnn_adv.compute.settings import PRECISIONS, SettingError, seed, setting
from bnn_adv.inference import hmc, svi
from bnn_adv.networks import build_network
from experiments.launch.checks import parse_counts
from experiments.launch.mixed import SampledChains, mixed_hmc
from experiments.launch.presets import PRESETS

DATASETS = ("mnist", "fashion_mnist", "digits")
METHODS = ("hmc", "vi")
_MIXED = "hmc-mixed"
_PUBLISHED = tuple(f"{dataset}-{method}" for dataset in DATASETS for method in METHODS)
"""An item's place here decides its random keys; those of all others come from their names."""
ITEMS = (*_PUBLISHED, *(f"{dataset}-{_MIXED}" for dataset in DATASETS))
"""Data set and method."""
_TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion MNIST", "digits": "digits"}


@dataclasses.dataclass(frozen=True)
class Config(SampledChains):
    """Settings of ``experiments.loss_gradients``.

    Where a setting of HMC or VI is 0 or empty, it is the paper's (tables 3 and 4). Settings of
    mixed HMC, an item beside the paper's, are none of the paper's.
    """

    seed: int = seed()
    data_dir: str = setting(
        "", "Folder with the data; empty looks in the usual places.", is_path=True
    )
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.", least=0)
    items: tuple[str, ...] = setting(
        ITEMS[:4], "What to measure.", choices=ITEMS, is_distinct=True, least_length=1
    )
    counts: tuple[str, ...] = setting(
        ("1", "10", "50", "100", "500"), "Numbers of draws S in the expectation, rising."
    )
    num_train: int = setting(
        0, "Training examples (a random subset by seed); 0 takes all.", least=0
    )
    num_test: int = setting(
        1000, "Test images whose gradients are taken (the first ones).", least=1
    )
    num_images: int = setting(4, "Images in a figure of pixels.", least=1)
    selection: str = setting(
        "seed",
        "Images in that figure: drawn by seed, or as published by outcome (the first whose norm "
        "never rises with S).",
        choices=("seed", "published"),
    )
    num_orders: int = setting(16, "Random orders of the draws over which norms are taken.", least=1)
    batch_size: int = setting(128, "Images at once.", least=1)
    precision: str = setting(
        "highest",
        "Matrix products of sampling and gradients; highest is float32.",
        choices=PRECISIONS,
    )
    hmc_hidden: int = setting(0, "Units of the HMC network; 0: table 3.", least=0)
    hmc_num_samples: int = setting(0, "Draws kept of each chain; 0: table 3.", least=0)
    hmc_num_chains: int = setting(0, "Chains side by side; 0: one.", least=0)
    hmc_num_warmup: int = setting(0, "Adapting transitions before the first draw; 0: 100.", least=0)
    hmc_step_size: float = setting(0.0, "First leapfrog step size; 0: table 3.", least=0)
    hmc_num_integration_steps: int = setting(0, "Leapfrog steps a transition; 0: table 3.", least=0)
    hmc_init: str = setting(
        "",
        "Start of the chains: the prior, or the network's initialiser; empty: the prior.",
        choices=("", "prior", "network"),
    )
    mixed_num_train: int = setting(
        6000, "Mixed HMC: training examples (a random subset by seed); 0 takes all.", least=0
    )
    mixed_hidden: int = setting(32, "Mixed HMC: units of the network.", least=1)
    vi_hidden: tuple[str, ...] = setting(
        (), "Width of the VI network: one number, or data_set:number pairs; empty: table 4."
    )
    vi_epochs: tuple[str, ...] = setting((), "Epochs of VI, written alike; empty: table 4.")
    vi_learning_rate: float = setting(0.0, "Adam's step size of VI; 0: table 4.", least=0)
    vi_protocol: str = setting(
        "published",
        "Start of the guide and weight of its KL term: as published, or corrected.",
        choices=("published", "corrected"),
    )

    def __post_init__(self) -> None:
        """Check every field, that numbers of draws rise, and that there are as many draws."""
        super().__post_init__()
        counts = parse_counts("counts", self.counts)
        if list(counts) != sorted(counts):
            raise SettingError("counts", f"must rise, got {','.join(self.counts)}.")
        for flag in ("vi_hidden", "vi_epochs"):
            for dataset in DATASETS:
                _by_dataset(flag, getattr(self, flag), dataset)
        for name in self.items:
            draws = build_item(self, name).settings.num_draws
            if counts[-1] > draws:
                prefix = "mixed" if name.endswith(_MIXED) else "hmc"
                problem = (
                    f"must be at most the draws of {name} ({draws}), got {counts[-1]}: raise "
                    f"{prefix}_num_samples or {prefix}_num_chains, or lower counts."
                )
                raise SettingError("counts", problem)


_OF_LENGTH = ("trajectory_length", "target_acceptance_rate")
"""Settings of presets whose trajectories have a length in place of a number of steps."""

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "items": ("digits-hmc", "digits-vi", "digits-hmc-mixed"),
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
        "mixed_num_train": 100,
        "mixed_hidden": 16,
        "mixed_num_samples": 4,
        "mixed_num_chains": 2,
        "mixed_num_warmup": 10,
        "mixed_thinning": 1,
        "mixed_step_size": 0.02,
        "mixed_max_steps": 100,
        "vi_hidden": ("16",),
        "vi_epochs": ("4",),
    },
    # The VI network of MNIST is the paper's; the others are narrower, for two cores. Mixed HMC has
    # the data and the network with which chains mix within an hour, as they do on MNIST alone.
    "cpu": {
        "items": (*_PUBLISHED[:4], f"mnist-{_MIXED}"),
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
    title: Data set and method, for readers.
    num_train: Training examples; 0: all.
    stream: Number that its random keys are derived with.
    is_mixed: Whether HMC has long trajectories, and may come from a run that has sampled them.
    """

    name: str
    dataset: str
    method: str
    network: nn.Module
    settings: Any
    size: str
    title: str
    num_train: int
    stream: int
    is_mixed: bool


def build_item(config: Config, name: str) -> Item:
    """Return what an item trains: the paper's settings, overlaid by flags that are not empty."""
    dataset, kind = name.split("-", 1)
    is_mixed = kind == _MIXED
    method = kind.partition("-")[0]
    table = {"hmc": "table3", "vi": "table4"}[method]
    preset = PRESETS["digits" if dataset == "digits" else f"{table}_{dataset}"]
    build = _mixed if is_mixed else _hmc if method == "hmc" else _vi
    hidden, settings = build(config, dataset, preset)
    architecture = {"mlp": "fc", "conv": "conv"}[preset["network"]]
    network = build_network(
        architecture,
        hidden=hidden,
        num_classes=10,
        activation=preset[f"{preset['network']}.activation"],
    )
    return Item(
        name,
        dataset,
        method,
        network,
        settings,
        f"{architecture} {hidden}",
        # Whether chains have mixed is for diagnostics to say, not for a name.
        f"{_TITLES[dataset]}, {method.upper()}{' of long trajectories' if is_mixed else ''}",
        config.mixed_num_train if is_mixed else config.num_train,
        _PUBLISHED.index(name) if name in _PUBLISHED else zlib.crc32(name.encode()),
        is_mixed,
    )


def read_counts(config: Config) -> tuple[int, ...]:
    """Return the numbers of draws as integers."""
    return tuple(map(int, config.counts))


def _hmc(config: Config, dataset: str, preset: dict[str, Any]) -> tuple[int, hmc.Config]:
    def pick(name: str) -> Any:
        return getattr(config, f"hmc_{name}") or preset[f"hmc.{name}"]

    # A number of steps that a flag gives stands in place of a preset's length, and of what goes
    # with it.
    names = () if config.hmc_num_integration_steps else _OF_LENGTH
    settings = hmc.Config(
        num_samples=pick("num_samples"),
        num_warmup=pick("num_warmup"),
        num_chains=pick("num_chains"),
        step_size=pick("step_size"),
        num_integration_steps=config.hmc_num_integration_steps
        or preset.get("hmc.num_integration_steps", 10),
        adapt=preset["hmc.adapt"],
        init=pick("init"),
        precision=config.precision,
        **{name: preset[f"hmc.{name}"] for name in names if f"hmc.{name}" in preset},
    )
    own = preset.get("hmc.mlp.hidden", preset[f"{preset['network']}.hidden"])
    return config.hmc_hidden or own, settings


def _mixed(config: Config, dataset: str, preset: dict[str, Any]) -> tuple[int, hmc.Config]:
    return config.mixed_hidden, mixed_hmc(config, precision=config.precision)


def _vi(config: Config, dataset: str, preset: dict[str, Any]) -> tuple[int, svi.Config]:
    is_published = config.vi_protocol == "published"
    settings = svi.Config(
        num_samples=read_counts(config)[-1],
        num_epochs=_by_dataset("vi_epochs", config.vi_epochs, dataset) or preset["vi.num_epochs"],
        learning_rate=config.vi_learning_rate or preset["vi.learning_rate"],
        kl_weight="published" if is_published else "corrected",
        init="published" if is_published else "network",
    )
    return _by_dataset("vi_hidden", config.vi_hidden, dataset) or preset[
        f"{preset['network']}.hidden"
    ], settings


def _by_dataset(flag: str, values: tuple[str, ...], dataset: str) -> int:
    """Return a data set's number, or 0 where none is given."""
    if not values:
        return 0
    if len(values) == 1 and ":" not in values[0]:
        return _integer(flag, values[0])
    pairs = dict(value.split(":", 1) for value in values if ":" in value)
    if len(pairs) < len(values) or not set(pairs) <= set(DATASETS):
        raise SettingError(
            flag,
            "must be one number or pairs such as mnist:512 with the data sets "
            f"{', '.join(DATASETS)}, got {','.join(values)}.",
        )
    return _integer(flag, pairs[dataset]) if dataset in pairs else 0


def _integer(flag: str, text: str) -> int:
    return parse_counts(flag, (text,))[0]
