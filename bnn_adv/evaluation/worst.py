"""The worst of several attacks, image by image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnn_adv.compute.types import HostClasses, HostLogits
from bnn_adv.posteriors.decision import predicted_class


def worst_log_probs(candidates: Sequence[HostLogits], y: HostClasses) -> HostLogits:
    """Return for every image the prediction at the worst of several perturbed inputs.

    The worst one fools; of those that do, or where none does, it is the one at which the label is
    least probable.

    Args:
      candidates: Log of the posterior predictive at each attack's inputs, each [N, C].
      y: Labels, [N].

    Returns:
      [N, C].

    Raises:
      ValueError: There is no candidate.
    """
    if not candidates:
        raise ValueError("The worst of no attacks is not defined: give one at least.")
    stacked, images = np.stack(candidates), np.arange(len(y))
    fools = predicted_class(stacked) != y
    own = stacked[:, images, y]
    # Sorted by the last key first: fooling, then the label's probability.
    order = np.lexsort((own, ~fools), axis=0)
    found: np.ndarray = stacked[order[0], images]
    return found
