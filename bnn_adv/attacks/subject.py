"""What is attacked, field by field, for the identity of an attack or of a suite."""

from __future__ import annotations

from typing import Any

from bnn_adv.attacks.batches import Attacked
from bnn_adv.attacks.transfer import Transfer
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.posteriors.sampler import FreshDraws, Sampler


def describe(attacked: Attacked | Sampler, prefix: str = "") -> dict[str, Any]:
    """Return all that predictions and gradients of what is attacked follow from, by name.

    Args:
      attacked: Draws, a predictor that draws anew, or one model that guides and one that judges.
      prefix: Before every name.
    """
    if isinstance(attacked, Transfer):
        return describe(attacked.judge, prefix) | describe(attacked.guide, f"{prefix}guide's ")
    if isinstance(attacked, FreshDraws):
        return {
            **describe(attacked.sampler, prefix),
            f"{prefix}predictor": f"{attacked.num_samples} new draws",
            **describe(attacked.held_out, f"{prefix}held-out "),
        }
    fields: dict[str, Any] = {f"{prefix}apply_fn": attacked.apply_fn}
    if isinstance(attacked, Posterior):
        fields |= {f"{prefix}draws": attacked.samples, f"{prefix}shards": attacked.shards}
    else:
        fields |= {f"{prefix}sampler": attacked.draw}
    return fields | {
        f"{prefix}precision": attacked.precision,
        f"{prefix}decision_rule": attacked.decision_rule,
    }
