"""Settings of ``experiments.autoattack``: whose posteriors, which threats, which suites."""

from __future__ import annotations

import dataclasses
import math

from bnn_adv.attacks.threat import THREATS
from bnn_adv.compute.settings import setting
from bnn_adv.evaluation.suites import SUITES
from experiments.autoattack.posteriors import POSTERIORS
from experiments.autoattack.torch_child import VERSIONS
from experiments.launch.runtime import CacheConfig

_SUITES = tuple(name for name, suite in SUITES.items() if suite.worst_case)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of ``experiments.autoattack``."""

    posteriors: tuple[str, ...] = setting(
        tuple(POSTERIORS), f"Posteriors trained on the spot, of {', '.join(POSTERIORS)}."
    )
    posterior: str = setting(
        "", "Run directory of experiments.compare, whose posterior is attacked in their place."
    )
    model: str = setting("", "Of that run: deterministic, ensemble, vi or hmc.")
    data_dir: str = setting("", "Folder with that run's data set, see experiments.compare.")
    suites: tuple[str, ...] = setting(("fast", "strong"), f"Suites, of {', '.join(_SUITES)}.")
    threats: tuple[str, ...] = setting(
        ("linf:0.05", "linf:0.1", "l2:0.3", "l2:0.6", "l1:1", "l1:2"),
        f"norm:radius, norms {', '.join(THREATS)}, radii in units of inputs in [0, 1].",
    )
    num_images: int = setting(100, "Test images that are attacked (the first ones).")
    autoattack_version: str = setting("standard", "What AutoAttack runs.", choices=VERSIONS)
    seed: int = setting(0, "Seed of the attacks; posteriors have fixed ones.")


@dataclasses.dataclass(frozen=True)
class ProcessConfig(CacheConfig):
    """Flags that change where and how fast it runs."""

    jobs: int = setting(1, "Posteriors that are worked on at once, each in a process of its own.")
    torch_python: str = setting(
        "", "Interpreter that has torch and pyautoattack; empty: the one that runs this."
    )


def parse_threats(config: Config) -> dict[str, tuple[str, float]]:
    """Return norm and radius by the threat's text, and check every other setting.

    Raises:
      ValueError: The message names the flag, its value and what is allowed.
    """
    for flag, values, known in (
        ("posteriors", config.posteriors, tuple(POSTERIORS)),
        ("suites", config.suites, _SUITES),
        ("autoattack_version", (config.autoattack_version,), VERSIONS),
    ):
        if not values or set(values) - set(known) or len(set(values)) < len(values):
            raise ValueError(
                f"--{flag} must name some of {', '.join(known)}, each once; got "
                f"{','.join(values) or 'none'}."
            )
    if config.posterior and config.posteriors != tuple(POSTERIORS):
        raise ValueError("Give --posterior, which names a run, or --posteriors, not both.")
    if config.model and not config.posterior:
        raise ValueError(f"--model={config.model} is a model of a run: give --posterior.")
    if config.num_images < 1:
        raise ValueError(f"--num_images must be at least 1, got {config.num_images}.")
    threats = {}
    for text in config.threats:
        norm, _, radius = text.partition(":")
        if norm not in THREATS or not _is_positive(radius):
            raise ValueError(
                f"--threats takes norm:radius with a norm of {', '.join(THREATS)} and a positive "
                f"radius, got {text!r}."
            )
        threats[text] = (norm, float(radius))
    if not threats or len(set(threats.values())) < len(config.threats):
        raise ValueError(f"--threats must name some, each once; got {','.join(config.threats)!r}.")
    return threats


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False
