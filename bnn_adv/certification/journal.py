"""Finished batches of a certificate: kept as parts of a checkpoint, and recalled bit for bit."""

from __future__ import annotations

import numpy as np

from bnn_adv.compute.checkpoint import NoCheckpoints
from bnn_adv.compute.checkpoint_store import Saved
from bnn_adv.compute.identity import OtherWorkError

_BATCH = ("rows", "radii")


class Journal:
    """Remember what was computed of every batch.

    Args:
      keeper: Where parts are saved.
      saved: What was saved before.
    """

    def __init__(self, keeper: NoCheckpoints, saved: Saved | None) -> None:
        self._keeper = keeper
        self._parts = {} if saved is None else saved.parts

    def recall(
        self, part: str, rows: np.ndarray, radii: np.ndarray
    ) -> dict[str, np.ndarray] | None:
        """Return a batch's values by name, or None where they are not known.

        Raises:
          OtherWorkError: They are those of other inputs or radii.
        """
        stored = self._parts.get(part)
        if stored is None:
            return None
        same = [np.array_equal(stored[n], v) for n, v in zip(_BATCH, (rows, radii), strict=True)]
        if not all(same):
            raise OtherWorkError(
                f"The checkpoint's {part} is of other inputs or radii. Delete its folder to start "
                "over."
            )
        return {name: value for name, value in stored.items() if name not in _BATCH}

    def keep(
        self, part: str, rows: np.ndarray, radii: np.ndarray, values: dict[str, np.ndarray]
    ) -> None:
        """Save a batch's values when it is time to."""
        batch = dict(zip(_BATCH, (rows, radii), strict=True))
        self._keeper.add_part(part, {**values, **batch})
        self._keeper.tick(None, {})
