"""Attacks that should be weaker and are not: one step, no gradient, another model's gradient.

Athalye, Carlini, Wagner 2018, arXiv 1802.00420, section 3.1, names these behaviours; Carlini et
al. 2019, arXiv 1902.06705, section 3, lists them.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from bnn_adv.attacks import ATTACKS, Attack, AttackSettings, Settings, pgd, run_attack
from bnn_adv.attacks.driver import keep_finite
from bnn_adv.attacks.threat import Threat, with_radius
from bnn_adv.attacks.trace import Trace, trace_attack
from bnn_adv.attacks.transfer import Surrogate, make_surrogate
from bnn_adv.compute import effort, parallel
from bnn_adv.compute.leaves import has_key
from bnn_adv.compute.types import HostFlags, HostImages, HostLogits, HostNumbers, RngKey
from bnn_adv.evaluation.masking.base import Case, Check, Evidence, Probe, Strength, allowance
from bnn_adv.posteriors.decision import is_fooled, predicted_class
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs

_NUM_DRAWS_ATTACKED = 2


def predict(case: Case, x: HostImages) -> HostLogits:
    """Return the log of the posterior predictive at images on the host, [N, C]."""
    log_probs: np.ndarray = parallel.to_host(
        predict_log_probs(
            case.posterior, x, sample_chunk=case.sample_chunk, batch_size=case.batch_size
        )
    )
    return log_probs


def walk(
    rng_key: RngKey,
    attack: Attack,
    objective: str,
    case: Case,
    *,
    posterior: Posterior | None = None,
    radius: HostNumbers | None = None,
) -> Trace:
    """Trace an attack on all probe images.

    Args:
      rng_key: Typed key.
      attack: The attack.
      objective: A name in ``case.objectives``.
      case: What is probed.
      posterior: What is attacked in its place; ``fooled`` is then that model's.
      radius: Another radius for every image, [N].
    """
    attacked = case.posterior if posterior is None else posterior
    chunk = case.sample_chunk
    if chunk is not None:
        chunk = min(chunk, attacked.num_samples // attacked.shards)
    return trace_attack(
        rng_key,
        attack,
        case.objectives[objective],
        attacked,
        case.x,
        case.y,
        threat=case.threat if radius is None else with_radius(case.threat, radius),
        settings=Settings(case.batch_size, chunk),
    )


def choose_black_box(threat: Threat, num_queries: int) -> Attack | None:
    """Return the strongest attack that never asks for a gradient and knows the norm, if any."""
    for name in ("square", "corner", "noise"):
        if name in ATTACKS:
            attack: Attack = ATTACKS[name].build(num_steps=num_queries)
            if attack.norms is None or threat.norm in attack.norms:
                return attack
    return None


def search(
    rng_key: RngKey,
    attack: Attack | None,
    objective: str,
    case: Case,
    rows: Int[np.ndarray, " K"],
    *,
    radius: HostNumbers | None = None,
) -> Float[np.ndarray, "K C"]:
    """Run a black box on the images ``rows``, and return their log-probabilities, [K, C].

    Args:
      rng_key: Typed key.
      attack: From ``choose_black_box``; None leaves the images as they are.
      objective: A name in ``case.objectives``.
      case: What is probed.
      rows: Places of the images, [K].
      radius: Another radius for every image, [N].
    """
    images = np.array(case.x)
    if attack is not None and len(rows):
        radius = np.asarray(case.threat.epsilon) if radius is None else radius
        images[rows] = run_attack(
            rng_key,
            attack,
            case.objectives[objective],
            case.posterior,
            case.x[rows],
            case.y[rows],
            threat=with_radius(case.threat, radius[rows]),
            settings=AttackSettings(case.batch_size, case.sample_chunk, indices=rows),
        )
    # All images are predicted, so that no further shape compiles.
    found: np.ndarray = predict(case, images)[rows]
    return found


def is_fooled_at(case: Case, x: HostImages) -> HostFlags:
    """Return which probe images are fooled at given places, [N]; what is not finite stays."""
    found: HostFlags = is_fooled(predict(case, keep_finite(x, case.x)), case.y)
    return found


def run_iterated(
    rng_key: RngKey, case: Case, used: tuple[str, ...], num_steps: int
) -> dict[str, Trace]:
    """Return the walks of PGD by objective."""
    iterated = pgd.build(num_steps=num_steps)
    return {name: walk(rng_key, iterated, name, case) for name in used}


def measure_strength(
    rng_key: RngKey,
    case: Case,
    probe: Probe,
    single: dict[str, HostFlags],
    iterated: dict[str, Trace],
    *,
    main_objective: str,
    num_steps: int,
    num_queries: int,
) -> Strength:
    """Return what FGSM, PGD, a black box and attacks on stand-ins do to the probe images.

    Args:
      rng_key: Typed key.
      case: What is probed.
      probe: What is known of the images.
      single: Whether FGSM fools, [N], by objective.
      iterated: From ``run_iterated``.
      main_objective: What the black box and the attacks on stand-ins climb.
      num_steps: Steps of PGD.
      num_queries: Queries of the black box, an image.
    """
    fooled_by = single, {name: trace.fooled for name, trace in iterated.items()}
    left = [
        {name: int((probe.correct & ~fooled).sum()) for name, fooled in each.items()}
        for each in fooled_by
    ]
    standing = np.flatnonzero(probe.standing)
    attack = choose_black_box(case.threat, num_queries)
    found = search(_key(rng_key, "black box"), attack, main_objective, case, standing)
    broke = int((predicted_class(found) != case.y[standing]).sum())
    by_name, any_broke = None, np.zeros(len(case.x), bool)
    if case.posterior.num_samples > 1:
        by_name = {}
        transfer = functools.partial(_transfer, rng_key, case, main_objective, num_steps)
        for name in (*(f"draw_{i}" for i in range(_NUM_DRAWS_ATTACKED)), "mean_weights"):
            fooled = transfer(name) & probe.standing
            by_name[name] = int(fooled.sum())
            any_broke |= fooled
    return Strength(
        left[0],
        left[1],
        num_steps,
        None if attack is None else attack.name,
        num_queries,
        broke,
        by_name,
        int(any_broke.sum()),
    )


def check_weak_iteration(evidence: Evidence) -> Check:
    """Judge whether one step does better than many (arXiv 1802.00420, section 3.1)."""
    strength, count = evidence.strength, evidence.probe.num_images
    excess = {name: strength.pgd[name] - strength.fgsm[name] for name in strength.pgd}
    worst = max(excess, key=lambda name: excess[name])
    threshold = allowance(count, 2, 0.02)
    raised = excess[worst] > threshold
    sentence = (
        f"On {worst}, PGD of {strength.num_steps} steps leaves {strength.pgd[worst]} of {count} "
        f"images, FGSM {strength.fgsm[worst]} (PGD may leave {threshold:.0f} more)"
    )
    if raised:
        sentence += ": the iterated attack is stuck; change its step size or objective"
    found = {"fgsm": strength.fgsm, "pgd": strength.pgd, "images": count}
    return Check("weak_iteration", raised, float(excess[worst]), threshold, found, sentence + ".")


def check_black_box_stronger(evidence: Evidence) -> Check:
    """Judge whether a black box breaks what gradients did not (arXiv 1802.00420, section 3.1)."""
    strength, probe = evidence.strength, evidence.probe
    name, threshold = "black_box_stronger", allowance(probe.num_images, 1, 0.02)
    if strength.black_box is None:
        sentence = "Not measured: no black box is defined for this norm."
        return Check(name, False, None, threshold, {}, sentence)
    standing, broke = int(probe.standing.sum()), strength.black_box_broke
    raised = broke > threshold
    sentence = (
        f"{strength.black_box.capitalize()} with {strength.num_queries} queries breaks {broke} of "
        f"the {standing} images that the suite left standing ({threshold:.0f} may be chance)"
    )
    if raised:
        sentence += ": they stand because gradients were masked; the suite's result does not hold"
    found = {"attack": strength.black_box, "broke": broke, "standing": standing}
    return Check(name, raised, float(broke), threshold, found, sentence + ".")


def check_transfer_stronger(evidence: Evidence) -> Check:
    """Judge whether attacks on another model break more (arXiv 1902.06705, section 3)."""
    strength, probe = evidence.strength, evidence.probe
    name, threshold = "transfer_stronger", allowance(probe.num_images, 1, 0.02)
    if strength.transfer_broke is None:
        sentence = "Not measured: a single draw is its own stand-in."
        return Check(name, False, None, threshold, {}, sentence)
    standing, broke = int(probe.standing.sum()), strength.transfer_any
    raised = broke > threshold
    sentence = (
        f"PGD of {strength.num_steps} steps on single draws and on the mean weights breaks {broke} "
        f"of the {standing} images that the suite left standing ({threshold:.0f} may be chance)"
    )
    if raised:
        sentence += ": averaging over draws masks gradients; add transfer attacks to the suite"
    found = {"broke": strength.transfer_broke, "any": broke, "standing": standing}
    return Check(name, raised, float(broke), threshold, found, sentence + ".")


def _transfer(
    rng_key: jax.Array, case: Case, objective: str, num_steps: int, name: str
) -> np.ndarray:
    """Return which images the posterior falls for when a stand-in was attacked, [N]."""
    key = _key(rng_key, name)
    kind: Surrogate = "mean_weights" if name == "mean_weights" else "one_draw"
    stand_in = make_surrogate(_key(key, "surrogate"), case.posterior, kind)
    if effort.is_low():
        stand_in = _repeat(stand_in, case.posterior.num_samples)
    found = walk(key, pgd.build(num_steps=num_steps), objective, case, posterior=stand_in)
    fooled: np.ndarray = predicted_class(predict(case, found.x_adv)) != case.y
    return fooled


def _repeat(posterior: Posterior, num_samples: int) -> Posterior:
    """Return S copies of one draw: the same model, by programs that are there."""

    def copy(leaf: Any) -> Any:
        return jax.device_put(np.repeat(np.asarray(leaf), num_samples, axis=0))

    if has_key(posterior.samples):
        return posterior
    return dataclasses.replace(posterior, samples=jax.tree.map(copy, posterior.samples))


def _key(rng_key: jax.Array, name: str) -> jax.Array:
    return jax.random.fold_in(rng_key, zlib.crc32(name.encode()))
