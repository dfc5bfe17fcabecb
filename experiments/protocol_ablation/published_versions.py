r"""The published attack by version of the published code, set of constants, and numbers of draws.

Facts, not code, of two versions of the code of Carbone et al. 2020. They differ in where a
variational network's draws come from:

    2020 (commit 72c23b2)     a list, by seeds 0, 1, 2, ...: attacker and defender use its first
                              n and m draws, at every step and every prediction
    today (commit 5f96ec9)    drawn anew by every forward pass: each step of an attack and each
                              prediction sees other draws

Each has two sets of attack constants: those that hyperparameters are given to, and the defaults of
a call that passes none, as one of the two scripts that could have made Table 2 does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import logsumexp

from bnn_adv.attacks import pgd
from bnn_adv.attacks.base import Attack

Version = Literal["2020", "today"]
VERSIONS: tuple[Version, ...] = ("2020", "today")

PAPER = {"accuracy": 0.961, "fgsm": 0.900, "pgd": 0.898}
"""Carbone et al. 2020, supplement, Table 2, Bayesian network on MNIST."""


class Constants(NamedTuple):
    """Constants of PGD; FGSM has the radius 0.3 in both sets.

    name: ``"given"`` or ``"defaults"``.
    epsilon: l_inf radius, in units of inputs in [0, 1].
    step_size: Of each of its steps. With "given" it is 2 / max(image), which like every step of
      twice the radius or more goes to a corner of the box.
    num_steps: Steps.
    """

    name: str
    epsilon: float
    step_size: float
    num_steps: int = 40


CONSTANTS = (Constants("given", 0.3, 2.0), Constants("defaults", 0.5, 2 / 225))


class Setting(NamedTuple):
    """What a line of the table is about.

    version: Of the published code.
    constants: Of PGD.
    attacker_samples: Draws that make a gradient.
    defender_samples: Draws that make a prediction.
    """

    version: Version
    constants: Constants
    attacker_samples: int
    defender_samples: int


def list_settings(attackers: Sequence[int], defenders: Sequence[int]) -> list[Setting]:
    """Return every combination of version, constants, and numbers of draws."""
    return [
        Setting(version, constants, attacker, defender)
        for version, constants, attacker, defender in itertools.product(
            VERSIONS, CONSTANTS, attackers, defenders
        )
    ]


def build_pgd(constants: Constants) -> Attack:
    """Return PGD as published: from the image, last iterate."""
    return pgd.build(
        num_steps=constants.num_steps,
        step_size=constants.step_size,
        random_start=False,
        keep="last",
    )


def average_predictions(log_probs: np.ndarray, num_samples: int, *, version: Version) -> np.ndarray:
    """Return the log of the predictions that draws make, as a version of the code uses them.

    Args:
      log_probs: Every draw's log-probabilities, [M, N, C].
      num_samples: Draws of a prediction, m, from 1 to M.
      version: ``"2020"``: one prediction by the first m draws. ``"today"``: as many predictions as
        there are groups of m draws, each of its own.

    Returns:
      ``log (1/m) sum_s softmax_s``, [P, N, C], with P = 1 or M // m.

    Raises:
      ValueError: m is out of range.
    """
    if not 1 <= num_samples <= len(log_probs):
        raise ValueError(f"num_samples must lie in 1..{len(log_probs)}, got {num_samples}.")
    count = 1 if version == "2020" else len(log_probs) // num_samples
    groups = log_probs[: count * num_samples].reshape(count, num_samples, *log_probs.shape[1:])
    averages: np.ndarray = logsumexp(groups, axis=1) - np.log(num_samples)
    return averages


def miss(fgsm: float, pgd_: float) -> float:
    """Return how far accuracies in [0, 1] lie from Table 2: the larger of the two distances."""
    return max(abs(fgsm - PAPER["fgsm"]), abs(pgd_ - PAPER["pgd"]))
