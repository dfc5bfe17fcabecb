"""Attack a posterior by a protocol and say what is left, per image and in numbers."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from bnn_adv import masking, metrics, parallel
from bnn_adv.attacks import run_attack
from bnn_adv.checkpoint import Checkpoints, NoCheckpoints
from bnn_adv.objectives import get_objective
from bnn_adv.posterior import Posterior, predict_log_probs
from bnn_adv.protocols import Entry, Protocol
from bnn_adv.threat import Threat

SuiteProgress = Callable[[str, int, int], None]
"""Called with (name of the attack, image-steps done, image-steps in all)."""


class Settings(NamedTuple):
    """Hold how an evaluation is computed; none of it changes what is computed.

    batch_size: Images at once.
    sample_chunk: Draws at once, 1..S; None chooses from the size of the network.
    mesh: Devices to split the images over; ``shard_posterior`` splits the draws.
    """

    batch_size: int = 128
    sample_chunk: int | None = None
    mesh: Mesh | None = None


class ProtocolResult(NamedTuple):
    """Hold what one protocol found on N images.

    adversarial: Adversarial images by name of the attack, each [N, ...]; for a worst-case
      protocol the one key ``"worst"``.
    accuracies: Accuracy by name, in [0, 1]. Worst-case protocols: the share that still stands
      after the attack, in the order in which they ran, then ``"worst"``.
    softmax_robustness: Of the last name in ``adversarial``, in [0, 1].
    zero_gradient_share: Share of images at which every objective of the protocol has an exactly
      zero gradient at the clean input.
    attack_of: Worst-case protocols: name of the attack that broke each image, [N] text; empty
      where the clean image is misclassified or the image stands.
    """

    adversarial: dict[str, np.ndarray]
    accuracies: dict[str, float]
    softmax_robustness: float
    zero_gradient_share: float
    attack_of: np.ndarray | None

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers with 95 % Wilson intervals, ready for JSON."""
        count = len(next(iter(self.adversarial.values())))
        return {
            **self.accuracies,
            "softmax_robustness": self.softmax_robustness,
            "zero_gradient_share": self.zero_gradient_share,
            "intervals": intervals(self.accuracies, count),
        }


