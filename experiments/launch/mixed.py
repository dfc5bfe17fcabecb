"""HMC whose chains mix, beside the published settings: what the studies share.

The published ten leapfrog steps end where they began: chains of them do not mix. What is said of a
posterior needs trajectories of about the prior's scale (Izmailov et al. 2021, arXiv 2104.14421:
pi / 2 times it), several chains, and ``has_mixed``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_adv.compute.settings import Settings, setting
from bnn_adv.inference import hmc
from bnn_adv.inference.diagnostics import describe_mixing, has_mixed

_RHATS, _SIZES = ("max_rhat", "log_density_rhat"), ("min_ess", "log_density_ess")


@dataclasses.dataclass(frozen=True)
class MixedChains(Settings):
    """Settings of chains that are meant to mix; studies add them to their own."""

    mixed_num_chains: int = setting(4, "Mixed HMC: chains, each from the prior.", least=1)
    mixed_num_warmup: int = setting(
        100, "Mixed HMC: adapting transitions before the first draw.", least=0
    )
    mixed_num_samples: int = setting(150, "Mixed HMC: draws kept of each chain.", least=1)
    mixed_trajectory_length: float = setting(
        1.3, "Mixed HMC: length of a transition, in units of the prior's scale.", above=0
    )
    mixed_step_size: float = setting(
        0.003, "Mixed HMC: first leapfrog step; the warm-up adapts it.", above=0
    )
    mixed_max_steps: int = setting(800, "Mixed HMC: most leapfrog steps a transition.", least=1)


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
        "step_size": config.mixed_step_size,
        "trajectory_length": config.mixed_trajectory_length,
        "max_integration_steps": config.mixed_max_steps,
        "adapt": "step_size",
        "init": "prior",
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
