"""Settings of ``experiments.robustness_accuracy``, its scales, and which networks they name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bnn_adv.compute.settings import SettingError, data_folder, seed, setting
from bnn_adv.data import DATASETS
from bnn_adv.inference import hmc, sgd, svi
from experiments.launch.sampled import SampledRun, find_runs
from experiments.robustness_accuracy import grids, matched
from experiments.robustness_accuracy.grids import GRIDS, GridNetwork


@dataclasses.dataclass(frozen=True)
class Config(matched.Matched):
    """Settings of ``experiments.robustness_accuracy``."""

    datasets: tuple[str, ...] = setting(
        ("mnist", "fashion_mnist"),
        "Data sets of images.",
        choices=tuple(DATASETS),
        is_distinct=True,
        least_length=1,
    )
    data_dir: str = data_folder()
    sources: tuple[str, ...] = setting(
        tuple(GRIDS),
        "Grids, by the supplement's tables; own is VI's.",
        choices=tuple(GRIDS),
        is_distinct=True,
        least_length=1,
    )
    grid_filter: tuple[str, ...] = setting(
        (),
        "Networks to keep, all terms together: method=sgd|vi, hidden!=1024, architecture=fc, "
        "starred=true, or a part of the network's name.",
    )
    num_shapes: int = setting(
        0, "Shapes of each grid, drawn by seed, the starred network's first; 0: all.", least=0
    )
    per_shape: int = setting(
        0, "Networks of each shape, drawn by seed, starred first; 0: all.", least=0
    )
    width_divisor: int = setting(1, "Divides every width of the grids.", least=1)
    draws_divisor: int = setting(1, "Divides every number of HMC draws of the grids.", least=1)
    sgd_repeats: int = setting(
        1, "SGD networks of equal settings that differ in their seeds.", least=1
    )
    time_budget: float = setting(
        0.0,
        "Seconds after which no further network is started, over all starts of the run; the rest "
        "is listed as not run, and the same command with a larger budget goes on. 0: no limit.",
        least=0,
    )
    num_train: int = setting(0, "Training images, drawn by seed; 0: all.", least=0)
    num_test: int = setting(1000, "Test images that are attacked (the first ones).", least=1)
    epsilon: float = setting(
        0.1, "Radius of the l_inf ball, in units of inputs in [0, 1].", least=0
    )
    suite: str = setting("strong", "The strong attack.", choices=("strong", "fast", "full"))
    num_attacked: int = setting(
        0, "Draws of an HMC posterior, evenly spaced along it, that predict; 0: all.", least=0
    )
    hmc_num_warmup: int = setting(
        100, "Warm-up transitions; the paper does not give them.", least=0
    )
    hmc_adapt: str = setting(
        "step_size",
        "What the warm-up adapts: the step size, from the grid's on, a diagonal mass matrix too "
        "(window), or nothing.",
        choices=("step_size", "window", "none"),
    )
    hmc_init: str = setting("prior", "Where chains start.", choices=("prior", "network"))
    vi_num_samples: int = setting(10, "Draws of a VI posterior.", least=1)
    vi_minibatch_size: int = setting(128, "Examples of a VI step.", least=1)
    least_accuracy: float = setting(
        0.8,
        "Correlations are given for all networks, and for those of this accuracy (0..1).",
        least=0,
        most=1,
    )
    batch_size: int = setting(250, "Images attacked at once.", least=1)
    seed: int = seed()
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.", least=0)

    def __post_init__(self) -> None:
        """Check every field, and that the filter leaves a network."""
        super().__post_init__()
        try:
            tasks = list_tasks(self)
        except ValueError as error:
            raise SettingError("grid_filter", f"cannot be read: {error}") from None
        if not tasks:
            raise SettingError(
                "grid_filter",
                f"leaves no network of the grids {', '.join(self.sources)}: loosen it, got "
                f"{','.join(self.grid_filter)}.",
            )


class Task(NamedTuple):
    """Name networks that are trained side by side.

    dataset: Name of the data set.
    members: They differ in learning rate and repetition alone; HMC and VI: a single one.
    """

    dataset: str
    members: tuple[GridNetwork, ...]

    @property
    def is_matched(self) -> bool:
        """Whether they are of the methods on equal terms."""
        return self.members[0].source == matched.SOURCE

    @property
    def is_sampled(self) -> bool:
        """Whether their chains may come from a run that has sampled them."""
        return self.is_matched and self.members[0].method == "hmc"

    @property
    def data(self) -> str:
        """Name of the data they are trained on."""
        return matched_data(self.dataset) if self.is_matched else self.dataset

    def stage(self, network: GridNetwork) -> str:
        """Return the name of a network's stages."""
        return f"{self.dataset}-{network.name}"


