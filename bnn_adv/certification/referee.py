r"""Referee certificates: bound every claim anew in NumPy and float64, and trust none.

Shares no code with the rest of the package's certificates: the network's equations are read, its
layers bounded, draws added up and minima over balls found by the files ``referee_*`` beside this
one. The balls are a little larger than those that the referee of adversarial images lets pass. A
claim is confirmed where the smallest difference of the label's and any other class's prediction is
above what float32 may take from it, both by the referee's own account.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from bnn_adv.certification.referee_arrays import READ, check_arrays, check_points, read_settings
from bnn_adv.certification.referee_balls import open_ball
from bnn_adv.certification.referee_margins import Found, Way, bound_prediction
from bnn_adv.certification.referee_network import open_draws, read_draw
from bnn_adv.compute import files
from bnn_adv.evaluation.verification_arrays import (
    VerificationError,
    check_threat,
    describe_radius,
)
from bnn_adv.evaluation.verification_predictions import compile_network, find_margin, predict
from bnn_adv.posteriors.posterior import Posterior, hash_draws, logit_rounding

Arithmetic = Literal["float32", "real"]

_APART = 1e-4
_CLOSE, _ROUNDED = 1e-6, 1e-3
"""By how much a claimed margin may be above the referee's: always; at most, for what rounds."""


@dataclasses.dataclass(frozen=True, eq=False)
class CertificateVerification:
    """What the referee found on N inputs.

    Args:
      claimed: Inputs that are claimed to be certified, [N].
      margin: Lower bound over the ball of the smallest difference of the label's and another
        class's prediction, by the referee, [N]; minus infinity where nothing was claimed.
      rounding: What float32 may take from it, [N].
      proved: Whether the claimed ball is confirmed, [N].
      radius_proved: Whether ``radius`` is confirmed, [N]; True where it claims nothing.
      margin_holds: Whether the claimed margin is at most the referee's, but for what rounds,
        [N]; True where it is not positive.
      consistent: Whether ``certified``, ``margin``, ``clean_correct`` and ``radius`` of the file
        say the same, [N].
      in_box: Whether every value of the input lies in the box, [N].
      labels_valid: Whether the label is one of the network's classes, [N].
      matches_data: Whether input and label are those of the data set, [N]; True where none was
        given.
      same_network: Whether what was bounded predicts at the input what the posterior does, [N];
        True where nothing was claimed.
      clean_agrees: Whether ``clean_correct`` is what the network says, [N]; True where float32
        rounding may decide.
      correct: Whether the label is the most probable class at the input, [N].
      norm: Name of the norm.
      epsilon: Radius, [N].
      box: Smallest and largest allowed value.
      rule: ``"predictive"`` or ``"every_draw"``: whose prediction the claims are about.
      arithmetic: ``"float32"`` or ``"real"``: whose arithmetic.
      threat_from: Who says what the ball is: ``"caller"`` or ``"file"``.
    """

    claimed: np.ndarray
    margin: np.ndarray
    rounding: np.ndarray
    proved: np.ndarray
    radius_proved: np.ndarray
    margin_holds: np.ndarray
    consistent: np.ndarray
    in_box: np.ndarray
    labels_valid: np.ndarray
    matches_data: np.ndarray
    same_network: np.ndarray
    clean_agrees: np.ndarray
    correct: np.ndarray
    norm: str
    epsilon: np.ndarray
    box: tuple[float, float]
    rule: str
    arithmetic: str
    threat_from: str

    @property
    def num_inputs(self) -> int:
        """Number of inputs, N."""
        return len(self.claimed)

    @property
    def confirmed(self) -> np.ndarray:
        """Inputs that are claimed, what they should be, and proved, [N]."""
        found: np.ndarray = (
            self.claimed
            & self.proved
            & self.correct
            & self.in_box
            & self.matches_data
            & self.same_network
        )
        return found

    @property
    def unconfirmed(self) -> np.ndarray:
        """Numbers of the inputs that are claimed and not confirmed, [K]."""
        return np.flatnonzero(self.claimed & ~self.confirmed)

    @property
    def certified_accuracy(self) -> float:
        """Share of inputs that are confirmed: a lower bound of adversarial accuracy."""
        return float(np.mean(self.confirmed))

    @property
    def ok(self) -> bool:
        """Whether ``check`` finds nothing."""
        return not self._offences()

    def check(self) -> None:
        """Raise unless every claim is confirmed, and every input what it should be.

        Raises:
          VerificationError: The message names the first offending inputs by reason.
        """
        offences = self._offences()
        if offences:
            raise VerificationError(
                f"{len(offences)} of the checks on certificates of {self.num_inputs} inputs "
                f"failed. {' '.join(offences)} Do not report these certificates: certify again."
            )

    def __str__(self) -> str:
        """Return the findings in a few lines."""
        whose = "every draw" if self.rule == "every_draw" else "the predictive"
        lines = [
            f"{self.num_inputs} inputs: {self.claimed.sum()} certified, {self.confirmed.sum()} "
            f"confirmed, {len(self.unconfirmed)} not",
            f"of {whose}, in {'real' if self.arithmetic == 'real' else 'float32'} arithmetic",
            f"{self.norm} ball of radius {describe_radius(self.epsilon)} in the box "
            f"[{self.box[0]:g}, {self.box[1]:g}], as the {self.threat_from} says",
        ]
        return "\n".join(lines + (self._offences() or ["every check passed"]))

    def _offences(self) -> list[str]:
        reasons = {
            "outside the box": ~self.in_box,
            "label is no class": ~self.labels_valid,
            "input or label differs from the data set": ~self.matches_data,
            "what was bounded predicts otherwise than the posterior": ~self.same_network,
            "clean_correct differs from the prediction": ~self.clean_agrees,
            "certified, margin, clean_correct and radius contradict each other": ~self.consistent,
            "certified and not confirmed": self.claimed & ~self.confirmed,
            "margin above what is confirmed": ~self.margin_holds,
            "radius not confirmed": ~self.radius_proved,
        }
        return [
            f"{reason}: {_list_first(np.flatnonzero(wrong))}."
            for reason, wrong in reasons.items()
            if wrong.any()
        ]


