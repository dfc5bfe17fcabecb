"""Settings of ``experiments.geometry`` and their named sizes."""

from __future__ import annotations

import dataclasses
from typing import Any

from bnn_adv.compute.settings import SettingError, Settings, seed, setting
from bnn_adv.networks import ACTIVATIONS

METHODS = ("hmc", "vi", "ensemble")
SUPPORTS = (
    *("moons", "moons-tube", "moons-embedded", "moons-embedded-tube"),
    *("circle", "square", "square-embedded"),
)
MIRRORED = ("moons", "circle", "s-curve", "s-surface", "moons-embedded")
POSTERIOR_MANIFOLDS = ("moons", "circle", "moons-embedded", "moons-axes")

_LIST: dict[str, Any] = {"is_distinct": True, "least_length": 1}
_COUNTS: dict[str, Any] = {"least": 1, **_LIST}


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of ``experiments.geometry``."""

    seed: int = seed()
    num_seeds: int = setting(5, "Repetitions of every training, for the intervals.", least=2)
    dim: int = setting(10, "Dimension d of the space into which manifolds are embedded.", least=3)
    thickness: float = setting(
        0.2,
        "Radius of the tube that gives a manifold full dimension, at most half the distance of "
        "the moons; half circles have radius 1.",
        above=0,
        most=0.25,
    )
    activation: str = setting("tanh", "Activation, smooth for Lemma 4.", choices=tuple(ACTIVATIONS))
    learning_rate: float = setting(0.003, "Adam's first step size.", above=0)
    minibatch_size: int = setting(128, "Examples a gradient step.", least=1)
    num_test: int = setting(1024, "Held-out points of each manifold.", least=2)
    num_probe: int = setting(40, "Points at which gradients are watched.", least=2)
    steps: tuple[int, ...] = setting(
        (30, 100, 300, 1000, 3000),
        "Gradient steps after which to look, rising; the last ends training.",
        **_COUNTS | {"least_length": 2},
    )
    widths: tuple[int, ...] = setting(
        (8, 32, 128, 512), "Hidden units of one layer, for convergence against width.", **_COUNTS
    )
    data_sizes: tuple[int, ...] = setting(
        (8, 32, 128, 512, 2048), "Training examples, for convergence against data.", **_COUNTS
    )
    supports: tuple[str, ...] = setting(SUPPORTS, "For Lemma 3.", choices=SUPPORTS, **_LIST)
    dimension_width: int = setting(64, "Units of each of two hidden layers, for Lemma 3.", least=1)
    dimension_data: int = setting(4096, "Training examples, for Lemma 3.", least=1)
    mirrored: tuple[str, ...] = setting(MIRRORED, "For Lemma 4.", choices=MIRRORED, **_LIST)
    mirror_width: int = setting(64, "Units of each of two hidden layers, for Lemma 4.", least=1)
    mirror_points: int = setting(
        4, "Points and so many networks, for Lemma 4: each with each.", least=1
    )
    mirror_steps: int = setting(64, "Gauss-Newton steps of the construction, for Lemma 4.", least=1)
    mirror_anchors: int = setting(
        200, "Points on which the function is held, for Lemma 4.", least=1
    )
    methods: tuple[str, ...] = setting(METHODS, "Posteriors.", choices=METHODS, **_LIST)
    posterior_manifolds: tuple[str, ...] = setting(
        POSTERIOR_MANIFOLDS, "For posterior means.", choices=POSTERIOR_MANIFOLDS, **_LIST
    )
    posterior_widths: tuple[int, ...] = setting(
        (32, 16, 128),
        "Hidden units of one layer, for posterior means; the first is the base.",
        **_COUNTS,
    )
    posterior_data: tuple[int, ...] = setting(
        (200, 50, 800), "Training examples, for posterior means; the first is the base.", **_COUNTS
    )
    posterior_samples: int = setting(
        400, "Draws of a posterior; a multiple of the chains.", least=1
    )
    hmc_chains: int = setting(4, "Chains; other methods' draws are grouped as many times.", least=2)
    hmc_warmup: int = setting(300, "Transitions of each chain before its first draw.", least=0)
    hmc_thinning: int = setting(3, "Transitions a draw.", least=1)
    hmc_leapfrog: int = setting(20, "Leapfrog steps a transition.", least=1)
    vi_epochs: int = setting(1000, "Passes over the data of variational inference.", least=1)
    ensemble_members: int = setting(
        100, "Members of an ensemble; a multiple of the chains.", least=1
    )
    ensemble_epochs: int = setting(300, "Passes over the data of an ensemble's members.", least=1)
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.", least=0)

    def __post_init__(self) -> None:
        """Check every field, that steps rise, and that parts fit each other."""
        super().__post_init__()
        if list(self.steps) != sorted(self.steps):
            raise SettingError("steps", f"must rise, got {', '.join(map(str, self.steps))}.")
        if self.mirror_points > self.num_probe:
            raise SettingError(
                "mirror_points",
                f"must be at most num_probe ({self.num_probe}), got {self.mirror_points}.",
            )
        for name in ("posterior_samples", "ensemble_members"):
            if (value := getattr(self, name)) % self.hmc_chains:
                problem = f"must be a multiple of hmc_chains ({self.hmc_chains}), got {value}."
                raise SettingError(name, problem)


SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "num_seeds": 2,
        "dim": 3,
        "num_test": 64,
        "num_probe": 6,
        "steps": (10, 60),
        "widths": (12,),
        "data_sizes": (8, 64),
        "supports": ("moons", "moons-tube"),
        "mirrored": ("moons",),
        "methods": ("ensemble",),
        "posterior_manifolds": ("moons-embedded",),
        "dimension_width": 12,
        "dimension_data": 128,
        "mirror_width": 12,
        "mirror_points": 2,
        "mirror_steps": 16,
        "mirror_anchors": 24,
        "posterior_widths": (6,),
        "posterior_data": (24,),
        "posterior_samples": 12,
        "hmc_chains": 2,
        "hmc_warmup": 20,
        "hmc_thinning": 1,
        "hmc_leapfrog": 5,
        "vi_epochs": 20,
        "ensemble_members": 12,
        "ensemble_epochs": 20,
    },
    "cpu": {},
    # The paper gives no sizes for its theory: these approach its limits as far as an hour on a
    # data-centre GPU allows.
    "paper": {
        "num_seeds": 10,
        "dim": 50,
        "num_test": 8192,
        "num_probe": 200,
        "steps": (100, 1000, 10_000, 100_000),
        "widths": (8, 32, 128, 512, 2048, 8192),
        "data_sizes": (8, 32, 128, 512, 2048, 8192, 32_768),
        "dimension_width": 512,
        "dimension_data": 65_536,
        "mirror_width": 128,
        "mirror_points": 20,
        "mirror_steps": 100,
        "mirror_anchors": 400,
        "posterior_widths": (128, 32, 512),
        "posterior_data": (1000, 200, 5000),
        "posterior_samples": 2000,
        "hmc_warmup": 1000,
        "hmc_leapfrog": 50,
    },
}
