"""Suites as data: ``published``, ``corrected``, ``fast``, ``strong`` and ``full``.

The switches are those in which the published code departs from the mathematics: the averaged
probabilities enter a second softmax (``double_softmax``, with ``attack_objective``, the loss of the
mean prediction), PGD steps of 2.0 on [0, 1] data (``pgd_step``), and a robustness metric computed
on softmax of probabilities (``metric_softmax``). What the published code calls a network's output,
and therefore its loss and its metric, follows the posterior's decision rule.
"""

from __future__ import annotations

import dataclasses
import functools
import numbers

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
from bnn_adv.attacks.objectives import Objective, get_objective
from bnn_adv.attacks.transfer import Surrogate
from bnn_adv.compute import arguments, registry


@dataclasses.dataclass(frozen=True)
class Entry:
    """One attack of a suite.

    Args:
      name: Key of its accuracy in the results.
      attack: The attack with its settings.
      objective: An ``Objective``; or its name in ``OBJECTIVES``, or ``package.module:NAME``.
      surrogate: What is attacked in place of the posterior, see ``attacks.transfer``; success
        is always the posterior's.
      reach: Of a worst-case suite: images are set aside, and not attacked, where the attacks before
        have closed less than this share of the gap between the label and the next class, in
        [0, 1); see ``cascade.is_within_reach``. 0 sets none aside.
      near: Nor are those of which no more than this is left of the gap, in nats.

    Raises:
      TypeError: ``attack`` is none, or ``reach`` or ``near`` is no number.
      ValueError: It takes no step, or ``reach`` or ``near`` is out of range.
    """

    name: str
    attack: Attack
    objective: str | Objective
    surrogate: Surrogate = "posterior"
    reach: float = 0.0
    near: float = 2.0

    def __post_init__(self) -> None:
        """Check that it can be run."""
        if not isinstance(self.attack, Attack):
            given = getattr(self.attack, "__name__", repr(self.attack))
            raise TypeError(
                f"The attack of the entry {self.name!r} must be an Attack, as pgd.build() of "
                f"bnn_adv.attacks makes one, got {given}."
            )
        # One of none would leave every input standing.
        arguments.check_count("num_steps", self.attack.num_steps, 1)
        for name in ("reach", "near"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise TypeError(f"{name} of {self.name} must be a number, got {value!r}.")
        if not 0 <= self.reach < 1:
            raise ValueError(f"reach of {self.name} must be in [0, 1), got {self.reach!r}.")
        if not self.near >= 0:
            raise ValueError(f"near of {self.name} must be at least 0, got {self.near!r}.")

    @property
    def objective_name(self) -> str:
        """The objective's own name, which reports show."""
        return get_objective(self.objective).name


@dataclasses.dataclass(frozen=True)
class Suite:
    """Define a suite.

    Args:
      entries: Attacks, in order.
      name: Key in ``SUITES``, or any of one's own.
      description: One sentence for tables and reports.
      restarts: How often the list of entries is run.
      worst_case: Run each attack on the images that still stand and report the per-image worst;
        else run every attack on all images and report each by itself.
      published_metric: Compute softmax robustness as the published code does.

    Raises:
      TypeError: ``entries`` are no entries.
      ValueError: No entries, two of one name, two objectives of one name, or no round at all.
    """

    entries: tuple[Entry, ...]
    name: str = "own"
    description: str = ""
    restarts: int = 1
    worst_case: bool = False
    published_metric: bool = False

    def __post_init__(self) -> None:
        """Check that attacks can be run, and that reports can tell them apart."""
        if not isinstance(self.entries, list | tuple) or not all(
            isinstance(entry, Entry) for entry in self.entries
        ):
            raise TypeError(
                "A suite is made of entries: Suite((Entry(name, attack, objective), ...)), got "
                f"{self.entries!r}."
            )
        object.__setattr__(self, "entries", tuple(self.entries))
        arguments.check_count("restarts", self.restarts, 1)
        if not self.entries:
            raise ValueError(f"The suite {self.name} has no entries: give one Entry at least.")
        names = [entry.name for entry in self.entries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"Entries of the suite {self.name} have one name: {', '.join(twice)}. Random keys "
                "and results go by it: give each its own."
            )
        found: dict[str, Objective] = {}
        for entry in self.entries:
            objective = get_objective(entry.objective)
            if found.setdefault(objective.name, objective) != objective:
                raise ValueError(
                    f"Two objectives of the suite {self.name} are called {objective.name!r}: give "
                    "each its own name."
                )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives in use, without repetition."""
        found = (get_objective(entry.objective) for entry in self.entries)
        return tuple({objective.name: objective for objective in found}.values())


_PUBLISHED = Suite(
    name="published",
    description="As the published code of September 2020, on known draws: cross-entropy, with a "
    "softmax of its own, of the network's output: mean probabilities of a Bayesian network (a "
    "second softmax), logits of a deterministic one, mean logits of an ensemble; FGSM; PGD of 40 "
    "steps of size 2 without random start, last iterate; metric on softmax of that output.",
    entries=(
        Entry("fgsm", fgsm.build(), "published"),
        Entry(
            "pgd",
            pgd.build(num_steps=40, step_size=2.0, random_start=False, keep="last"),
            "published",
        ),
    ),
    published_metric=True,
)

_CORRECTED = Suite(
    name="corrected",
    description="As the paper defines it: the mean of the draws' loss gradients; FGSM; PGD of 40 "
    "steps of 2.5 epsilon / 40 from a random start, best iterate.",
    entries=(
        Entry("fgsm", fgsm.build(), "expected_loss"),
        Entry("pgd", pgd.build(num_steps=40), "expected_loss"),
    ),
)

# These stop at success: the worst case is all that counts, and once an image is fooled there is no
# more to know of it.
_SHORT_PGD = pgd.build(num_steps=20, stop_on_success=True)
_SHORT_APGD = apgd.build(num_steps=20, stop_on_success=True)

_FAST = Suite(
    name="fast",
    description="PGD of 20 steps on the margin of the mean logits and on the normalised vote, and "
    "Auto-PGD of 20 steps on the log-predictive margin; per-image worst case.",
    entries=(
        Entry("pgd_mean_logit_margin", _SHORT_PGD, "mean_logit_margin"),
        Entry("pgd_normalised_vote", _SHORT_PGD, "normalised_vote"),
        Entry("apgd_log_predictive_margin", _SHORT_APGD, "log_predictive_margin"),
    ),
    worst_case=True,
)

_PGD = pgd.build(num_steps=100, stop_on_success=True)
_APGD = apgd.build(num_steps=100, stop_on_success=True)

_half_way = functools.partial(Entry, reach=0.5)
_at_the_end = functools.partial(Entry, reach=0.9, near=0.25)
"""Short attacks towards every class are run from half of the way on, long ones by gradients at its
end: beyond lies what they break of networks whose gradients are not masked."""


def _aim(num_targets: int, num_steps: int = 25) -> Attack:
    """Return Auto-PGD towards each of the likeliest other classes."""
    return apgd_t.build(
        num_steps=num_steps, num_targets=num_targets, start="clean", stop_on_success=True
    )


_STRONG = Suite(
    name="strong",
    description="PGD of 20 steps on the margin of the mean logits; then, on the images that still "
    "stand, PGD of 20 on the normalised vote and Auto-PGD of 20 on the log-predictive margin; "
    "then, where those have closed half of the gap to the next class, or all but 2 nats, or next "
    "to nothing of it: Auto-PGD of 8 steps towards each of the 9 likeliest other classes on the "
    "log-predictive margin; then, where nine tenths are closed, or all but a quarter nat, or next "
    "to nothing: the same of 25 steps, and on the margin of the mean logits, and towards the 3 "
    "likeliest on the difference-of-logits ratio; PGD of 100 steps on the margin of the mean "
    "logits and Auto-PGD of 100 on the log-predictive margin; FAB of 10 steps towards 3 classes; "
    "then, where three quarters are closed, or all but 2 nats, or next to nothing: the square "
    "attack with 500 queries; per-image worst case.",
    entries=(
        # All steps are taken also by images that are fooled early: they move away from the
        # boundary, and so keep fooling predictions from fresh draws.
        Entry("pgd_mean_logit_margin", pgd.build(num_steps=20), "mean_logit_margin"),
        *_FAST.entries[1:],
        _half_way("apgd_t_log_predictive_margin_8", _aim(9, 8), "log_predictive_margin"),
        _at_the_end("apgd_t_log_predictive_margin", _aim(9), "log_predictive_margin"),
        _at_the_end("apgd_t_mean_logit_margin", _aim(9), "mean_logit_margin"),
        _at_the_end("apgd_t_dlr", _aim(3), "dlr"),
        _at_the_end("pgd_mean_logit_margin_100", _PGD, "mean_logit_margin"),
        _at_the_end("apgd_log_predictive_margin_100", _APGD, "log_predictive_margin"),
        _at_the_end(
            "fab_t_log_predictive_margin",
            fab_t.build(num_steps=10, num_targets=3, stop_on_success=True),
            "log_predictive_margin",
        ),
        # Asks for no gradient, and so breaks what those before were blind to on their way.
        Entry(
            "square_log_predictive_margin",
            square.build(num_steps=500),
            "log_predictive_margin",
            reach=0.75,
        ),
    ),
    worst_case=True,
)

_FULL = Suite(
    name="full",
    description="All of strong, with no image set aside; then, on the images that still stand: "
    "random noise and corners; FGSM; PGD of 100 steps on the expected loss and the loss of the "
    "mean, and by the gradients of single draws and of the mean weights; Auto-PGD of 100 steps on "
    "three more objectives; targeted Auto-PGD of 50 steps from random starts; FAB of 30; the "
    "square attack with 2,000 queries, NES and a genetic search, which ask for no gradient; three "
    "rounds; per-image worst case.",
    entries=(
        *(dataclasses.replace(entry, reach=0.0) for entry in _STRONG.entries),
        Entry("noise", noise.build(num_steps=100), "mean_logit_margin"),
        Entry("corner", corner.build(num_steps=100), "mean_logit_margin"),
        Entry("fgsm_expected_loss", fgsm.build(), "expected_loss"),
        *(
            Entry(f"pgd_{objective}_100", _PGD, objective)
            for objective in ("expected_loss", "loss_of_mean")
        ),
        Entry("transfer_one_draw", _PGD, "mean_logit_margin", surrogate="one_draw"),
        Entry("transfer_mean_weights", _PGD, "mean_logit_margin", surrogate="mean_weights"),
        *(
            Entry(f"apgd_{objective}_100", _APGD, objective)
            for objective in ("mean_logit_margin", "scaled_margin", "dlr")
        ),
        Entry(
            "apgd_t_mean_logit_margin_50",
            apgd_t.build(num_steps=50, num_targets=9, stop_on_success=True),
            "mean_logit_margin",
        ),
        Entry(
            "fab_t_log_predictive_margin_30",
            fab_t.build(num_steps=30, num_targets=9, stop_on_success=True),
            "log_predictive_margin",
        ),
        Entry(
            "square_log_predictive_margin_2000",
            square.build(num_steps=2000),
            "log_predictive_margin",
        ),
        Entry("nes_mean_logit_margin", nes.build(), "mean_logit_margin"),
        Entry("genetic_mean_logit_margin", genetic.build(), "mean_logit_margin"),
    ),
    restarts=3,
    worst_case=True,
)

SUITES = {suite.name: suite for suite in (_PUBLISHED, _CORRECTED, _FAST, _STRONG, _FULL)}

MINIMAL = (Entry("fab_mean_logit_margin", fab.build(num_steps=30), "mean_logit_margin"),)
"""Attacks that look for the smallest perturbation, whatever the radius."""


def get_suite(suite: str | Suite) -> Suite:
    """Return a suite: itself, or by a name of ``SUITES`` or ``package.module:NAME``.

    Raises:
      TypeError: It is neither a suite nor a name.
      ValueError: There is none of that name, or what has it is none.
    """
    if isinstance(suite, Suite):
        return suite
    if not isinstance(suite, str):
        raise TypeError(
            f"Need a Suite or the name of one, got {type(suite).__name__}. Entries become one by "
            "Suite((entry, ...))."
        )
    found = registry.find("suite", suite, SUITES)
    if not isinstance(found, Suite):
        raise ValueError(f"{suite} is no suite: it is a {type(found).__name__}, not a Suite.")
    return found


def list_compared(suite: str) -> dict[str, Suite]:
    """Return what studies set side by side: the two of the paper, and a suite as the strong one.

    Raises:
      ValueError: There is no such suite.
    """
    names = {"published": "published", "corrected": "corrected", "strong": suite}
    return {role: get_suite(name) for role, name in names.items()}
