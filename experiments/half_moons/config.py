"""Settings of ``experiments.half_moons`` and its scales."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any, NamedTuple

from bnn_adv.attacks.threat import THREATS
from bnn_adv.compute.settings import SettingError, seed, setting
from bnn_adv.data.half_moons import NUM_POINTS, NUM_TRAIN
from bnn_adv.inference import hmc
from experiments.launch.mixed import HALF_MOONS_STUDY, MixedChains, mixed_hmc

PUBLISHED, MIXED = "published", "mixed"
"""Settings of HMC: the paper's, and trajectories so long that chains mix."""

_LIST: dict[str, Any] = {"is_distinct": True, "least_length": 1}


@dataclasses.dataclass(frozen=True)
class Config(MixedChains):
    """Settings of ``experiments.half_moons``."""

    hidden: tuple[int, ...] = setting(
        (32, 128, 256, 512), "Widths of both hidden layers.", least=1, **_LIST
    )
    num_train: tuple[int, ...] = setting(
        (5000, 10000, 15000), "Numbers of training points.", least=2, most=NUM_TRAIN, **_LIST
    )
    num_warmup: tuple[int, ...] = setting(
        (100, 200, 500), "Numbers of warm-up transitions.", least=0, **_LIST
    )
    num_samples: int = setting(250, "Draws kept of each chain.", least=4)
    num_chains: int = setting(
        1,
        "Chains of each network, side by side: whether they have mixed can be judged of two or "
        "more, and trends have intervals over them.",
        least=1,
    )
    num_leapfrog: int = setting(10, "Leapfrog steps a transition.", least=1)
    step_size: float = setting(0.001, "First leapfrog step; the warm-up adapts it.", above=0)
    adapt: str = setting(
        "step_size",
        "What the warm-up adapts: the step size as the published code, a diagonal mass matrix too "
        "(window), or nothing.",
        choices=("step_size", "window", "none"),
    )
    init: str = setting("prior", "Where chains start: a draw of it.", choices=("prior", "network"))
    least_accuracy: float = setting(
        0.8,
        "Networks of lower held-out accuracy (in 0..1) are listed and left out of figures.",
        least=0,
        most=1,
    )
    num_held_out: int = setting(
        1000,
        "Test points for accuracy, R-hat and ESS (the first ones).",
        least=1,
        most=NUM_POINTS - NUM_TRAIN,
    )
    num_points: int = setting(
        100,
        "Test points, drawn by seed, for gradients, grid search and attacks.",
        least=2,
        most=NUM_POINTS - NUM_TRAIN,
    )
    num_ticks: int = setting(
        401,
        "Grid points along each side of [0, 1]^2 in the search for the true robustness.",
        least=2,
    )
    norms: tuple[str, ...] = setting(
        ("linf", "l2", "l1"),
        "Norms that are searched and attacked.",
        choices=tuple(THREATS),
        **_LIST,
    )
    epsilons: tuple[float, ...] = setting(
        (0.05, 0.1), "Radii, in units of inputs in [0, 1].", least=0, **_LIST
    )
    suite: str = setting("strong", "The strong attack.", choices=("strong", "fast", "full"))
    num_attacked: int = setting(
        0, "Draws, chosen by seed, whose predictive is searched and attacked; 0: all.", least=0
    )
    mixed_hidden: tuple[int, ...] = setting(
        (),
        "Mixed HMC: widths of both hidden layers; none leaves it out.",
        least=1,
        is_distinct=True,
    )
    mixed_num_train: tuple[int, ...] = setting(
        (1000,), "Mixed HMC: numbers of training points.", least=2, most=NUM_TRAIN, **_LIST
    )
    seed: int = seed()
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.", least=0)

    def __post_init__(self) -> None:
        """Check every field, and that there are as many draws as are attacked."""
        super().__post_init__()
        for cell in list_cells(self):
            settings = hmc_config(self, cell)
            if self.num_attacked > settings.num_draws:
                prefix = "mixed_" if cell.kind == MIXED else ""
                raise SettingError(
                    "num_attacked",
                    f"must be at most the draws, {prefix}num_samples x {prefix}num_chains = "
                    f"{settings.num_draws}, or 0 for all, got {self.num_attacked}.",
                )


