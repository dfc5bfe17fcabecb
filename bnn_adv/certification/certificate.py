"""What was certified, and the file that says so."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import numpy as np

from bnn_adv.certification import referee_arrays
from bnn_adv.compute import files
from bnn_adv.evaluation.verification_arrays import VerificationError

SCHEMA_VERSION = 1

_PER_INPUT = {"alone": "f", "cancellation": "f", "nearest": "iu"}
"""What the referee does not look at, [N], by kind of dtype."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Certificate:
    """What was certified of N inputs.

    Args:
      x: Clean inputs, float32 [N, ...].
      y: Labels, [N].
      norm: Name of the norm.
      epsilon: Radius, [N].
      box: Smallest and largest value of an input.
      clean_correct: Whether the clean prediction is right, [N]; what is wrong is not certified.
      certified: Whether no input in the ball is misclassified, [N].
      margin: Lower bound over the ball of ``pbar_y - pbar_k`` for the nearest class k, in real
        arithmetic, [N]; of the mean logits by that rule. -1 (minus infinity) where the clean
        prediction is wrong.
      rounding: What float32 may take from it, [N].
      alone: The bound without cancellation between draws, [N].
      cancellation: ``|sum_s a_s| / sum_s |a_s|`` of the linear bounds' coefficients, [N]: 1 where
        draws agree, near 0 where they cancel.
      nearest: The class k, [N]; -1 where the clean prediction is wrong.
      least: Lower bound of any draw's smallest ``z_y - z_k``, less rounding, [N].
      radius: Largest radius that was certified, [N]; 0 where none was.
      rounds: Rounds of ``"alpha-crown"`` that a bound needs, [N]; 0 where the first bound
        certifies, which then is the margin too.
      points: Where lines were made tight in these rounds, one input's behind the other's,
        [sum of rounds, C, d]: changes in units of the radius, see ``places``.
      radius_rounds: The same of the bound at ``radius`` where that is not epsilon, [N].
      radius_points: The same.
      draws_hash: Hash of the draws.
      decision_rule: How draws make one prediction.
      num_samples: Draws, S.
      settings: How bounds were made.
      seconds: Time it took.
    """

    x: np.ndarray
    y: np.ndarray
    norm: str
    epsilon: np.ndarray
    box: tuple[float, float]
    clean_correct: np.ndarray
    certified: np.ndarray
    margin: np.ndarray
    rounding: np.ndarray
    alone: np.ndarray
    cancellation: np.ndarray
    nearest: np.ndarray
    least: np.ndarray
    radius: np.ndarray
    rounds: np.ndarray
    points: np.ndarray
    radius_rounds: np.ndarray
    radius_points: np.ndarray
    draws_hash: str
    decision_rule: str
    num_samples: int
    settings: dict[str, Any]
    seconds: float

    @property
    def certified_accuracy(self) -> float:
        """Share of inputs that are certified: a lower bound of adversarial accuracy."""
        return float(np.mean(self.certified))

    @property
    def certified_accuracy_real(self) -> float:
        """The same of the network in real arithmetic: rounding of float32 is not looked at."""
        return float(np.mean(self.margin > 0))

    def __repr__(self) -> str:
        """Return the numbers that count, in one line."""
        return (
            f"Certificate({self.norm} {self.epsilon.max():g}, {len(self.y)} inputs, "
            f"{self.num_samples} draws, {self.settings['method']}: "
            f"certified_accuracy={self.certified_accuracy:.3f} of "
            f"{self.clean_correct.mean():.3f})"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to an ``.npz`` file, atomically; ``verify_certificate`` checks it."""
        names = (
            *("x", "y", "epsilon", "clean_correct", "certified", "margin", "rounding", "alone"),
            *("cancellation", "nearest", "least", "radius"),
            *("rounds", "points", "radius_rounds", "radius_points"),
        )
        files.write_arrays(
            path,
            {name: np.asarray(getattr(self, name)) for name in names}
            | {
                "schema_version": np.asarray(SCHEMA_VERSION),
                "norm": np.asarray(self.norm),
                "lower": np.asarray(self.box[0]),
                "upper": np.asarray(self.box[1]),
                "draws_hash": np.asarray(self.draws_hash),
                "decision_rule": np.asarray(self.decision_rule),
                "num_samples": np.asarray(self.num_samples),
                "settings": np.asarray(json.dumps(self.settings, sort_keys=True)),
                "seconds": np.asarray(self.seconds),
            },
        )


def load_certificate(path: str | os.PathLike[str]) -> Certificate:
    """Read what ``Certificate.save`` wrote. ``verify_certificate`` says whether it is true.

    Args:
      path: An ``.npz`` file; nothing in it is unpickled.

    Raises:
      FileNotFoundError: There is no such file.
      VerificationError: An array is missing or malformed, or of another version.
      ValueError: The file is damaged.
    """
    arrays = files.read_arrays(path, (*referee_arrays.READ, *_PER_INPUT, "seconds"))
    stored = referee_arrays.check_arrays(arrays)
    count = len(stored["y"])
    wanted = {name: ((count,), kinds) for name, kinds in _PER_INPUT.items()} | {
        "seconds": ((), "f")
    }
    for name, (shape, kinds) in wanted.items():
        found = arrays.get(name)
        if found is None or found.shape != shape or found.dtype.kind not in kinds:
            raise VerificationError(
                f"The certificate {os.fspath(path)} needs the array {name} of shape {shape}: it "
                "was not written by this library, or by another version. Certify again."
            )
    plain = {"schema_version", "lower", "upper"}
    texts = {name: str(stored[name]) for name in ("norm", "draws_hash", "decision_rule")}
    return Certificate(
        **{name: array for name, array in stored.items() if name not in plain | texts.keys()}
        | {name: arrays[name] for name in _PER_INPUT}
        | texts
        | {
            "box": (float(stored["lower"]), float(stored["upper"])),
            "num_samples": int(stored["num_samples"]),
            "settings": referee_arrays.read_settings(stored),
            "seconds": float(arrays["seconds"]),
        }
    )
