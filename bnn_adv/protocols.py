"""What is run under the names ``published``, ``corrected`` and ``strong``, as data.

The switches are those in which the published code departs from the mathematics: the averaged
probabilities enter a second softmax (``double_softmax``, with ``attack_objective``, the loss of the
mean prediction), PGD steps of 2.0 on [0, 1] data (``pgd_step``), and a robustness metric computed
on softmax of probabilities (``metric_softmax``).
"""

from __future__ import annotations

import dataclasses

from bnn_adv.attacks import fgsm, pgd
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
    "As the published code: cross-entropy of a second softmax of the mean prediction; "
    "FGSM; PGD of 40 steps of size 2 without random start, last iterate; metric on softmax of "
    "probabilities.",
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

PROTOCOLS = {protocol.name: protocol for protocol in (_PUBLISHED, _CORRECTED, _STRONG)}


def get_protocol(name: str) -> Protocol:
    """Return the protocol of that name.

    Raises:
      ValueError: There is none; the message lists them.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {name!r}. Known: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
