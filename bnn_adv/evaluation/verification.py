r"""Referee adversarial images: recompute every claim from the stored arrays, and trust none.

Shares no code with attacks, objectives, threat models or evaluation. Distances, softmax and the
mean over draws are plain NumPy in float64, one draw after the other; the network alone runs as it
does elsewhere, unless the caller brings a function of its own. An image is confirmed where

    |x_adv - x|_p <= epsilon,   lower <= x_adv <= upper,   max_{k != y} lbar_k > lbar_y

with ``lbar = log (1/S) sum_s softmax(f(x_adv, w_s))``, or ``log softmax (1/S) sum_s f(x_adv, w_s)``
where that is the posterior's decision rule. A tie confirms nothing.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bnn_adv.compute import files
from bnn_adv.evaluation.verification_arrays import (
    NORMS,
    READ,
    ROUNDING,
    VerificationError,
    check_arrays,
    check_threat,
    describe_radius,
)
from bnn_adv.evaluation.verification_predictions import compile_network, find_margin, predict
from bnn_adv.posteriors.posterior import Posterior, hash_draws, logit_rounding

_DEFAULT_RULE = "mean_probabilities"
"""Decision rule of files that name none: they are older than the choice."""


@dataclasses.dataclass(frozen=True, eq=False)
class Verification:
    """What the referee found on N images.

    Args:
      indices: The data set's numbers of the images, [N].
      claimed: Images that are claimed to be misclassified, [N].
      distance: Norm of the change, [N].
      in_ball: Whether it is at most epsilon, up to float32 rounding, [N].
      in_box: Whether every value lies in the box, [N].
      labels_valid: Whether the label is one of the network's classes, [N].
      matches_data: Whether clean image and label are those of the data set, [N]; True where no
        data set was given.
      clean_agrees: Whether ``clean_correct`` is what the network says, [N]; True where float32
        rounding may decide.
      margin: ``max_{k != y} lbar_k - lbar_y`` at the adversarial image in nats, [N]; NaN where
        the label or a logit is invalid.
      largest: Largest absolute logit of any draw at the adversarial image, [N].
      correct: Whether the label is the most probable class at the clean image, [N].
      norm: Name of the norm.
      epsilon: Radius, one or [N].
      box: Smallest and largest allowed value.
      threat_from: Who says so: ``"caller"`` or ``"file"``.
    """

    indices: np.ndarray
    claimed: np.ndarray
    distance: np.ndarray
    in_ball: np.ndarray
    in_box: np.ndarray
    labels_valid: np.ndarray
    matches_data: np.ndarray
    clean_agrees: np.ndarray
    margin: np.ndarray
    largest: np.ndarray
    correct: np.ndarray
    norm: str
    epsilon: np.ndarray
    box: tuple[float, float]
    threat_from: str

    @property
    def num_inputs(self) -> int:
        """Number of images, N."""
        return len(self.indices)

    @property
    def fooled(self) -> np.ndarray:
        """Images whose label is less probable than another class, [N]."""
        return self.margin > 0

    @property
    def is_allowed(self) -> np.ndarray:
        """Adversarial images inside ball and box, [N]."""
        found: np.ndarray = self.in_ball & self.in_box
        return found

    @property
    def confirmed(self) -> np.ndarray:
        """Images that are claimed, allowed and fooled, [N]."""
        found: np.ndarray = self.claimed & self.is_allowed & self.fooled
        return found

    @property
    def unconfirmed(self) -> np.ndarray:
        """The data set's numbers of images that are claimed and not confirmed, [K]."""
        found: np.ndarray = self.indices[self.claimed & ~self.confirmed]
        return found

    @property
    def unclaimed(self) -> np.ndarray:
        """The data set's numbers of images that are allowed, fooled and not claimed, [K]."""
        found: np.ndarray = self.indices[self.is_allowed & self.fooled & ~self.claimed]
        return found

    @property
    def accuracy(self) -> float:
        """Share of clean images that are classified correctly."""
        return float(np.mean(self.correct))

    @property
    def adversarial_accuracy(self) -> float:
        """Share of images that are correct when clean, and at an allowed adversarial image.

        Where a logit is not finite, nothing is: such an image is neither fooled nor correct.
        """
        return float(np.mean(self.correct & ~(self.is_allowed & ~(self.margin <= 0))))

    @property
    def ok(self) -> bool:
        """Whether ``check`` finds nothing."""
        return not self._offences()

    def check(self) -> None:
        """Raise unless every claim is confirmed, and every image allowed and what it should be.

        Images that are fooled without being claimed are no offence: see ``unclaimed``.

        Raises:
          VerificationError: The message names the first offending images by reason.
        """
        offences = self._offences()
        if offences:
            raise VerificationError(
                f"{len(offences)} of the checks on {self.num_inputs} adversarial images failed. "
                + " ".join(offences)
                + " Do not report these images: compute them again."
            )

    def __str__(self) -> str:
        """Return the findings in a few lines."""
        lines = [
            f"{self.num_inputs} images: {self.claimed.sum()} claimed, {self.confirmed.sum()} "
            f"confirmed, {len(self.unconfirmed)} not, {len(self.unclaimed)} fooled unclaimed",
            f"accuracy {self.accuracy:.2%}, adversarial accuracy {self.adversarial_accuracy:.2%}",
            f"{self.norm} ball of radius {describe_radius(self.epsilon)} in the box "
            f"[{self.box[0]:g}, {self.box[1]:g}], as the {self.threat_from} says",
        ]
        return "\n".join(lines + (self._offences() or ["every check passed"]))

    def _offences(self) -> list[str]:
        reasons = {
            "outside the ball": ~self.in_ball,
            "outside the box": ~self.in_box,
            "label is no class": ~self.labels_valid,
            "clean image or label differs from the data set": ~self.matches_data,
            "clean_correct differs from the prediction": ~self.clean_agrees,
            "claimed and not misclassified": self.claimed & ~self.fooled,
        }
        return [
            f"{reason}: {_list_first(self.indices[wrong])}."
            for reason, wrong in reasons.items()
            if wrong.any()
        ]


