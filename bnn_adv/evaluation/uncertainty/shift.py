"""Can a posterior tell what it was not made for, also where somebody helps it not to?"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple
from zlib import crc32

import jax
import numpy as np

from bnn_adv.attacks import Attack, AttackSettings, Settings, apgd, pgd, run_attack
from bnn_adv.attacks.base import by_value
from bnn_adv.attacks.objectives import OBJECTIVES, Objective
from bnn_adv.attacks.subject import describe
from bnn_adv.attacks.threat import Threat
from bnn_adv.attacks.validation import check_settings, open_problem
from bnn_adv.compute import arguments, parallel
from bnn_adv.compute.checkpoint import NoCheckpoints
from bnn_adv.compute.identity import identify
from bnn_adv.compute.progress import progress as show_progress
from bnn_adv.evaluation.confirmation import confirm
from bnn_adv.evaluation.uncertainty.evasion import DEFAULT_WEIGHT, certain_objective
from bnn_adv.evaluation.uncertainty.measures import (
    SCORES,
    Score,
    log_doubt,
    log_entropy,
    measure,
)
from bnn_adv.evaluation.uncertainty.score_objectives import (
    SCORE_OBJECTIVES,
    no_gradient,
    score_objective,
)
from bnn_adv.evaluation.uncertainty.shift_report import SCHEMA_VERSION, ShiftReport, summarise
from bnn_adv.posteriors.decision import NO_CLASS, predicted_class
from bnn_adv.posteriors.posterior import Posterior, hash_draws


@dataclasses.dataclass(frozen=True)
class ShiftSettings(Settings):
    """How semantic shift is evaluated, beside batch and chunk sizes.

    Args:
      batch_size: Inputs at once.
      sample_chunk: Draws at once, 1..S; None chooses from the size of the network.
      mesh: Devices to split the inputs over.
      checkpoints: Where to save progress and to continue from it.
      num_steps: Of every attack, at least 1.
      weight: Of the attack on labels that stays certain, see ``certain_objective``.
    """

    num_steps: int = 100
    weight: float = DEFAULT_WEIGHT


class _Seen(NamedTuple):
    """N inputs, their scores by name, and their predicted classes."""

    images: np.ndarray
    scores: dict[str, np.ndarray]
    classes: np.ndarray


class _Lab(NamedTuple):
    """What all attacks share."""

    posterior: Posterior
    threat: Threat
    how: ShiftSettings
    rng_key: jax.Array
    report: Callable[[str, int, int], None]

    def look(self, images: np.ndarray) -> _Seen:
        """Return what the posterior says of inputs."""
        found = measure(
            self.posterior,
            parallel.replicate(images, self.how.mesh),
            sample_chunk=self.how.sample_chunk,
            batch_size=self.how.batch_size,
        )
        logs = (log_entropy(found.log_probs), log_doubt(found.log_probs))
        # In float64 neither underflows: ties are ties.
        entropy, doubt = (np.exp(np.asarray(parallel.to_host(v), np.float64)) for v in logs)
        log_probs = parallel.to_host(found.log_probs)
        size = log_probs.shape[-1]
        scores = {"entropy": entropy, "max_probability": doubt}
        largest = {"entropy": np.log(size), "max_probability": 1 - 1 / size}
        if self.posterior.num_samples > 1:
            information = parallel.to_host(found.mutual_information)
            scores["mutual_information"] = np.asarray(information, np.float64)
            largest["mutual_information"] = np.log(size)
        # An input without a prediction is as uncertain as one can be.
        scores = {
            name: np.where(np.isnan(scores[name]), largest[name], scores[name])
            for name in SCORES
            if name in scores
        }
        return _Seen(images, scores, predicted_class(log_probs))

    def attack(self, label: str, attack: Attack, objective: Objective, clean: Any) -> _Seen:
        """Return inputs that an attack has made of clean ones with their labels."""
        images = run_attack(
            # By name: no position in a list decides a key.
            jax.random.fold_in(self.rng_key, crc32(f"{label}/{objective.name}".encode())),
            attack,
            objective,
            self.posterior,
            *clean,
            threat=self.threat,
            settings=AttackSettings(
                self.how.batch_size,
                self.how.sample_chunk,
                self.how.mesh,
                self.how.checkpoints,
                name=f"shift/{label}/{objective.name}",
                on_steps=lambda done, total: self.report(f"{label} {objective.name}", done, total),
            ),
        )
        return self.look(images)


def evaluate_shift(
    posterior: Posterior,
    x: Any,
    y: Any,
    x_out: Any,
    *,
    threat: Threat,
    rng_key: jax.Array,
    settings: Settings = ShiftSettings(),
    progress: Literal["auto"] | None = "auto",
) -> ShiftReport:
    """Measure how uncertainty tells inputs of another kind, clean and under attack.

    The semantic-shift task of Feng et al. 2024 (arXiv 2404.19640, section 5), by predictive
    entropy, mutual information and largest probability. The attacker knows the draws and the score:
    it makes inputs of the other kind look certain, and those in distribution uncertain. For every
    score and input the worst counts of: the clean input; Auto-PGD on every objective of
    ``score_objectives``. Attacks on labels, PGD on ``mean_logit_margin`` and on
    ``certain_objective`` of every score, join these for selective accuracy, where the worst is:
    one that fools, of those the most certain; else the least certain. No other choice among the
    same inputs leaves a lower accuracy at any number of answers.

    What is left under attack is an upper bound, as the result of any attack.

    Args:
      posterior: S draws, known to the attacker.
      x: Clean inputs in distribution, in the threat model's box, [N, ...].
      y: Their labels, [N].
      x_out: Inputs of another kind in the box, [M, ...]; they have no right answer.
      threat: Norm, radius (one for all inputs) and box.
      rng_key: Typed key; everything follows from it.
      settings: ``ShiftSettings``, or batch and chunk sizes alone.
      progress: ``"auto"`` shows it on standard error; None is silent.

    Raises:
      TypeError: ``posterior`` is none, or ``rng_key`` no typed key.
      ValueError: Posterior, inputs or labels do not fit, see ``validation.open_problem``; the two
        kinds differ in shape; a radius for every input; a setting out of range.
      OtherWorkError: The checkpoints are of another computation.
      VerificationError: An input leaves ball or box, or a label that is said to be wrong is right.
    """
    started = time.monotonic()
    how = ShiftSettings.extend(settings)
    arguments.check_key(rng_key)
    check_settings(how)
    arguments.check_count("num_steps", how.num_steps, 1)
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"Need a bnn_adv.Posterior, got {type(posterior).__name__}. Of a Sampler, "
            "sampler.sample(rng_key, num_samples) makes one."
        )
    if np.ndim(threat.epsilon):
        raise ValueError("Need one radius for all inputs of both kinds, got one an input.")
    if np.shape(x)[1:] != np.shape(x_out)[1:]:
        raise ValueError(
            f"Inputs of the other kind have shape {np.shape(x_out)[1:]}, those in distribution "
            f"{np.shape(x)[1:]}: the network takes one of them."
        )
    x, y, threat, _ = open_problem(posterior, x, y, threat)
    x_out = open_problem(posterior, x_out, np.zeros(len(x_out), np.int32), threat).x

    def identity() -> dict[str, str]:
        return identify(
            "semantic shift",
            key=rng_key,
            **describe(posterior),
            inputs=x,
            labels=y,
            others=x_out,
            threat=threat,
            num_steps=how.num_steps,
            weight=how.weight,
            batch_size=how.batch_size,
            sample_chunk=how.sample_chunk,
            mesh=how.mesh,
        )

    # Of several processes one is enough.
    is_shown = progress is not None and parallel.is_writer()
    with show_progress("shift", "image-steps") if is_shown else nullcontext() as report:

        def tell(label: str, done: int, total: int) -> None:
            if report is not None:
                report(done, total, label=label)

        with (how.checkpoints or NoCheckpoints()).session(identity):
            found = _attack_all(_Lab(posterior, threat, how, rng_key, tell), x, y, x_out)
    took = time.monotonic() - started if how.checkpoints is None else how.checkpoints.seconds
    problem = {
        "schema_version": SCHEMA_VERSION,
        "norm": threat.norm,
        "epsilon": float(threat.epsilon),
        "lower": threat.lower,
        "upper": threat.upper,
        "num_samples": posterior.num_samples,
        "decision_rule": posterior.decision_rule,
        "draws_hash": hash_draws(posterior),
        "seconds": round(took, 1),
    }
    return summarise({**{k: np.asarray(v) for k, v in problem.items()}, **found})


def _attack_all(lab: _Lab, x: np.ndarray, y: np.ndarray, x_out: np.ndarray) -> dict[str, Any]:
    """Return all arrays of the report but those of the problem."""
    inside, outside = lab.look(x), lab.look(x_out)
    rule = lab.posterior.decision_rule
    names: list[Score] = [name for name in SCORES if name in inside.scores]
    objectives = [n for n in SCORE_OBJECTIVES if n in names or n not in SCORES]
    walk = by_value(apgd.build(num_steps=lab.how.num_steps))
    pools: dict[str, list[_Seen]] = {}
    found: dict[str, Any] = {"x": x, "y": y, "x_out": x_out}
    for kind, clean, sign in (("in", inside, 1), ("out", outside, -1)):
        # Where there is no prediction any class will do.
        labelled = clean.images, np.maximum(clean.classes, 0)
        pools[kind] = [clean]
        for name in objectives:
            objective = score_objective(name, sign, rule)
            pools[kind].append(lab.attack(kind, walk, objective, labelled))
            found[f"zero/{kind}/{name}"] = no_gradient(
                objective,
                lab.posterior,
                *labelled,
                batch_size=lab.how.batch_size,
                sample_chunk=lab.how.sample_chunk,
            )
        for name in names:
            found[f"clean/{kind}/{name}"] = clean.scores[name]
            images, scores = _extreme(pools[kind], name, sign)
            found[f"images/{kind}/{name}"], found[f"attacked/{kind}/{name}"] = images, scores
    labels = pgd.build(num_steps=lab.how.num_steps)
    fooling = [OBJECTIVES["mean_logit_margin"]]
    fooling += [certain_objective(name, lab.how.weight, rule) for name in names]
    pool = pools["in"] + [lab.attack("label", labels, each, (x, y)) for each in fooling]
    found["correct"] = inside.classes == y
    for name in names:
        images, scores, classes = _worst(pool, name, y)
        found[f"images/answer/{name}"], found[f"attacked/answer/{name}"] = images, scores
        found[f"correct/{name}"] = classes == y
        found[f"claims/{name}"] = (classes != y) & (classes != NO_CLASS)
    return _referee(lab, found, names, outside)


def _referee(
    lab: _Lab, found: dict[str, Any], names: Sequence[str], outside: _Seen
) -> dict[str, Any]:
    """Confirm that all images lie in ball and box, and take back claims that are not upheld."""

    def ask(x: np.ndarray, y: np.ndarray, is_correct: np.ndarray, parts: Any) -> np.ndarray:
        images, claims = map(np.concatenate, zip(*parts, strict=True))
        times = len(images) // len(x)
        verdict = confirm(
            lab.posterior,
            np.concatenate([x] * times),
            np.tile(y, times),
            images,
            threat=lab.threat,
            clean_correct=np.tile(is_correct, times),
            misclassified=claims,
        )
        return np.asarray(verdict.claimed).reshape(times, len(x))

    claims = {name: found.pop(f"claims/{name}") for name in names}
    nothing = np.zeros(len(found["x"]), bool), np.zeros(len(found["x_out"]), bool)
    inside = [(found[f"images/answer/{name}"], claims[name]) for name in names]
    inside += [(found[f"images/in/{name}"], nothing[0]) for name in names]
    upheld = ask(found["x"], found["y"], found["correct"], inside)
    for row, name in enumerate(names):
        found[f"correct/{name}"] |= claims[name] & ~upheld[row]
    # Nothing is claimed of their classes, which are those that they have.
    classes = np.maximum(outside.classes, 0)
    others = [(found[f"images/out/{name}"], nothing[1]) for name in names]
    ask(outside.images, classes, outside.classes == classes, others)
    return found


def _extreme(pool: Sequence[_Seen], name: str, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs of the largest (sign 1) or smallest score; the first of equals."""
    values = np.stack([seen.scores[name] for seen in pool])
    taken = (sign * values).argmax(axis=0)
    return _take([seen.images for seen in pool], taken), _take(values, taken)


def _worst(
    pool: Sequence[_Seen], name: str, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for every input one that fools, of those the most certain; else the least certain."""
    values = np.stack([seen.scores[name] for seen in pool])
    classes = np.stack([seen.classes for seen in pool])
    fools = classes != y
    rank = np.where(fools.any(axis=0), np.where(fools, -values, -np.inf), values)
    taken = rank.argmax(axis=0)
    images = _take([seen.images for seen in pool], taken)
    return images, _take(values, taken), _take(classes, taken)


def _take(candidates: Any, taken: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.stack(candidates)[taken, np.arange(len(taken))]
    return found
