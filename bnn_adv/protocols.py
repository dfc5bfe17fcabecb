"""Suites as data: ``published``, ``corrected``, ``fast``, ``strong`` and ``full``.

The switches are those in which the published code departs from the mathematics: the averaged
probabilities enter a second softmax (``double_softmax``, with ``attack_objective``, the loss of the
mean prediction), PGD steps of 2.0 on [0, 1] data (``pgd_step``), and a robustness metric computed
on softmax of probabilities (``metric_softmax``). What the published code calls a network's output,
and therefore its loss and its metric, follows the posterior's decision rule.
"""

from __future__ import annotations

import dataclasses

from bnn_adv.attacks import (
    apgd,
    apgd_t,
    corner,
    fab,
    fab_t,
    fgsm,
    genetic,
    nes,
    noise,
    pgd,
    square,
)
from bnn_adv.attacks.base import Attack
from bnn_adv.attacks.transfer import Surrogate


@dataclasses.dataclass(frozen=True)
class Entry:
    """Name one attack of a protocol.

    Args:
      name: Key of its accuracy in the results.
      attack: The attack with its settings.
      objective: A name in ``OBJECTIVES``.
      surrogate: What is attacked in place of the posterior, see ``attacks.transfer``; success
        is always the posterior's.
    """

    name: str
    attack: Attack
    objective: str
    surrogate: Surrogate = "posterior"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Define a protocol.

    Args:
      name: Key in ``PROTOCOLS``.
      description: One sentence for tables and reports.
      entries: Attacks, in order.
      restarts: How often the list of entries is run.
      worst_case: Run each attack on the images that still stand and report the per-image worst;
        else run every attack on all images and report each by itself.
      published_metric: Compute softmax robustness as the published code does.
    """

    name: str
    description: str
    entries: tuple[Entry, ...]
    restarts: int = 1
    worst_case: bool = False
    published_metric: bool = False

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the objectives in use, without repetition."""
        return tuple(dict.fromkeys(entry.objective for entry in self.entries))


_PUBLISHED = Protocol(
    "published",
    "As the published code of September 2020, on known draws: cross-entropy, with a softmax of its "
    "own, of the network's output: mean probabilities of a Bayesian network (a second softmax), "
    "logits of a deterministic one, mean logits of an ensemble; FGSM; PGD of 40 steps of size 2 "
    "without random start, last iterate; metric on softmax of that output.",
    (
        Entry("fgsm", fgsm.build(), "published"),
        Entry(
            "pgd",
            pgd.build(num_steps=40, step_size=2.0, random_start=False, keep="last"),
            "published",
        ),
    ),
    published_metric=True,
)

_CORRECTED = Protocol(
    "corrected",
    "As the paper defines it: the mean of the draws' loss gradients; FGSM; PGD of 40 steps of "
    "2.5 epsilon / 40 from a random start, best iterate.",
    (
        Entry("fgsm", fgsm.build(), "expected_loss"),
        Entry("pgd", pgd.build(num_steps=40), "expected_loss"),
    ),
)

# All steps are taken also by images that are fooled early: they move away from the boundary, and so
# keep fooling predictions from fresh draws.
_STRONG_PGD = pgd.build(num_steps=100)

_STRONG = Protocol(
    "strong",
    "PGD of 100 steps, up to 5 restarts, on the margin of the mean logits, the normalised vote, "
    "the expected loss and the loss of the mean, each on the images that still stand; per-image "
    "worst case.",
    tuple(
        Entry(f"pgd_{objective}", _STRONG_PGD, objective)
        for objective in ("mean_logit_margin", "normalised_vote", "expected_loss", "loss_of_mean")
    ),
    restarts=5,
    worst_case=True,
)

# Once an image is fooled there is no more to know of it: these look for the worst case only.
_FAST_PGD = pgd.build(num_steps=20, stop_on_success=True)

_FAST = Protocol(
    "fast",
    "PGD of 20 steps on the margin of the mean logits and on the normalised vote, and Auto-PGD of "
    "20 steps on the log-predictive margin; per-image worst case.",
    (
        Entry("pgd_mean_logit_margin", _FAST_PGD, "mean_logit_margin"),
        Entry("pgd_normalised_vote", _FAST_PGD, "normalised_vote"),
        Entry(
            "apgd_log_predictive_margin",
            apgd.build(num_steps=20, stop_on_success=True),
            "log_predictive_margin",
        ),
    ),
    worst_case=True,
)

_LONG_PGD = pgd.build(num_steps=100, stop_on_success=True)
_APGD = apgd.build(num_steps=100, stop_on_success=True)

_FULL = Protocol(
    "full",
    "In the order of their cost, each on the images that still stand: random noise and corners; "
    "FGSM; PGD of 100 steps on four objectives, and on single draws and the mean weights; Auto-PGD "
    "of 100 steps on four more; targeted Auto-PGD; FAB; the square attack, NES and a genetic "
    "search, which ask for no gradient; three rounds; per-image worst case.",
    (
        Entry("noise", noise.build(num_steps=100), "mean_logit_margin"),
        Entry("corner", corner.build(num_steps=100), "mean_logit_margin"),
        Entry("fgsm_expected_loss", fgsm.build(), "expected_loss"),
        *(
            Entry(f"pgd_{objective}", _LONG_PGD, objective)
            for objective in (
                "mean_logit_margin",
                "normalised_vote",
                "expected_loss",
                "loss_of_mean",
            )
        ),
        Entry("transfer_one_draw", _LONG_PGD, "mean_logit_margin", surrogate="one_draw"),
        Entry("transfer_mean_weights", _LONG_PGD, "mean_logit_margin", surrogate="mean_weights"),
        *(
            Entry(f"apgd_{objective}", _APGD, objective)
            for objective in (
                "mean_logit_margin",
                "scaled_margin",
                "log_predictive_margin",
                "dlr",
            )
        ),
        Entry(
            "apgd_t_mean_logit_margin",
            apgd_t.build(num_steps=50, num_targets=9, stop_on_success=True),
            "mean_logit_margin",
        ),
        Entry(
            "fab_t_log_predictive_margin",
            fab_t.build(num_steps=30, num_targets=9, stop_on_success=True),
            "log_predictive_margin",
        ),
        Entry(
            "square_log_predictive_margin", square.build(num_steps=2000), "log_predictive_margin"
        ),
        Entry("nes_mean_logit_margin", nes.build(), "mean_logit_margin"),
        Entry("genetic_mean_logit_margin", genetic.build(), "mean_logit_margin"),
    ),
    restarts=3,
    worst_case=True,
)

PROTOCOLS = {
    protocol.name: protocol for protocol in (_PUBLISHED, _CORRECTED, _FAST, _STRONG, _FULL)
}

MINIMAL = (Entry("fab_mean_logit_margin", fab.build(num_steps=30), "mean_logit_margin"),)
"""Attacks that look for the smallest perturbation, whatever the radius."""


def get_protocol(name: str) -> Protocol:
    """Return the protocol of that name.

    Raises:
      ValueError: There is none; the message lists them.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {name!r}. Known: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def list_compared(suite: str) -> dict[str, Protocol]:
    """Return what studies set side by side: the two of the paper, and a suite as the strong one.

    Raises:
      ValueError: There is no such suite.
    """
    names = {"published": "published", "corrected": "corrected", "strong": suite}
    return {role: get_protocol(name) for role, name in names.items()}
