"""What the transitions of chains say: acceptance, energies, and what effective draws cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bnn_adv.inference.mixing import measure_bfmi


class Gradients(NamedTuple):
    """Gradient evaluations of all chains, in those of the full data: one of B of N examples is B/N.

    sampling: After the warm-up.
    warmup: Of the warm-up.
    tuning: Before it.
    starting: Of the training of networks that chains start at, and of ``preconditioning``.
    """

    sampling: float | None = None
    warmup: float | None = None
    tuning: float | None = None
    starting: float | None = None

    def describe(self) -> dict[str, float]:
        """Return the numbers that are known, by their names in the diagnostics."""
        found = {
            "num_gradients": self.sampling,
            "num_warmup_gradients": self.warmup,
            "num_tuning_gradients": self.tuning,
            "num_starting_gradients": self.starting,
        }
        return {name: count for name, count in found.items() if count is not None}


def describe_transitions(info: Any) -> dict[str, float | int | None]:
    """Return what a kernel says of its transitions, over all of them."""
    found: dict[str, float | int | None] = {}
    if (rate := getattr(info, "acceptance_rate", None)) is not None:
        # A transition whose acceptance probability is NaN is rejected.
        accepted = np.nan_to_num(np.asarray(rate, np.float64), nan=0.0)
        found["acceptance_rate"] = float(accepted.mean())
    if (divergent := getattr(info, "is_divergent", None)) is not None:
        found["num_divergent"] = int(np.sum(divergent))
    if np.any(longest := getattr(info, "is_longest", False)):
        found["num_longest"] = int(np.sum(longest))
    if (errors := getattr(info, "energy_error", None)) is not None:
        error = np.asarray(errors, np.float64)
        finite = np.isfinite(error)
        found["num_nonfinite_energies"] = int(np.sum(~finite))
        found["mean_abs_energy_error"] = (
            float(np.abs(error[finite]).mean()) if finite.any() else None
        )
    return found


def describe_energies(info: Any, num_params: int) -> dict[str, Any]:
    """Return E-BFMI of every chain, or an unadjusted kernel's energy error; where it knows them.

    Args:
      info: Record of the transitions, each [draws, thinning, chains].
      num_params: Parameters d of the network.

    Returns:
      ``e_bfmi``, one number a chain, None where it is not defined; or, of kernels that reject
      nothing, ``energy_error_variance``: the variance of the energy's change in one transition, per
      parameter, Var(E_n - E_(n-1)) / d, of the chain in which it is largest.
    """
    found: dict[str, Any] = {}
    if (energies := getattr(info, "energy", None)) is not None:
        energies = np.asarray(energies, np.float64)
        each = measure_bfmi(energies.reshape(-1, energies.shape[-1]).T)
        found["e_bfmi"] = [float(value) if np.isfinite(value) else None for value in each]
    errors = getattr(info, "energy_error", None)
    if errors is not None and getattr(info, "acceptance_rate", None) is None:
        error = np.asarray(errors, np.float64)
        chains = (chain[np.isfinite(chain)] for chain in error.reshape(-1, error.shape[-1]).T)
        variances = [float(chain.var()) / num_params for chain in chains if chain.size]
        found["energy_error_variance"] = max(variances, default=None)
    return found


def describe_cost(sizes: Mapping[str, Any], gradients: Gradients) -> dict[str, float]:
    """Return how many gradients were computed, and effective draws per gradient after the warm-up.

    Args:
      sizes: ``min_ess`` and ``median_ess`` of held-out predictions (bulk), where they are known.
      gradients: Of all chains.
    """
    found = gradients.describe()
    if gradients.sampling:
        for name in ("min_ess", "median_ess"):
            if (size := sizes.get(name)) is not None:
                found[f"{name}_per_gradient"] = size / gradients.sampling
    return found


def ess_per_second(diagnostics: Mapping[str, Any]) -> dict[str, float]:
    """Return effective draws per second of a training, compilation and warm-up included.

    Derived, not recorded: seconds differ from start to start, and all else of a record does not.

    Args:
      diagnostics: With ``training_seconds``, ``min_ess`` and ``median_ess``.

    Returns:
      ``min_ess_per_second`` and ``median_ess_per_second``, where they are known.
    """
    seconds = diagnostics.get("training_seconds")
    names = [name for name in ("min_ess", "median_ess") if diagnostics.get(name) is not None]
    return {f"{name}_per_second": diagnostics[name] / seconds for name in names if seconds}