def verify_certificate(
    path: str | os.PathLike[str],
    posterior: Posterior,
    *,
    threat: Any = None,
    arithmetic: Arithmetic | None = None,
    x: Any = None,
    y: Any = None,
    batch_size: int = 64,
) -> CertificateVerification:
    """Verify the certificate in a file, see ``verify_certificate_arrays``.

    Raises:
      FileNotFoundError: There is no such file.
      VerificationError: As for ``verify_certificate_arrays``.
      ValueError: The file is damaged.
    """
    return verify_certificate_arrays(
        files.read_arrays(path, READ),
        posterior,
        threat=threat,
        arithmetic=arithmetic,
        x=x,
        y=y,
        batch_size=batch_size,
    )


def verify_certificate_arrays(
    arrays: Mapping[str, Any],
    posterior: Posterior,
    *,
    threat: Any = None,
    arithmetic: Arithmetic | None = None,
    x: Any = None,
    y: Any = None,
    batch_size: int = 64,
) -> CertificateVerification:
    """Verify a certificate in memory.

    What a file says of ``alone``, ``cancellation``, ``nearest`` and ``seconds`` is not looked at.

    Args:
      arrays: What ``Certificate.save`` writes.
      posterior: The draws that predict, in memory or on disk.
      threat: What the attacker was allowed: anything with ``norm``, ``epsilon`` (one, or [N]),
        ``lower`` and ``upper``; arrays that state something else are refused. None takes the
        arrays' word for it, which the findings say.
      arithmetic: What the certificate must be about; None takes the arrays' word for it.
      x: The inputs that were to be certified, [N, ...].
      y: Their labels, [N].
      batch_size: Inputs at once, at least 1.

    Returns:
      The findings; call ``check`` on them to refuse false claims.

    Raises:
      VerificationError: An array is missing or malformed, the version is unknown, a radius or the
        box is not finite, threat model, arithmetic, draws or decision rule are not those of the
        file, or the network applies what the referee does not know (``not confirmed: ...``).
      ValueError: ``batch_size`` is below one.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    stored = check_arrays(arrays)
    settings = read_settings(stored)
    if threat is not None:
        check_threat(stored, threat)
    _check_claims(stored, settings, posterior, arithmetic)
    log_probs, largest = predict(compile_network(posterior), posterior, stored["x"], 256)
    check_points(stored, log_probs.shape[1])
    labels, rows = stored["y"].astype(np.int64), np.arange(len(stored["y"]))
    valid = (labels >= 0) & (labels < log_probs.shape[1])
    labels = np.where(valid, labels, 0)
    # How much the best other class is above the label.
    excess = np.where(valid, find_margin(log_probs, labels, rows), np.nan)
    rounding = logit_rounding(posterior, stored["x"])
    close = np.abs(excess) <= 64 * rounding * np.maximum(1.0, largest)
    referee = _Referee(posterior, stored, settings, labels, batch_size, log_probs.shape[1])
    claimed, radius = stored["certified"], stored["radius"].astype(np.float64)
    epsilon = stored["epsilon"].astype(np.float64)
    asked = valid & (claimed | (stored["margin"] > 0))
    found = referee.bound(epsilon, asked, "rounds", "points")
    proved = claimed & asked & referee.judge(found)
    elsewhere = valid & (radius > 0) & ~(claimed & (radius == epsilon))
    at_radius = referee.judge(referee.bound(radius, elsewhere, "radius_rounds", "radius_points"))
    margin = np.where(asked, found.margin, -np.inf)
    # What was bounded must be what predicts: constants may have been computed otherwise.
    same = ~asked | (np.abs(np.exp(log_probs) - found.clean).max(axis=1) <= found.drift + _APART)
    with np.errstate(invalid="ignore"):
        # Below the truth by what rounds, and by what was taken off for that.
        above = np.minimum(2 * found.slack, _ROUNDED) + _CLOSE * (1 + np.abs(stored["margin"]))
        allowed = margin + above
        holds = (stored["margin"] <= 0) | (stored["margin"] <= allowed)
    lower, upper = (stored["x"].dtype.type(stored[name]) for name in ("lower", "upper"))
    images = stored["x"].reshape(len(rows), -1)
    return CertificateVerification(
        claimed=claimed,
        margin=margin,
        rounding=found.rounding,
        proved=proved,
        radius_proved=(radius == 0) | proved & (radius == epsilon) | elsewhere & at_radius,
        margin_holds=holds,
        consistent=_find_consistent(stored, settings),
        in_box=((images >= lower) & (images <= upper)).all(axis=1),
        labels_valid=valid,
        matches_data=_match(stored, x, y),
        same_network=same,
        clean_agrees=close | ((excess < 0) == stored["clean_correct"]),
        correct=(excess < 0) & np.isfinite(log_probs.max(axis=1)),
        norm=str(stored["norm"]),
        epsilon=stored["epsilon"],
        box=(float(stored["lower"]), float(stored["upper"])),
        rule=settings["rule"],
        arithmetic=settings["arithmetic"],
        threat_from="file" if threat is None else "caller",
    )


class _Referee:
    """Bounds the inputs of one certificate at any radii."""

    def __init__(
        self,
        posterior: Posterior,
        stored: dict[str, np.ndarray],
        settings: dict[str, Any],
        labels: np.ndarray,
        batch_size: int,
        num_classes: int,
    ) -> None:
        self._num_classes = num_classes
        self._stored, self._settings, self._labels = stored, settings, labels
        self._num_samples, self._size = posterior.num_samples, batch_size
        is_linear = settings["method"] in ("crown", "alpha-crown")
        self._way = Way(posterior.decision_rule, is_linear, settings["most_rows"])
        self._draws = functools.partial(read_draw, *open_draws(posterior, stored["x"].shape[1:]))

    def bound(self, radius: np.ndarray, asked: np.ndarray, rounds: str, points: str) -> Found:
        """Return bounds at radii, [N], of those that are asked for; of others nothing."""
        count = len(radius)
        found = Found(
            np.full(count, -np.inf),
            np.zeros(count),
            np.full(count, -np.inf),
            np.full((count, self._num_classes), np.nan),
            *np.zeros((2, count)),
        )
        shares = np.split(self._stored[points], np.cumsum(self._stored[rounds])[:-1])
        box = (float(self._stored["lower"]), float(self._stored["upper"]))
        rows = np.flatnonzero(asked)
        for start in range(0, len(rows), self._size):
            batch = rows[start : start + self._size]
            ball = open_ball(
                str(self._stored["norm"]), self._stored["x"][batch], radius[batch], box
            )
            places = [shares[row] for row in batch]
            y = self._labels[batch]
            # What overflows is no number, and confirms nothing.
            with np.errstate(all="ignore"):
                own = bound_prediction(self._draws, self._num_samples, ball, y, self._way, places)
            for part, values in zip(found, own, strict=True):
                part[batch] = values
        return found

    def judge(self, found: Found) -> np.ndarray:
        """Return where bounds prove what the settings claim, [N]."""
        value = found.least if self._settings["rule"] == "every_draw" else found.margin
        needed = 0.0 if self._settings["arithmetic"] == "real" else found.rounding
        judged: np.ndarray = value > needed
        return judged


def _check_claims(
    stored: dict[str, np.ndarray],
    settings: dict[str, Any],
    posterior: Posterior,
    arithmetic: Arithmetic | None,
) -> None:
    """Raise unless a certificate is about a posterior's predictions in the arithmetic asked for."""
    pairs = {
        "draws with the hash": (str(stored["draws_hash"]), hash_draws(posterior)),
        "the decision rule": (str(stored["decision_rule"]), posterior.decision_rule),
        "a number of draws of": (int(stored["num_samples"]), posterior.num_samples),
        "arithmetic:": (settings["arithmetic"], arithmetic or settings["arithmetic"]),
    }
    for what, (claimed, given) in pairs.items():
        if claimed != given:
            raise VerificationError(
                f"The certificate is about {what} {claimed}; yours is {given}. It says nothing "
                "about that."
            )
    if posterior.precision != "highest":
        raise VerificationError(
            f"The posterior computes in {posterior.precision}, which rounds more than is looked "
            'at: give it precision="highest".'
        )


