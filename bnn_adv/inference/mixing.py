"""Measure whether chains agree: rank-normalised split R-hat and effective sample size.

Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021, Bayesian Analysis 16, 667-718), computed by
ArviZ. Ranks make both meaningful for heavy tails, where R-hat of the values themselves can be near
one although the chains differ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from arviz_stats.base.array import array_stats

RHAT_LIMIT = 1.05
"""Largest R-hat of chains that have mixed.

Means of chains that are spread by tau posterior standard deviations have R-hat about
sqrt(1 + tau^2): 1.05 lets a spread of a third pass, the customary 1.1 one of nearly a half. The
stricter 1.01 of Vehtari et al. is meant for one quantity and thousands of draws: the maximum over
hundreds of predictions of a few hundred independent draws exceeds it.
"""
ESS_LEAST = 100.0
"""Smallest effective sample size of chains that have mixed.

A posterior mean then has a standard error of a tenth of the posterior standard deviation. Below,
R-hat itself is too noisy to be believed (Vehtari et al. ask for 50 per half of a chain).
"""

BFMI_LEAST = 0.3
"""Smallest energy fraction of missing information that raises no warning, as in Stan."""

_TAILS = (0.05, 0.95)
_LEAST_DRAWS = 4


class Mixing(NamedTuple):
    """R-hat and effective sample sizes of K quantities that vary.

    rhat: Rank-normalised split R-hat, the larger one of values and of their distances from the
      median; infinite or NaN where it is not defined, [K].
    ess: Effective sample size of the bulk, at least 0; NaN where a draw is not finite, [K].
    tail_ess: The smaller one of those of the 5 % and 95 % quantiles, [K].
    """

    rhat: np.ndarray
    ess: np.ndarray
    tail_ess: np.ndarray

    @property
    def is_undefined(self) -> np.ndarray:
        """Whether R-hat is infinite or not defined: draws that differ without mixing, [K]."""
        found: np.ndarray = ~np.isfinite(self.rhat)
        return found


def measure_mixing(draws: np.ndarray) -> Mixing | None:
    """Return how well chains agree on each of several quantities.

    Quantities that are alike in every draw to the last bit say nothing and are left out. One chain
    is cut into its halves, which are compared as if they were two.

    Args:
      draws: [chains, draws, quantities].

    Returns:
      None where nothing varies, or for fewer than four draws a chain (eight of one chain).
    """
    chains = np.asarray(draws, np.float64)
    if len(chains) == 1:
        half = chains.shape[1] // 2
        chains = np.concatenate([chains[:, :half], chains[:, -half:]]) if half else chains
    if chains.shape[1] < _LEAST_DRAWS:
        return None
    # A standard deviation of equal numbers can differ from zero by rounding.
    varies = ~np.asarray((chains == chains[:1, :1]).all(axis=(0, 1)))
    if not varies.any():
        return None
    chains = chains[..., varies]
    finite = np.asarray(np.isfinite(chains).all(axis=(0, 1)))
    rhat, ess, tail = (np.full(len(finite), np.nan) for _ in range(3))
    # Chains that stand still have no variance within: division by zero says so.
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = chains[..., finite]
        rhat[finite] = array_stats.rhat(kept, chain_axis=0, draw_axis=1)
        ess[finite] = array_stats.ess(kept, chain_axis=0, draw_axis=1)
        tail[finite] = array_stats.ess(kept, chain_axis=0, draw_axis=1, method="tail", prob=_TAILS)
    # A sum of estimated autocorrelations may have any sign, a number of draws has not.
    return Mixing(rhat, np.maximum(ess, 0), np.maximum(tail, 0))


def measure_bfmi(energies: np.ndarray) -> np.ndarray:
    """Return the energy fraction of missing information of Hamiltonian chains (E-BFMI).

        mean_n (E_n - E_(n-1))^2 / var_n E_n

    (Betancourt 2016, arXiv 1604.00695): how much of the energy's spread one new momentum makes up
    for. Independent energies have 2 on average, and energies with the autocorrelation rho
    2 (1 - rho). Near 0 the energy is a slow random walk, and its tails take long to reach.

    Args:
      energies: Of successive transitions, [chains, transitions].

    Returns:
      One number a chain; NaN where it is not defined.
    """
    each = np.asarray(energies, np.float64)
    found = np.full(len(each), np.nan)
    if each.shape[1] < _LEAST_DRAWS:
        return found
    defined = np.isfinite(each).all(axis=1) & (each != each[:, :1]).any(axis=1)
    if defined.any():
        found[defined] = array_stats.bfmi(each[defined], chain_axis=0, draw_axis=1)
    return found
