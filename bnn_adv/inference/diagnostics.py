"""Say from the draws themselves whether chains can be trusted.

Split R-hat and effective sample size (Gelman et al. 2013, section 11; computed by NumPyro) are
taken on predictive log-probabilities of held-out points: weights of a network are not identified,
its predictions are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from bnn_adv.densities import Data
from bnn_adv.disk import as_arrays
from bnn_adv.posterior import Posterior, log_probs

RHAT_LIMIT = 1.1
"""Above this R-hat chains (or halves of one) disagree: draws do not represent the posterior."""


def summarise_chains(
    posterior: Posterior, info: Any, num_chains: int, held_out: Data | None
) -> dict[str, Any]:
    """Summarise Markov chains, with a sentence for everything that went wrong.

    Args:
      posterior: Draws of all chains, chain after chain.
      info: Record with ``acceptance_rate``, ``is_divergent``, ``energy_error``, ``logdensity``,
        each [draws, thinning, chains].
      num_chains: Number of chains.
      held_out: Points for R-hat and ESS; None leaves these out.

    Returns:
      Numbers and lists ready for JSON; ``"warnings"`` holds the sentences.
    """
    error = np.asarray(info.energy_error, np.float64)
    finite = np.isfinite(error)
    distinct = count_distinct(posterior)
    summary: dict[str, Any] = {
        "num_chains": num_chains,
        "acceptance_rate": float(np.mean(info.acceptance_rate)),
        "num_divergent": int(np.sum(info.is_divergent)),
        "num_nonfinite_energies": int(np.sum(~finite)),
        "mean_abs_energy_error": float(np.abs(error[finite]).mean()) if finite.any() else None,
        "num_distinct_draws": distinct,
        "log_density": np.asarray(info.logdensity, np.float64).mean(axis=(1, 2)).tolist(),
    }
    trace = np.asarray(info.logdensity, np.float64)[:, -1].T
    if trace.shape[1] >= 4 and trace.std() > 0:
        summary["log_density_rhat"] = float(split_gelman_rubin(trace))
    if held_out is not None:
        summary |= _mixing(posterior, num_chains, held_out)
    summary["warnings"] = _warnings(summary, posterior.num_samples)
    return summary


def has_mixed(diagnostics: Mapping[str, Any]) -> bool | None:
    """Return whether chains have mixed by the R-hat of predictions and of the log density.

    Args:
      diagnostics: Of a posterior, with ``median_rhat`` and ``log_density_rhat``.

    Returns:
      None where one of them is not known, as of methods that have no chains.
    """
    found = [diagnostics.get(name) for name in ("median_rhat", "log_density_rhat")]
    known = [value for value in found if value is not None]
    return None if len(known) < 2 else bool(max(known) <= RHAT_LIMIT)


def count_distinct(posterior: Posterior) -> int:
    """Return how many of the draws differ from one another."""
    seen = set()
    leaves = as_arrays(posterior.samples)
    for index in range(posterior.num_samples):
        digest = hashlib.blake2b()
        for leaf in leaves:
            digest.update(leaf[index].tobytes())
        seen.add(digest.digest())
    return len(seen)


def _mixing(posterior: Posterior, num_chains: int, held_out: Data) -> dict[str, Any]:
    values = np.asarray(log_probs(posterior, held_out.x))
    own = np.take_along_axis(values, np.asarray(held_out.y)[None, :, None], axis=-1)[..., 0]
    chains = own.reshape(num_chains, -1, own.shape[-1]).astype(np.float64)
    if chains.shape[1] < 4:
        return {}
    # Points that every draw predicts alike to the last bit have no variance to compare.
    moving = chains.std(axis=(0, 1)) > 0
    if not moving.any():
        return {}
    rhat = split_gelman_rubin(chains[..., moving])
    ess = effective_sample_size(chains[..., moving])
    if not (np.isfinite(rhat).any() and np.isfinite(ess).any()):
        return {}
    return {
        "max_rhat": float(np.nanmax(rhat)),
        "median_rhat": float(np.nanmedian(rhat)),
        "min_ess": float(np.nanmin(ess)),
        "median_ess": float(np.nanmedian(ess)),
    }


def _warnings(summary: dict[str, Any], num_draws: int) -> list[str]:
    found = []
    if summary["num_nonfinite_energies"]:
        found.append(
            f"{summary['num_nonfinite_energies']} transitions had a NaN or infinite energy: "
            "lower the step size."
        )
    if summary["acceptance_rate"] < 1e-3:
        found.append("Nothing was accepted: the chain did not move. Lower the step size.")
    if summary["num_distinct_draws"] < num_draws:
        found.append(
            f"Only {summary['num_distinct_draws']} of {num_draws} draws are distinct "
            "(a rejected transition repeats its draw)."
        )
    if summary["num_divergent"]:
        found.append(f"{summary['num_divergent']} transitions diverged.")
    if summary.get("log_density_rhat", 0.0) > RHAT_LIMIT:
        found.append(
            f"The log density has not settled (split R-hat {summary['log_density_rhat']:.2f}, "
            f"should be below {RHAT_LIMIT}): the chain is still on its way. Warm up longer, or "
            "lengthen its trajectories."
        )
    if summary.get("median_rhat", 0.0) > RHAT_LIMIT:
        found.append(
            f"Chains have not mixed: split R-hat of held-out predictions has median "
            f"{summary['median_rhat']:.2f} (should be below {RHAT_LIMIT}), "
            f"effective sample size {summary['median_ess']:.0f}."
        )
    return found
