"""Settings of ``experiments.geometry`` and their named sizes."""

from __future__ import annotations

import dataclasses
from typing import Any

from bnn_adv.compute.settings import setting
from bnn_adv.networks import ACTIVATIONS

METHODS = ("hmc", "vi", "ensemble")
SUPPORTS = (
    *("moons", "moons-tube", "moons-embedded", "moons-embedded-tube"),
    *("circle", "square", "square-embedded"),
)
MIRRORED = ("moons", "circle", "s-curve", "s-surface", "moons-embedded")
POSTERIOR_MANIFOLDS = ("moons", "circle", "moons-embedded", "moons-axes")
_CHOICES = {
    "methods": METHODS,
    "supports": SUPPORTS,
    "mirrored": MIRRORED,
    "posterior_manifolds": POSTERIOR_MANIFOLDS,
}
_WHOLE_NUMBERS = ("widths", "data_sizes", "steps", "posterior_widths", "posterior_data")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of ``experiments.geometry``."""

    seed: int = setting(0, "Seed from which every result follows.")
    num_seeds: int = setting(5, "Repetitions of every training, for the intervals; at least 2.")
    dim: int = setting(10, "Dimension d of the space into which manifolds are embedded.")
    thickness: float = setting(
        0.2, "Radius of the tube that gives a manifold full dimension; half circles have radius 1."
    )
    activation: str = setting("tanh", f"Activation, smooth for Lemma 4: {', '.join(ACTIVATIONS)}.")
    learning_rate: float = setting(0.003, "Adam's first step size.")
    minibatch_size: int = setting(128, "Examples a gradient step.")
    num_test: int = setting(1024, "Held-out points of each manifold.")
    num_probe: int = setting(40, "Points at which gradients are watched.")
    steps: tuple[int, ...] = setting(
        (30, 100, 300, 1000, 3000), "Gradient steps after which to look; the last ends training."
    )
    widths: tuple[int, ...] = setting(
        (8, 32, 128, 512), "Hidden units of one layer, for convergence against width."
    )
    data_sizes: tuple[int, ...] = setting(
        (8, 32, 128, 512, 2048), "Training examples, for convergence against data."
    )
    supports: tuple[str, ...] = setting(SUPPORTS, f"For Lemma 3: {', '.join(SUPPORTS)}.")
    dimension_width: int = setting(64, "Units of each of two hidden layers, for Lemma 3.")
    dimension_data: int = setting(4096, "Training examples, for Lemma 3.")
    mirrored: tuple[str, ...] = setting(MIRRORED, f"For Lemma 4: {', '.join(MIRRORED)}.")
    mirror_width: int = setting(64, "Units of each of two hidden layers, for Lemma 4.")
    mirror_points: int = setting(4, "Points and so many networks, for Lemma 4: each with each.")
    mirror_steps: int = setting(64, "Gauss-Newton steps of the construction, for Lemma 4.")
    mirror_anchors: int = setting(200, "Points on which the function is held, for Lemma 4.")
    methods: tuple[str, ...] = setting(METHODS, f"Posteriors: {', '.join(METHODS)}.")
    posterior_manifolds: tuple[str, ...] = setting(
        POSTERIOR_MANIFOLDS, f"For posterior means: {', '.join(POSTERIOR_MANIFOLDS)}."
    )
    posterior_widths: tuple[int, ...] = setting(
        (32, 16, 128), "Hidden units of one layer, for posterior means; the first is the base."
    )
    posterior_data: tuple[int, ...] = setting(
        (200, 50, 800), "Training examples, for posterior means; the first is the base."
    )
    posterior_samples: int = setting(400, "Draws of a posterior; a multiple of the chains.")
    hmc_chains: int = setting(4, "Chains; other methods' draws are grouped as many times.")
    hmc_warmup: int = setting(300, "Transitions of each chain before its first draw.")
    hmc_thinning: int = setting(3, "Transitions a draw.")
    hmc_leapfrog: int = setting(20, "Leapfrog steps a transition.")
    vi_epochs: int = setting(1000, "Passes over the data of variational inference.")
    ensemble_members: int = setting(100, "Members of an ensemble; a multiple of the chains.")
    ensemble_epochs: int = setting(300, "Passes over the data of an ensemble's members.")
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.")


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


def normalise(config: Config) -> Config:
    """Return the config with lists from the command line as whole numbers, after checks.

    Raises:
      ValueError: The message names the flag, its value and what is allowed.
    """
    lists = {name: _integers(name, getattr(config, name)) for name in _WHOLE_NUMBERS}
    names = {name: tuple(getattr(config, name)) for name in _CHOICES}
    changes: dict[str, Any] = {**names, **lists}
    config = dataclasses.replace(config, **changes)
    if config.activation not in ACTIVATIONS:
        raise ValueError(
            f"Unknown --activation: {config.activation}. Known: {', '.join(ACTIVATIONS)}."
        )
    for name, known in _CHOICES.items():
        if not names[name] or set(names[name]) - set(known):
            raise ValueError(f"--{name} must be of {', '.join(known)}, got {names[name]}.")
    least = {"num_seeds": 2, "dim": 3, "num_test": 2, "num_probe": 2, "hmc_chains": 2}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        low = least.get(field.name, 0 if field.name in ("seed", "hmc_warmup") else 1)
        if isinstance(value, int) and value < low:
            raise ValueError(f"--{field.name} must be at least {low}, got {value}.")
    if sorted(set(config.steps)) != list(config.steps) or len(config.steps) < 2:
        raise ValueError(f"--steps needs two rising numbers at least, got {config.steps}.")
    if config.mirror_points > config.num_probe:
        raise ValueError(
            f"--mirror_points must be at most --num_probe ({config.num_probe}), "
            f"got {config.mirror_points}."
        )
    for name in ("posterior_samples", "ensemble_members"):
        if getattr(config, name) % config.hmc_chains:
            raise ValueError(
                f"--{name} must be a multiple of --hmc_chains ({config.hmc_chains}), "
                f"got {getattr(config, name)}."
            )
    if not 0 < config.thickness <= 0.25:
        raise ValueError(
            f"--thickness must lie in (0, 0.25], half the distance of the moons, "
            f"got {config.thickness}."
        )
    if not config.learning_rate > 0:
        raise ValueError(f"--learning_rate must be positive, got {config.learning_rate}.")
    return config


def _integers(name: str, values: tuple[Any, ...]) -> tuple[int, ...]:
    try:
        numbers = tuple(int(value) for value in values)
    except ValueError as error:
        raise ValueError(f"--{name} needs whole numbers, got {', '.join(values)}.") from error
    if not numbers or min(numbers) < 1:
        raise ValueError(f"--{name} needs numbers of at least 1, got {numbers or 'none'}.")
    return numbers