def run_protocol(
    rng_key: jax.Array,
    protocol: Protocol,
    posterior: Posterior,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    settings: Settings = Settings(),
    progress: SuiteProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> ProtocolResult:
    """Attack every image by every attack of a protocol.

    The attacker knows the very draws that predict ("frozen").

    Args:
      rng_key: Typed key; each attack derives its own from its name and restart.
      protocol: From ``PROTOCOLS``.
      posterior: S draws.
      x: Clean images, [N, ...].
      y: Labels, [N].
      threat: Norm, radius and box.
      settings: Batch and chunk sizes.
      progress: Progress callback.
      checkpoints: Where to save progress and to continue from it.

    Raises:
      ValueError: Images outside the box, a negative epsilon, a bad size, or checkpoints of
        something else.
    """
    x, y = np.asarray(x), np.asarray(y, np.int32)
    clean = predict(posterior, x, settings)
    attack = functools.partial(
        _attack, rng_key, protocol, posterior, x, y, threat, settings, progress, checkpoints
    )
    run = _run_worst_case if protocol.worst_case else _run_each
    keeper = checkpoints or NoCheckpoints()
    with keeper.session(_identify(rng_key, protocol, posterior, x, threat, settings)):
        adversarial, accuracies, attack_of = run(protocol, attack, posterior, x, y, clean, settings)
    last = predict(posterior, list(adversarial.values())[-1], settings)
    metric = (
        metrics.published_softmax_robustness
        if protocol.published_metric
        else metrics.softmax_robustness
    )
    blind = np.ones(len(x), bool)
    for name in protocol.objectives:
        blind &= masking.zero_gradients(
            get_objective(name),
            posterior,
            x,
            y,
            batch_size=settings.batch_size,
            sample_chunk=settings.sample_chunk,
        )
    return ProtocolResult(
        adversarial, accuracies, metric(clean, last), float(blind.mean()), attack_of
    )


def intervals(accuracies: dict[str, float], count: int) -> dict[str, list[float]]:
    """Return the 95 % Wilson interval of every accuracy over ``count`` images."""
    return {name: list(metrics.wilson_interval(share, count)) for name, share in accuracies.items()}


def _run_each(
    protocol: Protocol,
    attack: Callable[[Entry, int, np.ndarray], np.ndarray],
    posterior: Posterior,
    x: np.ndarray,
    y: np.ndarray,
    clean: np.ndarray,
    settings: Settings,
) -> tuple[dict[str, np.ndarray], dict[str, float], None]:
    adversarial, accuracies = {}, {}
    for entry in protocol.entries:
        images = attack(entry, 0, np.arange(len(x)))
        adversarial[entry.name] = images
        accuracies[entry.name] = metrics.accuracy(predict(posterior, images, settings), y)
    return adversarial, accuracies, None


def _run_worst_case(
    protocol: Protocol,
    attack: Callable[[Entry, int, np.ndarray], np.ndarray],
    posterior: Posterior,
    x: np.ndarray,
    y: np.ndarray,
    clean: np.ndarray,
    settings: Settings,
) -> tuple[dict[str, np.ndarray], dict[str, float], np.ndarray]:
    worst, log_probs = np.array(x), np.array(clean)
    attack_of = np.full(len(x), "", dtype="U64")
    standing = np.argmax(clean, axis=-1) == y
    after: dict[str, float] = {}
    for restart in range(protocol.restarts):
        for entry in protocol.entries:
            rows = np.flatnonzero(standing)
            if len(rows):
                images = attack(entry, restart, rows)
                found = predict(posterior, images, settings)
                broken = np.argmax(found, axis=-1) != y[rows]
                # Of the images that stand, the one that left the label least probable is kept.
                own = np.arange(len(rows)), y[rows]
                replace = broken | (found[own] < log_probs[rows][own])
                worst[rows[replace]] = images[replace]
                log_probs[rows[replace]] = found[replace]
                attack_of[rows[broken]] = entry.name
                standing[rows[broken]] = False
            if restart == 0:
                after[entry.name] = float(standing.mean())
    return {"worst": worst}, {**after, "worst": float(standing.mean())}, attack_of


def _attack(
    rng_key: jax.Array,
    protocol: Protocol,
    posterior: Posterior,
    x: np.ndarray,
    y: np.ndarray,
    threat: Threat,
    settings: Settings,
    progress: SuiteProgress | None,
    checkpoints: Checkpoints | None,
    entry: Entry,
    restart: int,
    rows: np.ndarray,
) -> np.ndarray:
    # Keyed by name, so that adding an attack to a protocol does not change the others.
    key = jax.random.fold_in(rng_key, zlib.crc32(f"{entry.name}/{restart}".encode()))
    label = entry.name if restart == 0 else f"{entry.name} (restart {restart})"
    return run_attack(
        key,
        entry.attack,
        get_objective(entry.objective),
        posterior,
        x[rows],
        y[rows],
        threat=threat,
        indices=rows,
        on_steps=None if progress is None else lambda done, total: progress(label, done, total),
        checkpoints=checkpoints,
        name=f"{protocol.name}/{entry.name}/{restart}",
        **settings._asdict(),
    )


def _identify(
    rng_key: jax.Array,
    protocol: Protocol,
    posterior: Posterior,
    x: np.ndarray,
    threat: Threat,
    settings: Settings,
) -> str:
    """Return what a protocol computes, as text: a checkpoint of anything else is refused."""
    key = np.asarray(jax.random.key_data(rng_key)).tolist()
    return (
        f"protocol {protocol.name}, {threat}, key {key}, {posterior.num_samples} draws, "
        f"{len(x)} images {zlib.crc32(x.tobytes())}, batch_size {settings.batch_size}"
    )


def predict(posterior: Posterior, x: np.ndarray, settings: Settings) -> np.ndarray:
    """Return the log of the posterior predictive at images on the host, [N, C]."""
    log_probs = predict_log_probs(
        posterior,
        parallel.replicate(x, settings.mesh),
        sample_chunk=settings.sample_chunk,
        batch_size=settings.batch_size,
    )
    return parallel.to_host(log_probs)
