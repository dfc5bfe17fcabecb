"""Settings of ``experiments.autoattack``: whose posteriors, which threats, which suites."""

from __future__ import annotations

import dataclasses

import numpy as np

from bnn_adv.attacks.threat import THREATS
from bnn_adv.compute.settings import SettingError, Settings, seed, setting
from bnn_adv.evaluation.suites import SUITES
from experiments.autoattack.posteriors import POSTERIORS
from experiments.autoattack.torch_child import VERSIONS
from experiments.launch.runtime import CacheConfig

_SUITES = tuple(name for name, suite in SUITES.items() if suite.worst_case)


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of ``experiments.autoattack``."""

    posteriors: tuple[str, ...] = setting(
        tuple(POSTERIORS),
        "Posteriors trained on the spot.",
        choices=tuple(POSTERIORS),
        is_distinct=True,
        least_length=1,
    )
    posterior: str = setting(
        "",
        "Run directory of experiments.compare, whose posterior is attacked in their place.",
        is_path=True,
    )
    model: str = setting("", "Of that run: deterministic, ensemble, vi or hmc.")
    data_dir: str = setting(
        "", "Folder with that run's data set, see experiments.compare.", is_path=True
    )
    suites: tuple[str, ...] = setting(
        ("fast", "strong"), "Suites.", choices=_SUITES, is_distinct=True, least_length=1
    )
    threats: tuple[str, ...] = setting(
        ("linf:0.05", "linf:0.1", "l2:0.3", "l2:0.6", "l1:1", "l1:2"),
        f"norm:radius, norms {', '.join(THREATS)}, radii in units of inputs in [0, 1].",
        least_length=1,
    )
    num_images: int = setting(100, "Test images that are attacked (the first ones).", least=1)
    autoattack_version: str = setting("standard", "What AutoAttack runs.", choices=VERSIONS)
    seed: int = seed("Seed of the attacks; posteriors have fixed ones.")

    def __post_init__(self) -> None:
        """Check every field, the text of threats, and that what belongs together is given."""
        super().__post_init__()
        if self.posterior and self.posteriors != tuple(POSTERIORS):
            raise SettingError(
                "posterior", f"and posteriors cannot both be given, got {self.posterior!r}."
            )
        if self.model and not self.posterior:
            raise SettingError("model", f"is one of a run and needs posterior, got {self.model!r}.")
        threats = parse_threats(self)
        if len(set(threats.values())) < len(self.threats):
            problem = f"must not name anything twice, got {', '.join(self.threats)}."
            raise SettingError("threats", problem)


@dataclasses.dataclass(frozen=True)
class ProcessConfig(CacheConfig):
    """Settings of where and how fast it runs."""

    jobs: int = setting(
        1, "Posteriors that are worked on at once, each in a process of its own.", least=1
    )
    torch_python: str = setting(
        "",
        "Interpreter that has torch and pyautoattack; empty: the one that runs this.",
        is_path=True,
    )


def parse_threats(config: Config) -> dict[str, tuple[str, float]]:
    """Return norm and radius by the threat's text.

    Raises:
      SettingError: A text is no threat.
    """
    threats = {}
    for text in config.threats:
        norm, _, radius = text.partition(":")
        if norm not in THREATS or not _is_positive(radius):
            raise SettingError(
                "threats",
                f"must be norm:radius with a norm of {', '.join(THREATS)} and a positive radius "
                f"that is finite in float32, got {text!r}.",
            )
        threats[text] = (norm, float(radius))
    return threats


def _is_positive(text: str) -> bool:
    try:
        radius = float(text)
    except ValueError:
        return False
    return 0 < radius <= float(np.finfo(np.float32).max)
