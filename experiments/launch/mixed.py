"""HMC whose chains mix, beside the published settings: what the studies share.

The published ten leapfrog steps end where they began: chains of them do not mix. What is said of a
posterior needs trajectories of about the prior's scale (Izmailov et al. 2021, arXiv 2104.14421:
pi / 2 times it), several chains, and ``has_mixed``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bnn_adv.compute.settings import Settings, setting
from bnn_adv.inference import hmc
from bnn_adv.inference.diagnostics import describe_mixing, has_mixed
from experiments.launch.sampled import sampled_runs

_RHATS, _SIZES = ("max_rhat", "log_density_rhat"), ("min_ess", "log_density_ess")
_ALWAYS = {"adapt": "step_size", "init": "prior"}
_FIELDS = {"max_integration_steps": "max_steps", "target_acceptance_rate": "target_acceptance"}


class Chains(NamedTuple):
    """How HMC is run so that its chains mix; each starts at the prior and adapts its step.

    step_size: First leapfrog step.
    num_warmup: Transitions before the first draw.
    num_samples: Draws kept of each chain.
    trajectory_length: In units of the prior's scale.
    target_acceptance_rate: What the step size aims at; None: HMC's own.
    max_integration_steps: Most leapfrog steps a transition; None: HMC's own.
    num_chains: Chains.
    thinning: Transitions a draw that is kept.
    precondition: How far their coordinates follow the curvature; None: they are the weights.
    """

    step_size: float
    num_warmup: int
    num_samples: int
    trajectory_length: float = 1.3
    target_acceptance_rate: float | None = None
    max_integration_steps: int | None = None
    num_chains: int = 4
    thinning: int = 1
    precondition: float | None = None

    @property
    def num_draws(self) -> int:
        """Draws of all chains."""
        return self.num_samples * self.num_chains

    def to_flags(self) -> dict[str, Any]:
        """Return the settings as flags of ``experiments.compare``."""
        given = {name: value for name, value in self._asdict().items() if value is not None}
        return {f"hmc.{name}": value for name, value in {**given, **_ALWAYS}.items()}

    def to_study(self) -> dict[str, Any]:
        """Return the settings as fields of ``MixedChains``, whose own stand where there is none."""
        given = {_FIELDS.get(name, name): value for name, value in self._asdict().items()}
        return {f"mixed_{name}": value for name, value in given.items() if value is not None}


# Without thinning its slowest predictions had an effective sample size of 53 in 400 draws.
_MNIST = Chains(0.003, num_warmup=50, num_samples=100, target_acceptance_rate=0.7, thinning=3)
# In 350 transitions a chain the log density has not settled, and chains still differ.
_FASHION_MNIST = _MNIST._replace(num_warmup=200, num_samples=40, num_chains=16, thinning=49)
CHAINS = {
    "digits": Chains(0.005, num_warmup=100, num_samples=200, target_acceptance_rate=0.6),
    "half_moons": Chains(0.003, num_warmup=60, num_samples=150, target_acceptance_rate=0.7),
    "mnist": _MNIST,
    "fashion_mnist": _FASHION_MNIST,
}
"""By data set, the presets ``mixed_*``: for two CPU cores, and Fashion MNIST's for a GPU."""
DEMO = CHAINS["digits"]._replace(num_warmup=50, num_samples=150)
"""A row among others, within a minute."""
STUDIES = CHAINS["mnist"]._replace(max_integration_steps=800)
"""Of studies on 6,000 images, unless they say other."""
HALF_MOONS_STUDY = Chains(
    0.004,
    num_warmup=100,
    num_samples=200,
    trajectory_length=1.5,
    target_acceptance_rate=0.8,
    max_integration_steps=800,
)
"""Of networks on 500 and 1,000 points, fewer than the preset's."""
GAIN = {
    "digits": CHAINS["digits"]._replace(
        step_size=0.01,
        num_samples=100,
        trajectory_length=1.5,
        target_acceptance_rate=0.8,
        max_integration_steps=400,
    ),
    "cpu": CHAINS["mnist"]._replace(max_integration_steps=500),
    "paper": CHAINS["mnist"]._replace(num_warmup=60, max_integration_steps=800, thinning=5),
}
"""Of ``experiments.bayesian_gain``, by scale."""


@dataclasses.dataclass(frozen=True)
class MixedChains(Settings):
    """Settings of chains that are meant to mix; studies add them to their own."""

    mixed_num_chains: int = setting(
        STUDIES.num_chains, "Mixed HMC: chains, each from the prior.", least=1
    )
    mixed_num_warmup: int = setting(
        STUDIES.num_warmup, "Mixed HMC: adapting transitions before the first draw.", least=0
    )
    mixed_num_samples: int = setting(
        STUDIES.num_samples, "Mixed HMC: draws kept of each chain.", least=1
    )
    mixed_thinning: int = setting(
        STUDIES.thinning, "Mixed HMC: transitions a draw that is kept.", least=1
    )
    mixed_trajectory_length: float = setting(
        STUDIES.trajectory_length,
        "Mixed HMC: length of a transition, in units of the prior's scale.",
        above=0,
    )
    mixed_step_size: float = setting(
        STUDIES.step_size, "Mixed HMC: first leapfrog step; the warm-up adapts it.", above=0
    )
    mixed_target_acceptance: float = setting(
        STUDIES.target_acceptance_rate,
        "Mixed HMC: acceptance rate that the step aims at, in (0, 1).",
        above=0,
        below=1,
    )
    mixed_max_steps: int = setting(
        STUDIES.max_integration_steps, "Mixed HMC: most leapfrog steps a transition.", least=1
    )
    mixed_precondition: float = setting(
        0.0, "Mixed HMC: see --hmc.precondition of experiments.compare.", least=0, most=1
    )


@dataclasses.dataclass(frozen=True)
class SampledChains(MixedChains):
    """The same of studies on data sets that are known by name."""

    mixed_runs: tuple[str, ...] = sampled_runs()


def mixed_hmc(config: MixedChains, **others: Any) -> hmc.Config:
    """Return how chains that are meant to mix are run.

    Args:
      config: Their settings.
      others: Settings of HMC that the study gives.
    """
    settings: dict[str, Any] = {
        "num_samples": config.mixed_num_samples,
        "num_warmup": config.mixed_num_warmup,
        "num_chains": config.mixed_num_chains,
        "thinning": config.mixed_thinning,
        "target_acceptance_rate": config.mixed_target_acceptance,
        "step_size": config.mixed_step_size,
        "trajectory_length": config.mixed_trajectory_length,
        "max_integration_steps": config.mixed_max_steps,
        "precondition": config.mixed_precondition,
        **_ALWAYS,
    }
    return hmc.Config(**settings | others)


def describe_chains(diagnostics: Mapping[str, Any]) -> str:
    """Return whether chains have mixed, with the numbers that say so.

    Returns:
      ``mixed (maximum R-hat 1.01, smallest ESS 182)``, or ``describe_mixing`` where they have not
      or where that was not judged.
    """
    if has_mixed(diagnostics) is not True:
        return describe_mixing(diagnostics)
    return describe_all([diagnostics])


def describe_all(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the worst of the numbers of several posteriors, all of whose chains have mixed."""
    rhat = max(diagnostics[name] for diagnostics in found for name in _RHATS)
    size = min(diagnostics[name] for diagnostics in found for name in _SIZES)
    return f"mixed (maximum R-hat {rhat:.2f}, smallest ESS {size:.0f})"