def _find_consistent(stored: dict[str, np.ndarray], settings: dict[str, Any]) -> np.ndarray:
    """Return where the file's claims follow from each other, [N]."""
    certified, radius, epsilon = (stored[name] for name in ("certified", "radius", "epsilon"))
    needed = 0.0 if settings["arithmetic"] == "real" else stored["rounding"]
    if settings["rule"] == "every_draw":
        implied = ~certified | (stored["least"] > 0)
    else:
        implied = certified == (stored["margin"] > needed)
    right = ~(certified | (radius > 0) | (stored["margin"] > 0)) | stored["clean_correct"]
    found: np.ndarray = implied & right & (~certified | (radius >= epsilon))
    return found


def _match(stored: dict[str, np.ndarray], x: Any, y: Any) -> np.ndarray:
    """Return which inputs and labels are the data set's, [N]."""
    count = len(stored["x"])
    same = np.ones(count, bool)
    for name, data in (("x", x), ("y", y)):
        if data is None:
            continue
        data, own = np.asarray(data), stored[name]
        if data.shape != own.shape:
            raise VerificationError(
                f"The certificate's {name} has shape {own.shape}, the data set's {data.shape}. "
                "Give the inputs that were certified, in their order."
            )
        same &= (own == data).reshape(count, -1).all(axis=1)
    return same


def _list_first(indices: np.ndarray, most: int = 5) -> str:
    first = ", ".join(str(index) for index in indices[:most])
    return first + (f" and {len(indices) - most} more" if len(indices) > most else "")