def verify_adversarial(
    path: str | os.PathLike[str],
    posterior: Posterior,
    *,
    threat: Any = None,
    apply_fn: Callable[[Any, np.ndarray], Any] | None = None,
    x: Any = None,
    y: Any = None,
    batch_size: int = 256,
) -> Verification:
    """Verify the adversarial images of a file, see ``verify_arrays``.

    Raises:
      FileNotFoundError: There is no such file.
      VerificationError: As for ``verify_arrays``.
      ValueError: The file is damaged.
    """
    return verify_arrays(
        files.read_arrays(path, READ),
        posterior,
        threat=threat,
        apply_fn=apply_fn,
        x=x,
        y=y,
        batch_size=batch_size,
    )


def verify_arrays(
    arrays: Mapping[str, Any],
    posterior: Posterior,
    *,
    threat: Any = None,
    apply_fn: Callable[[Any, np.ndarray], Any] | None = None,
    x: Any = None,
    y: Any = None,
    batch_size: int = 256,
) -> Verification:
    """Verify adversarial images in memory.

    The ball's tolerance covers float32 rounding of the image's values and of the attack's own
    norm: ``2^-23 (|x|_p + 32 epsilon)``.

    Args:
      arrays: ``schema_version`` (1), ``x`` and ``x_adv`` [N, ...], ``y``, ``indices``, ``broken``
        (claimed to be misclassified) and ``clean_correct`` [N], ``norm`` (linf, l2, l1),
        ``epsilon`` (one, or [N]), ``lower``, ``upper``, ``draws_hash``; ``decision_rule`` where it
        is not the mean of probabilities.
      posterior: The draws that predict, in memory or on disk.
      threat: What the attacker was allowed: anything with ``norm``, ``epsilon`` (one, or [N]),
        ``lower`` and ``upper``, all finite; arrays that state something else are refused. None
        takes the arrays' word for it, which the findings say.
      apply_fn: Replaces the posterior's function by an independent one: called with one draw as
        NumPy arrays and a batch [B, ...], returns logits [B, C]. None: the posterior's, compiled,
        at its precision.
      x: The data set's clean images, [M, ...]; row ``indices[i]`` must be ``arrays["x"][i]``.
      y: The data set's labels, [M].
      batch_size: Images at once, at least 1.

    Returns:
      The findings; call ``check`` on them to refuse false claims.

    Raises:
      VerificationError: An array is missing or malformed, the version is unknown, radius or box
        are not finite, threat model, draws or decision rule are not those of the file, or the data
        set has no row of such a number.
      ValueError: ``batch_size`` is below one.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    stored = check_arrays(arrays)
    if threat is not None:
        check_threat(stored, threat)
    _check_draws(stored, posterior)
    _check_rule(arrays, posterior)
    call = compile_network(posterior) if apply_fn is None else apply_fn
    log_probs, largest = predict(call, posterior, stored["x_adv"], batch_size)
    clean, largest_clean = predict(call, posterior, stored["x"], batch_size)
    labels, rows = stored["y"].astype(np.int64), np.arange(len(stored["y"]))
    valid = (labels >= 0) & (labels < log_probs.shape[1])
    labels = np.where(valid, labels, 0)
    margin, clean_margin = (
        np.where(valid, find_margin(scores, labels, rows), np.nan) for scores in (log_probs, clean)
    )
    # The claim was made in the network's own precision: logits are off by some units of their last
    # place.
    rounding = logit_rounding(posterior, stored["x"])
    close = np.abs(clean_margin) <= 64 * rounding * np.maximum(1.0, largest_clean)
    distance, allowed = _distances(stored)
    lower, upper = (stored["x_adv"].dtype.type(stored[name]) for name in ("lower", "upper"))
    images = stored["x_adv"].reshape(len(rows), -1)
    return Verification(
        indices=stored["indices"],
        claimed=stored["broken"],
        distance=distance,
        in_ball=distance <= allowed,
        in_box=((images >= lower) & (images <= upper)).all(axis=1),
        labels_valid=valid,
        matches_data=_match(stored, x, y),
        clean_agrees=close | ((clean_margin <= 0) == stored["clean_correct"]),
        margin=np.where(np.isfinite(largest), margin, np.nan),
        largest=largest,
        # The maximum of numbers with a NaN is NaN; argmax would name a class.
        correct=(clean.argmax(axis=1) == labels) & valid & np.isfinite(clean.max(axis=1)),
        norm=str(stored["norm"]),
        epsilon=stored["epsilon"],
        box=(float(stored["lower"]), float(stored["upper"])),
        threat_from="file" if threat is None else "caller",
    )


def _check_draws(stored: dict[str, np.ndarray], posterior: Posterior) -> None:
    claimed, found = str(stored["draws_hash"]), hash_draws(posterior)
    if claimed != found:
        raise VerificationError(
            f"The images were computed against draws with the hash {claimed}; the posterior's is "
            f"{found}. Give the draws of the same run."
        )


def _check_rule(arrays: Mapping[str, Any], posterior: Posterior) -> None:
    claimed = str(np.asarray(arrays.get("decision_rule", _DEFAULT_RULE)))
    # Of one draw all rules make the same prediction.
    if claimed != posterior.decision_rule and posterior.num_samples > 1:
        raise VerificationError(
            f"The images were computed against predictions by the rule {claimed}; the posterior's "
            f"is {posterior.decision_rule}. Give the posterior decision_rule={claimed!r}."
        )


def _distances(stored: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the norm of every change, [N], and the largest that is allowed, [N]."""
    norm = NORMS[str(stored["norm"])]
    clean, moved = (
        stored[name].astype(np.float64).reshape(len(stored["x"]), -1) for name in ("x", "x_adv")
    )
    epsilon = stored["epsilon"].astype(np.float64)
    with np.errstate(invalid="ignore"):
        return norm(moved - clean), epsilon + 2 * ROUNDING * (norm(clean) + 32 * epsilon)


def _match(stored: dict[str, np.ndarray], x: Any, y: Any) -> np.ndarray:
    """Return which clean images and labels are the data set's, [N]."""
    indices, same = stored["indices"], np.ones(len(stored["indices"]), bool)
    for name, data in (("x", x), ("y", y)):
        if data is None:
            continue
        data = np.asarray(data)
        if indices.min() < 0 or indices.max() >= len(data):
            raise VerificationError(
                f"indices lie in [{indices.min()}, {indices.max()}] and the data set has "
                f"{len(data)} rows of {name}. Give the data set that was attacked."
            )
        own, theirs = stored[name].reshape(len(indices), -1), data[indices]
        theirs = theirs.reshape(len(indices), -1)
        same &= (own == theirs).all(axis=1) if own.shape == theirs.shape else False
    return same


def _list_first(indices: np.ndarray, most: int = 5) -> str:
    first = ", ".join(str(index) for index in indices[:most])
    return first + (f" and {len(indices) - most} more" if len(indices) > most else "")
