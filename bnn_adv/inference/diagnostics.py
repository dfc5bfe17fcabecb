"""Say from the draws themselves whether chains can be trusted.

R-hat and effective sample size (``mixing``) are taken on predictive log-probabilities of held-out
points and on the log density: weights of a network are not identified, its predictions are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bnn_adv.inference.densities import Data
from bnn_adv.inference.mixing import BFMI_LEAST, ESS_LEAST, RHAT_LIMIT, Mixing, measure_mixing
from bnn_adv.inference.transitions import (
    Gradients,
    describe_cost,
    describe_energies,
    describe_transitions,
)
from bnn_adv.networks import count_params
from bnn_adv.posteriors.distinct import name_draws
from bnn_adv.posteriors.posterior import Posterior, log_probs

MIXING_KEYS = (
    *("num_chains", "num_still_chains", "num_equal_chains"),
    *("acceptance_rate", "num_undefined_rhats", "rhat"),
    *("max_rhat", "median_rhat", "log_density_rhat"),
    *("min_ess", "median_ess", "min_tail_ess", "log_density_ess", "log_density_tail_ess"),
)
"""What ``has_mixed`` and ``describe_mixing`` read, and what reports show beside them."""

_RANK_NORMALISED = "rank-normalised split"
_LEAST_ACCEPTANCE = 1e-3
_RHATS = ("max_rhat", "median_rhat", "log_density_rhat")
_ESS = ("min_ess", "median_ess", "log_density_ess")
_NEEDED = ("max_rhat", "log_density_rhat", "min_ess", "log_density_ess")


def summarise_chains(
    posterior: Posterior,
    info: Any,
    num_chains: int,
    predictions: np.ndarray | None,
    gradients: Gradients | None = None,
) -> dict[str, Any]:
    """Summarise Markov chains, with a sentence for everything that went wrong.

    Args:
      posterior: Draws of all chains, chain after chain.
      info: Record with ``logdensity`` and, where the kernel knows them, ``acceptance_rate``,
        ``is_divergent``, ``energy_error``, ``energy`` and ``is_longest``, each [draws, thinning,
        chains].
      num_chains: Number of chains.
      predictions: Log probability of held-out labels, see ``predict_held_out``, for R-hat and ESS;
        None leaves these out.
      gradients: What the chains cost.

    Returns:
      Numbers and lists ready for JSON. An R-hat that is infinite or not defined is left out, and
      counted by ``num_undefined_rhats`` (held-out predictions and the log density together).
      ``"log_density"`` holds one curve a chain: their mean would hide chains that disagree.
      ``"warnings"`` holds the sentences.
    """
    density = np.asarray(info.logdensity, np.float64)
    with np.errstate(invalid="ignore"):
        curves = density.mean(axis=1).T
    agreement = summarise_draws(posterior, density[:, -1].T, predictions)
    summary: dict[str, Any] = {
        **agreement,
        **describe_transitions(info),
        "log_density": [
            [float(value) if np.isfinite(value) else None for value in curve] for curve in curves
        ],
        "num_nonfinite_log_densities": int(np.sum(~np.isfinite(density))),
        **describe_energies(info, count_params(posterior.take([0]).samples)),
        **describe_cost(agreement, gradients or Gradients()),
    }
    summary["warnings"] = _warnings(summary, posterior.num_samples)
    return summary


def summarise_draws(
    posterior: Posterior, log_density: np.ndarray, predictions: np.ndarray | None
) -> dict[str, Any]:
    """Summarise how well chains agree, from their draws alone.

    Args:
      posterior: Draws of all chains, chain after chain.
      log_density: Of every draw, in nats up to a constant, [chains, draws].
      predictions: Log probability of held-out labels, see ``predict_held_out``; None leaves these
        out.

    Returns:
      What ``summarise_chains`` does, but for what transitions say.
    """
    names, num_chains = name_draws(posterior), len(log_density)
    each = max(posterior.num_samples // num_chains, 1)
    chains = [tuple(names[first : first + each]) for first in range(0, len(names), each)]
    still = [len(set(chain)) == 1 for chain in chains]
    summary: dict[str, Any] = {
        "num_chains": num_chains,
        "num_distinct_draws": len(set(names)),
        "num_still_chains": sum(still) if each > 1 else 0,
        "num_equal_chains": len(still) - len(set(chains)),
        "rhat": _RANK_NORMALISED,
        **_mixing(predictions, np.asarray(log_density, np.float64)),
    }
    return {**summary, "warnings": _warnings(summary, posterior.num_samples)}


def predict_held_out(
    posterior: Posterior, held_out: Data | None, num_chains: int
) -> np.ndarray | None:
    """Return the log probability of every held-out label under every draw, in nats.

    Returns:
      [chains, draws, points]; None without held-out data.
    """
    if held_out is None:
        return None
    values = np.asarray(log_probs(posterior, held_out.x))
    own = np.take_along_axis(values, np.asarray(held_out.y)[None, :, None], axis=-1)[..., 0]
    return own.reshape(num_chains, -1, own.shape[-1])


def has_mixed(diagnostics: Mapping[str, Any]) -> bool | None:
    """Return whether chains have mixed: True, False, or None where that was not judged.

    Mixed (True) are two chains or more whose largest rank-normalised split R-hat, over held-out
    predictions and the log density, is at most RHAT_LIMIT and whose smallest effective sample size
    is at least ESS_LEAST. Any value past its limit, an R-hat that is infinite or not defined,
    chains that stand still or are copies of another, and runs that accepted nothing, are unmixed
    (False), one chain included.
    What shows no failure but lacks numbers is not judged (None): one chain alone, methods without
    chains, records of older runs. A verdict about a posterior may be drawn from True only.

    Args:
      diagnostics: Of a posterior, as ``summarise_chains`` returns them (now or in older runs).
    """
    if _failures(diagnostics):
        return False
    is_complete = (
        diagnostics.get("rhat") == _RANK_NORMALISED
        and (diagnostics.get("num_chains") or 0) > 1
        and all(diagnostics.get(name) is not None for name in _NEEDED)
    )
    return True if is_complete else None


def describe_mixing(diagnostics: Mapping[str, Any]) -> str:
    """Return ``has_mixed`` in words.

    Returns:
      ``mixed``; ``unmixed: not judged (maximum R-hat 2.31, smallest ESS 3)`` with all that failed;
      or ``not judged (one chain)`` with what is missing.
    """
    mixed = has_mixed(diagnostics)
    if mixed:
        return "mixed"
    if mixed is False:
        return f"unmixed: not judged ({', '.join(_failures(diagnostics))})"
    num_chains, known = diagnostics.get("num_chains"), _known(diagnostics, (*_RHATS, *_ESS))
    if num_chains == 1:
        return "not judged (one chain)"
    if num_chains is None and not known:
        return "not judged (no chains)"
    if diagnostics.get("rhat") == _RANK_NORMALISED:
        return "not judged (too few draws, or nothing that varies)"
    return "not judged (R-hat and effective sample size of this rule were not recorded)"


def _mixing(predictions: np.ndarray | None, density: np.ndarray) -> dict[str, float | int]:
    """Return R-hats and effective sample sizes that are finite, and how many R-hats are not."""
    found: dict[str, float] = {}
    undefined = 0
    if (trace := measure_mixing(density[..., None])) is not None:
        found |= _log_density_numbers(trace)
        undefined += int(trace.is_undefined.sum())
    if predictions is not None and (each := measure_mixing(predictions)) is not None:
        found |= _prediction_numbers(each)
        undefined += int(each.is_undefined.sum())
    finite = {name: float(value) for name, value in found.items() if np.isfinite(value)}
    return {"num_undefined_rhats": undefined, **finite}


def _log_density_numbers(found: Mixing) -> dict[str, float]:
    return {
        "log_density_rhat": found.rhat[0],
        "log_density_ess": found.ess[0],
        "log_density_tail_ess": found.tail_ess[0],
    }


def _prediction_numbers(found: Mixing) -> dict[str, float]:
    # An R-hat that is not defined is as bad as an infinite one.
    rhat = np.where(found.is_undefined, np.inf, found.rhat)
    return {
        "max_rhat": rhat.max(),
        "median_rhat": np.median(rhat),
        # No mean of two of them: one may be infinite.
        "rhat_95": np.quantile(rhat, 0.95, method="higher"),
        "min_ess": found.ess.min(),
        "median_ess": np.median(found.ess),
        "min_tail_ess": found.tail_ess.min(),
        "median_tail_ess": np.median(found.tail_ess),
    }


def _known(diagnostics: Mapping[str, Any], names: tuple[str, ...]) -> list[float]:
    found = (diagnostics.get(name) for name in names)
    return [float(value) for value in found if isinstance(value, int | float)]


def _failures(diagnostics: Mapping[str, Any]) -> list[str]:
    """Return what shows that chains have not mixed. NaN is never within a limit."""
    found = []
    still, accepted = (_known(diagnostics, (n,)) for n in ("num_still_chains", "acceptance_rate"))
    if accepted and not accepted[0] >= _LEAST_ACCEPTANCE:
        found.append("nothing was accepted")
    if still and still[0] > 0:
        found.append(f"{still[0]:.0f} of {diagnostics.get('num_chains')} chains stand still")
    if any(equal := _known(diagnostics, ("num_equal_chains",))):
        found.append(f"{equal[0]:.0f} chains equal to another to the last bit")
    rhats, sizes = _known(diagnostics, _RHATS), _known(diagnostics, _ESS)
    if any(_known(diagnostics, ("num_undefined_rhats",))) or not np.isfinite(rhats).all():
        found.append("maximum R-hat infinite or not defined")
    elif rhats and max(rhats) > RHAT_LIMIT:
        found.append(f"maximum R-hat {max(rhats):.2f}")
    # NumPy's minimum of numbers with a NaN is NaN.
    if sizes and not (least := np.min(sizes)) >= ESS_LEAST:
        found.append(f"smallest ESS {least:.0f}")
    return found


def _warnings(summary: dict[str, Any], num_draws: int) -> list[str]:
    found = []
    if summary.get("num_nonfinite_energies"):
        found.append(
            f"{summary['num_nonfinite_energies']} transitions had a NaN or infinite energy: "
            "lower the step size."
        )
    if summary.get("num_nonfinite_log_densities"):
        found.append(
            f"{summary['num_nonfinite_log_densities']} states had a NaN or infinite log density."
        )
    if summary.get("acceptance_rate", 1.0) < _LEAST_ACCEPTANCE:
        found.append("Nothing was accepted: the chain did not move. Lower the step size.")
    elif summary["num_still_chains"]:
        found.append(
            f"{summary['num_still_chains']} of {summary['num_chains']} chains never moved: all "
            "draws of each are the same. Lower the step size."
        )
    if summary["num_distinct_draws"] < num_draws:
        found.append(
            f"Only {summary['num_distinct_draws']} of {num_draws} draws are distinct "
            "(a rejected transition repeats its draw)."
        )
    if summary.get("num_divergent"):
        found.append(f"{summary['num_divergent']} transitions diverged.")
    low = [value for value in summary.get("e_bfmi", ()) if value is not None and value < BFMI_LEAST]
    if low:
        found.append(
            f"E-BFMI of {len(low)} of {summary['num_chains']} chains is below {BFMI_LEAST} (least "
            f"{min(low):.2f}): a new momentum changes the energy little, and its tails take long "
            "to reach. Warm up longer, adapt the mass matrix, or choose another prior."
        )
    if summary.get("num_longest"):
        found.append(
            f"{summary['num_longest']} trajectories have the most leapfrog steps allowed, and may "
            "have been cut short: raise the limit, or the step size."
        )
    if summary["num_undefined_rhats"]:
        found.append(
            f"Chains have not mixed: R-hat of {summary['num_undefined_rhats']} quantities "
            "(held-out predictions, the log density) is infinite or not defined: chains stand "
            "still at different places, or draws are not finite."
        )
    if (density := summary.get("log_density_rhat", 0.0)) > RHAT_LIMIT:
        # E-BFMI is known of Hamiltonian trajectories only; NUTS chooses their length itself.
        longer = (
            "lengthen its trajectories where they have a set length"
            if "e_bfmi" in summary
            else "draw longer"
        )
        found.append(
            f"The log density has not settled (rank-normalised split R-hat {density:.2f}, should "
            f"be at most {RHAT_LIMIT}): the chain is still on its way. Warm up longer, or {longer}."
        )
    if (largest := summary.get("max_rhat", 0.0)) > RHAT_LIMIT:
        found.append(
            "Chains have not mixed: rank-normalised split R-hat of held-out predictions is up to "
            f"{largest:.2f} (should be at most {RHAT_LIMIT})."
        )
    sizes = _known(summary, ("min_ess", "log_density_ess"))
    if sizes and min(sizes) < ESS_LEAST:
        found.append(
            "Too few effective draws: the smallest effective sample size of held-out predictions "
            f"and the log density is {min(sizes):.0f} (should be at least {ESS_LEAST:.0f})."
        )
    return found
