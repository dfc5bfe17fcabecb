"""What every driver of chains returns once its draws are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnn_adv.inference.base import InferenceResult, summarise_held_out
from bnn_adv.inference.densities import Data
from bnn_adv.inference.diagnostics import predict_held_out, summarise_chains
from bnn_adv.inference.records import record_chains
from bnn_adv.inference.transitions import Gradients
from bnn_adv.posteriors.posterior import Posterior


def conclude(
    posterior: Posterior,
    info: Any,
    held_out: Data | None,
    gradients: Gradients,
    constants: Mapping[str, list[float]] | None = None,
) -> InferenceResult:
    """Return draws of chains with their diagnostics and the record of every draw.

    Args:
      posterior: Draws of all chains, chain after chain.
      info: Record of the transitions, each [draws, thinning, chains].
      held_out: Points for R-hat and ESS of predictions.
      gradients: What the chains cost.
      constants: What kernels say of their last state, one number a chain each.
    """
    constants, num_chains = constants or {}, info.logdensity.shape[-1]
    predictions = predict_held_out(posterior, held_out, num_chains)
    diagnostics = summarise_chains(posterior, info, num_chains, predictions, gradients)
    diagnostics |= {**constants, **summarise_held_out(posterior, held_out)}
    chains = record_chains(info, predictions, constants)
    return InferenceResult(posterior, diagnostics, None, chains=chains)
