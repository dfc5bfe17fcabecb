"""Settings of the comparison with other tools that certify."""

from __future__ import annotations

import dataclasses
from typing import Any

from bnn_adv.compute.settings import Settings, seed, setting


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of ``experiments.certifiers``."""

    venvs: str = setting(
        "venvs",
        "Folder of virtual environments, one a tool, with the tool's name; see the README. What "
        "lacks one is left out, and the table says so.",
        is_path=True,
    )
    num_train: int = setting(0, "Training images of digits; 0: all.", least=0)
    num_images: int = setting(100, "Test images (the first ones).", least=1)
    num_epochs: int = setting(30, "Passes over the data.", least=1)
    epsilons: tuple[float, ...] = setting(
        (0.02, 0.05),
        "Radii of the l_inf ball, in units of inputs in [0, 1].",
        above=0,
        is_distinct=True,
        least_length=1,
    )
    num_iterations: int = setting(
        20, "Iterations of both sides' bounds that are optimised.", least=1
    )
    num_points: int = setting(
        2000, "Points at which another tool's intervals are checked, a case.", least=1
    )
    seed: int = seed()


SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "num_train": 200,
        "num_images": 6,
        "num_epochs": 40,
        "epsilons": (0.05,),
        "num_iterations": 2,
        "num_points": 50,
    },
    "cpu": {},
    "paper": {},
}
