"""Run attacks in order, each on the images that still stand, and keep the worst of every image."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bnn_adv.attacks import AttackSettings, Settings, batches, run_attack
from bnn_adv.attacks.objectives import get_objective
from bnn_adv.attacks.threat import Threat, with_radius
from bnn_adv.attacks.transfer import Transfer, make_surrogate
from bnn_adv.compute import parallel, programs
from bnn_adv.compute.checkpoint import NoCheckpoints
from bnn_adv.compute.types import HostClasses, HostFlags, HostImages, HostLogits, HostNumbers
from bnn_adv.evaluation.confirmation import close_margin, least_margin
from bnn_adv.evaluation.suites import Entry
from bnn_adv.evaluation.verification_predictions import compile_network, find_margin
from bnn_adv.evaluation.verification_predictions import predict as predict_exactly
from bnn_adv.posteriors.decision import is_fooled, predicted_class
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs

SuiteProgress = Callable[[str, int, int], None]
"""Called with (name of the attack, image-steps done, image-steps in all)."""

_UNMOVED = 0.1
"""Share of the gap up to which an attack may have been blind."""

NOT_RUN, WITHSTOOD, BROKEN = -1, 0, 1
"""What an attack did to an image."""


class Subject(NamedTuple):
    """What is attacked.

    posterior: S draws; the attacker knows them ("frozen").
    x: Clean images, [N, ...].
    y: Labels, [N].
    threat: Norm, radius (one, or one an image) and box.
    """

    posterior: Posterior
    x: np.ndarray
    y: np.ndarray
    threat: Threat


class RunContext(NamedTuple):
    """What an evaluation runs with.

    rng_key: Typed key; each attack derives its own from its name and restart.
    settings: Batch and chunk sizes, checkpoints.
    progress: Progress callback.
    prefix: Tells computations that share checkpoints apart.
    """

    rng_key: jax.Array
    settings: Settings = Settings()
    progress: SuiteProgress | None = None
    prefix: str = ""

    @property
    def keeper(self) -> NoCheckpoints:
        """Where progress is saved; nowhere where there are no checkpoints."""
        return self.settings.checkpoints or NoCheckpoints()

    def attack_settings(
        self, label: str, name: str, *, indices: np.ndarray | None = None
    ) -> AttackSettings:
        """Return how one attack is run.

        Args:
          label: What progress calls it.
          name: Tells it apart from others that share checkpoints.
          indices: Names of the images.
        """
        report = self.progress
        return AttackSettings.extend(
            self.settings,
            indices=indices,
            on_steps=None if report is None else lambda done, total: report(label, done, total),
            name=f"{self.prefix}{name}",
        )


class Cascade(NamedTuple):
    """What a list of attacks left of N images.

    worst: The worst input found for every image, [N, ...]: one that fools, or else the one that
      left the label least probable.
    log_probs: Log of the posterior predictive there, [N, C].
    standing: Whether the image withstood all attacks, [N]; False where the clean image is wrong.
    attack_of: Name of the attack that broke each image, [N] text; empty where none did.
    after: Share that stands after each attack of the first round, by name.
    outcomes: By attack and image what its first run did, [E, N]: ``NOT_RUN``, ``WITHSTOOD``,
      ``BROKEN``.
    tried: Images each attack was run on, over all restarts, [E].
    broke: Images it broke, over all restarts, [E].
    set_aside: Images that stood and that it was not run on, see ``is_within_reach``, likewise.
    seconds: Time it took, over all restarts, [E].
    """

    worst: np.ndarray
    log_probs: np.ndarray
    standing: np.ndarray
    attack_of: np.ndarray
    after: dict[str, float]
    outcomes: np.ndarray
    tried: np.ndarray
    broke: np.ndarray
    set_aside: np.ndarray
    seconds: np.ndarray


def predict(posterior: Posterior, x: HostImages, settings: Settings) -> HostLogits:
    """Return the log of the posterior predictive at images on the host, [N, C].

    The last batch is padded as those of attacks are: the images that stand differ in number after
    every attack, and each number would compile anew.
    """
    programs.note(posterior.apply_fn)
    count, size = len(x), settings.batch_size
    if count % size:
        full = count - count % size
        x = np.concatenate([x[:full], x[batches.pad(np.arange(full, count), size, 1)]])
    log_probs = predict_log_probs(
        posterior,
        parallel.replicate(x, settings.mesh),
        sample_chunk=settings.sample_chunk,
        batch_size=settings.batch_size,
    )
    found: np.ndarray = parallel.to_host(log_probs)[:count]
    return found


def is_broken(
    posterior: Posterior, x: HostImages, log_probs: HostLogits, y: HostClasses, settings: Settings
) -> HostFlags:
    """Return which images are of another class beyond rounding, [N].

    What is close in float32 is decided by the referee's prediction: an image that it would not
    confirm goes on to the next attack, and is not lost to it.

    Args:
      posterior: The draws that predict.
      x: Images, [N, ...].
      log_probs: Log of the posterior predictive there, [N, C].
      y: Labels, [N].
      settings: Batch size.
    """
    broken = np.array(is_fooled(log_probs, y))
    margin = find_margin(log_probs, y, np.arange(len(y)))
    close = np.flatnonzero(broken & (np.abs(margin) < close_margin(posterior, x)))
    if len(close):
        # Few shapes for however many there are: each compiles once.
        size = settings.batch_size
        images = x[batches.pad(close, -(-len(close) // size) * size, 1)]
        exact, largest = predict_exactly(compile_network(posterior), posterior, images, size)
        exact, largest = exact[: len(close)], largest[: len(close)]
        least = least_margin(posterior, images, largest)
        broken[close] = find_margin(exact, y[close], np.arange(len(close))) > least
    return broken


def run_entry(
    entry: Entry, restart: int, rows: np.ndarray, subject: Subject, context: RunContext
) -> np.ndarray:
    """Run one attack on the images ``rows`` and return its adversarial images.

    An image's result depends on the key, the entry's name, the restart and the image's index.
    """
    # Keyed by name, so that adding an attack to a suite does not change the others.
    key = jax.random.fold_in(context.rng_key, zlib.crc32(f"{entry.name}/{restart}".encode()))
    label = entry.name if restart == 0 else f"{entry.name} (restart {restart})"
    draw_key = jax.random.fold_in(key, zlib.crc32(b"surrogate"))
    posterior = subject.posterior
    attacked: batches.Attacked = posterior
    if entry.surrogate != "posterior":
        attacked = Transfer(make_surrogate(draw_key, posterior, entry.surrogate), posterior)
    epsilon = np.broadcast_to(np.asarray(subject.threat.epsilon, subject.x.dtype), len(subject.x))
    return run_attack(
        key,
        entry.attack,
        get_objective(entry.objective),
        attacked,
        subject.x[rows],
        subject.y[rows],
        threat=with_radius(subject.threat, epsilon[rows]),
        settings=context.attack_settings(label, f"{entry.name}/{restart}", indices=rows),
    )


def run_cascade(
    entries: Sequence[Entry],
    restarts: int,
    subject: Subject,
    clean: np.ndarray,
    context: RunContext,
    *,
    standing: np.ndarray | None = None,
) -> Cascade:
    """Run every attack on the images that stand, round after round.

    Args:
      entries: Attacks in order; those that do not know the norm are left out.
      restarts: Rounds.
      subject: What is attacked.
      clean: Log of the posterior predictive at the clean images, [N, C].
      context: Key, sizes, progress, checkpoints.
      standing: Images to attack, [N]; None: those that are classified correctly.
    """
    posterior, x, y, threat = subject
    worst, log_probs = np.array(x), np.array(clean)
    correct = predicted_class(clean) == y
    standing = correct if standing is None else correct & standing
    lead = np.stack([find_lead(clean, y)] * 2)
    attack_of = np.full(len(x), "", dtype="U64")
    outcomes = np.full((len(entries), len(x)), NOT_RUN, np.int8)
    tried, broke, set_aside, seconds = np.zeros((4, len(entries)))
    after: dict[str, float] = {}
    for restart in range(restarts):
        for number, entry in enumerate(entries):
            chosen = standing & is_within_reach(entry, *lead)
            rows = np.flatnonzero(chosen)
            set_aside[number] += (standing & ~chosen).sum()
            if len(rows) and knows(entry, threat):
                started = time.monotonic()
                images = run_entry(entry, restart, rows, subject, context)
                found = predict(posterior, images, context.settings)
                broken = is_broken(posterior, images, found, y[rows], context.settings)
                lead[1, rows] = np.fmin(lead[1, rows], find_lead(found, y[rows]))
                # Of the images that stand, the one that left the label least probable is kept;
                # where rounding alone calls it another class, it would not be seen to stand.
                own = np.arange(len(rows)), y[rows]
                stands = predicted_class(found) == y[rows]
                replace = broken | (stands & (found[own] < log_probs[rows][own]))
                worst[rows[replace]] = images[replace]
                log_probs[rows[replace]] = found[replace]
                attack_of[rows[broken]] = entry.name
                standing = standing & ~np.isin(np.arange(len(x)), rows[broken])
                if restart == 0:
                    outcomes[number, rows] = np.where(broken, BROKEN, WITHSTOOD)
                tried[number] += len(rows)
                broke[number] += broken.sum()
                seconds[number] += time.monotonic() - started
            if restart == 0:
                after[entry.name] = float(standing.mean())
    counts = tried.astype(int), broke.astype(int), set_aside.astype(int)
    return Cascade(worst, log_probs, standing, attack_of, after, outcomes, *counts, seconds)


def fill_outcomes(
    entries: Sequence[Entry],
    outcomes: np.ndarray,
    rows: np.ndarray,
    subject: Subject,
    context: RunContext,
) -> np.ndarray:
    """Run every attack also on those of the images ``rows`` that were broken before its turn.

    Args:
      entries: Attacks, E.
      outcomes: From ``run_cascade``, [E, N].
      rows: Images whose clean prediction is right.
      subject: What is attacked.
      context: As for ``run_cascade``: results are those that the cascade would have found.

    Returns:
      What every attack does to every one of the images, [E, len(rows)]; ``NOT_RUN`` for attacks
      that do not know the norm.
    """
    outcomes = np.array(outcomes)
    for number, entry in enumerate(entries):
        missing = rows[outcomes[number, rows] == NOT_RUN]
        if len(missing) and knows(entry, subject.threat):
            images = run_entry(
                entry, 0, missing, subject, context._replace(prefix=f"{context.prefix}probe/")
            )
            found = predict(subject.posterior, images, context.settings)
            broken = is_broken(
                subject.posterior, images, found, subject.y[missing], context.settings
            )
            outcomes[number, missing] = np.where(broken, BROKEN, WITHSTOOD)
    return outcomes[:, rows]


def find_lead(log_probs: HostLogits, y: HostClasses) -> HostNumbers:
    """Return by how much the label leads over the next class, in nats, [N]."""
    return -find_margin(log_probs, y, np.arange(len(y)))


def is_within_reach(entry: Entry, before: HostNumbers, now: HostNumbers) -> HostFlags:
    """Return which images an entry is run on, [N].

    Those of which the attacks before have closed the share ``1 - now / before >= entry.reach`` of
    the gap between the label and the next class; those where little is left of it; and those of
    which next to nothing was closed: there a gradient may be masked, and other attacks see more.

    Args:
      entry: The attack.
      before: Lead of the label in the log of the prediction at the clean image, in nats, [N].
      now: The smallest lead at what attacks have found, [N].
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        closed = 1 - now / before
    # What is not a number is attacked.
    is_far = (closed < entry.reach) & (closed > _UNMOVED) & (now > entry.near)
    return np.asarray(~is_far)


def knows(entry: Entry, threat: Any) -> bool:
    """Return whether an entry's attack is defined for the threat model's norm."""
    return entry.attack.norms is None or threat.norm in entry.attack.norms