def find_sampled(config: Config) -> Mapping[str, SampledRun]:
    """Return the runs whose chains are taken for mixed HMC, by their data.

    Raises:
      ValueError: See ``sampled.find_runs``; or one run would be several repetitions.
    """
    sampled = [task.dataset for task in list_tasks(config) if task.is_sampled]
    found = find_runs(config.mixed_runs, sampled)
    if found and len(sampled) > len(set(sampled)):
        raise ValueError(
            "--mixed_runs has one posterior a data set: leave it out, or let "
            "--matched_hmc_repeats be 1 and --matched_hidden one width."
        )
    return found


def matched_data(dataset: str) -> str:
    """Return the name of the images of a data set on which methods are set side by side."""
    return f"{dataset}, {matched.SOURCE}"


# smoke: the digits. cpu: widths an eighth and draws a tenth of the paper's, 5,000 images (the size
# of the minibatch from which the published HMC draws came), three shapes of every grid. The
# radius is half the smallest of the paper's sweep: within 0.1 hardly any image of theirs stands.
# Methods on equal terms have the 6,000 images and 32 units with which chains mix within an hour.
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "datasets": ("digits",),
        "sources": ("table5", "table6", "own"),
        "grid_filter": (
            "architecture=fc",
            "activation=relu",
            "num_samples!=5|10",
            "step_size!=0.01|0.001|0.0001",
            "num_integration_steps!=15|20",
        ),
        "num_shapes": 1,
        "per_shape": 2,
        "width_divisor": 64,
        "draws_divisor": 50,
        "sgd_repeats": 2,
        "num_train": 200,
        "num_test": 12,
        "suite": "fast",
        "num_attacked": 4,
        "hmc_num_warmup": 30,
        "vi_num_samples": 4,
        "vi_minibatch_size": 50,
        "batch_size": 12,
        "checkpoint_every": 0.0,
    },
    "cpu": {
        "grid_filter": ("architecture!=conv",),
        "num_shapes": 3,
        "per_shape": 4,
        "width_divisor": 8,
        "draws_divisor": 10,
        "num_train": 5000,
        "num_test": 250,
        "epsilon": 0.05,
        "suite": "fast",
        "num_attacked": 25,
        "matched": matched.METHODS,
        "time_budget": 21600.0,
    },
    "paper": {},
}


def list_tasks(config: Config) -> list[Task]:
    """Return what is trained, in order: a shape of each data set and grid at a time.

    A time budget that ends early thus leaves networks of every method and data set. Methods on
    equal terms follow.
    """
    rounds: dict[int, list[Task]] = {}
    for dataset in config.datasets:
        for number, source in enumerate(config.sources):
            grid = grids.shrink(
                GRIDS[source], widths=config.width_divisor, draws=config.draws_divisor
            )
            repeats = config.sgd_repeats if grid.method == "sgd" else 1
            networks = grids.keep(grids.expand(grid, repeats=repeats), config.grid_filter)
            # The same networks on every data set: their programs are compiled once.
            rng = np.random.default_rng([config.seed, number])
            shapes = grids.group_by_shape(
                rng, networks, num_shapes=config.num_shapes, per_shape=config.per_shape
            )
            for place, members in enumerate(shapes):
                together = grids.bundle(members) if grid.method == "sgd" else ([m] for m in members)
                rounds.setdefault(place, []).extend(
                    Task(dataset, tuple(bundle)) for bundle in together
                )
    last = [
        Task(dataset, tuple(members))
        for networks in matched.list_networks(config)
        for dataset in config.datasets
        if (members := grids.keep(networks, config.grid_filter))
    ]
    return [task for place in sorted(rounds) for task in rounds[place]] + last


def method_config(config: Config, members: tuple[GridNetwork, ...], num_train: int) -> Any:
    """Return the settings of the inference method for networks that train side by side."""
    if members[0].source == matched.SOURCE:
        return matched.method_config(config, members, num_train)
    get = members[0].get
    if members[0].method == "hmc":
        return hmc.Config(
            num_samples=get("num_samples"),
            num_warmup=config.hmc_num_warmup,
            step_size=get("step_size"),
            num_integration_steps=get("num_integration_steps"),
            adapt=config.hmc_adapt,  # type: ignore[arg-type]
            init=config.hmc_init,  # type: ignore[arg-type]
        )
    if members[0].method == "sgd":
        return sgd.Config(
            num_members=len(members),
            num_epochs=get("num_epochs"),
            learning_rate=tuple(member.get("learning_rate") for member in members),
            minibatch_size=min(get("minibatch_size"), num_train),
        )
    published = get("training") == "published"
    return svi.Config(
        num_samples=config.vi_num_samples,
        num_epochs=get("num_epochs"),
        learning_rate=get("learning_rate"),
        minibatch_size=min(config.vi_minibatch_size, num_train),
        kl_weight="published" if published else "corrected",
        init="published" if published else "network",
    )
