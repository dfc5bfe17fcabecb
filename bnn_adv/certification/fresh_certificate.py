"""What was certified of a predictor that draws anew, and at what confidence."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import numpy as np

from bnn_adv.compute import files

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FreshCertificate:
    r"""What n i.i.d. draws certify of N inputs, each at the stated confidence ``1 - delta``.

    With ``g_k(x, w) = p_y - p_k`` of one draw w, B_i the ball around input i, and S_i the event
    that a new draw by itself gives label y_i the largest logit on all of B_i.

    Fields without ``together`` hold for *each input alone*: of many inputs, a share of delta may be
    wrong. Those with it hold for *all N inputs at once* with probability at least 1 - delta
    (Bonferroni: each at delta / N). Two kinds of claims are two chances to be wrong: state one, or
    give each half of delta.

    Args:
      x: Clean inputs, float32 [N, ...].
      y: Labels, [N].
      norm: Name of the norm.
      epsilon: Radius, [N].
      box: Smallest and largest value of an input.
      confidence: ``1 - delta``.
      num_samples: Draws, n.
      margin: Lower bound of ``min_k min_{x in B_i} E_w g_k(x, w)``, the predictive of infinitely
        many draws, [N]; -1 where nothing is known.
      margin_together: The same for all inputs at once, [N].
      nearest: The class k of that minimum, [N].
      safe: Lower bound of ``P_w(S_i)``, [N]: what an attacker who knows the new draw may not do
        more often than ``1 - safe``.
      safe_together: The same for all inputs at once, [N].
      num_safe: Draws of the n for which S_i was certified, [N].
      num_right: Draws that are right at the clean input, [N]; a count, no bound.
      draw_accuracy: One number, at confidence ``1 - delta``: lower bound of ``E_w mean_i 1(S_i)``,
        the accuracy over these N inputs that a new draw keeps under attacks that know it, in
        expectation.
      rng_key: Data of the key; draw s is ``sampler.draw(fold_in(rng_key, s))``.
      settings: How bounds were made.
      seconds: Time it took.
    """

    x: np.ndarray
    y: np.ndarray
    norm: str
    epsilon: np.ndarray
    box: tuple[float, float]
    confidence: float
    num_samples: int
    margin: np.ndarray
    margin_together: np.ndarray
    nearest: np.ndarray
    safe: np.ndarray
    safe_together: np.ndarray
    num_safe: np.ndarray
    num_right: np.ndarray
    draw_accuracy: float
    rng_key: list[int]
    settings: dict[str, Any]
    seconds: float

    @property
    def certified(self) -> np.ndarray:
        """Whether the predictive in expectation is right on the whole ball, each alone, [N]."""
        found: np.ndarray = self.margin > 0
        return found

    @property
    def certified_together(self) -> np.ndarray:
        """The same for all inputs at once, [N]."""
        found: np.ndarray = self.margin_together > 0
        return found

    @property
    def certified_accuracy(self) -> float:
        """Share of inputs certified together.

        At the stated confidence a lower bound of the share of these inputs on whose whole ball the
        predictive in expectation is right.
        """
        return float(np.mean(self.certified_together))

    def __repr__(self) -> str:
        """Return the numbers that count, in one line."""
        return (
            f"FreshCertificate({self.norm} {self.epsilon.max():g}, {len(self.y)} inputs, "
            f"{self.num_samples} i.i.d. draws, {self.settings['method']}, "
            f"{_in_percent(self.confidence)} % confidence: "
            f"certified_accuracy={self.certified_accuracy:.3f}, "
            f"draw_accuracy={self.draw_accuracy:.3f} of "
            f"{self.num_right.mean() / self.num_samples:.3f})"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to an ``.npz`` file, atomically."""
        record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        lower, upper = record.pop("box")
        record["settings"] = json.dumps(self.settings, sort_keys=True)
        record |= {"lower": lower, "upper": upper, "schema_version": SCHEMA_VERSION}
        files.write_arrays(path, {name: np.asarray(value) for name, value in record.items()})


def _in_percent(confidence: float) -> str:
    """Return a confidence, which is below one, as a number that reads as below 100."""
    texts = [f"{100 * confidence:.{digits}g}" for digits in (6, 15, 17)]
    return next(text for text in texts if text != "100")