class Cell(NamedTuple):
    """Name one network of the grid.

    hidden: Width of both hidden layers.
    num_train: Training points.
    num_warmup: Warm-up transitions.
    kind: ``PUBLISHED`` or ``MIXED``.
    """

    hidden: int
    num_train: int
    num_warmup: int
    kind: str = PUBLISHED

    @property
    def name(self) -> str:
        """Name of its stages."""
        own = f"h{self.hidden}-n{self.num_train}-w{self.num_warmup}"
        return own if self.kind == PUBLISHED else f"{own}-{self.kind}"

    @property
    def streams(self) -> tuple[int, ...]:
        """Numbers that its random keys are derived with."""
        if self.kind == PUBLISHED:
            return self.hidden, self.num_train, self.num_warmup
        return (zlib.crc32(self.name.encode()),)


# The paper's grid as it is: 36 networks; width 512 alone would take two cores more than three
# hours. A CPU keeps the three widths and one warm-up that fit into half an hour; all 250 draws are
# kept, and 50 of them are searched and attacked. Chains that mix need some 400 leapfrog steps a
# transition: two widths and two numbers of points, fewer than the paper's.
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "hidden": (8,),
        "num_train": (200,),
        "num_warmup": (60,),
        "num_samples": 10,
        "num_chains": 2,
        "step_size": 0.02,
        "num_held_out": 100,
        "num_points": 10,
        "num_attacked": 4,
        "num_ticks": 41,
        "norms": ("linf",),
        "suite": "fast",
        "epsilons": (0.1,),
        "mixed_hidden": (8,),
        "mixed_num_train": (100,),
        "mixed_num_samples": 10,
        "mixed_num_chains": 2,
        "mixed_num_warmup": 20,
        "mixed_thinning": 1,
        "mixed_step_size": 0.05,
        "mixed_max_steps": 50,
        "checkpoint_every": 0.0,
    },
    "cpu": {
        "hidden": (32, 128, 256),
        "num_warmup": (200,),
        "num_attacked": 50,
        "mixed_hidden": (32, 128),
        "mixed_num_train": (500, 1000),
        **HALF_MOONS_STUDY.to_study(),
    },
    "paper": {"num_ticks": 1001, **HALF_MOONS_STUDY.to_study()},
}


def list_cells(config: Config) -> list[Cell]:
    """Return the grid, from the smallest network to the largest, and then the mixed one."""
    published = [
        Cell(hidden, num_train, num_warmup)
        for hidden in sorted(config.hidden)
        for num_train in sorted(config.num_train)
        for num_warmup in sorted(config.num_warmup)
    ]
    return published + [
        Cell(hidden, num_train, config.mixed_num_warmup, MIXED)
        for hidden in sorted(config.mixed_hidden)
        for num_train in sorted(config.mixed_num_train)
    ]


def list_counts(total: int) -> tuple[int, ...]:
    """Return the numbers of draws whose mean gradient is measured, from one to all."""
    return tuple(sorted({*(c for c in (1, 3, 10, 30, 100) if c < total)} | {total}))


def hmc_config(config: Config, cell: Cell) -> hmc.Config:
    """Return how a cell's chains are run."""
    if cell.kind == MIXED:
        return mixed_hmc(config)
    return hmc.Config(
        num_samples=config.num_samples,
        num_chains=config.num_chains,
        num_warmup=cell.num_warmup,
        step_size=config.step_size,
        num_integration_steps=config.num_leapfrog,
        adapt=config.adapt,  # type: ignore[arg-type]
        init=config.init,  # type: ignore[arg-type]
    )
