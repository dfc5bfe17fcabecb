"""Run an attack over many images: batches of few fixed shapes, jitted steps, a host loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from zlib import crc32

import jax
import numpy as np

from bnn_adv.attacks import batches, inputs, subject
from bnn_adv.attacks.base import Attack, Settings
from bnn_adv.attacks.batches import Attacked, Batch
from bnn_adv.attacks.objectives import Objective
from bnn_adv.attacks.threat import Threat, with_radius
from bnn_adv.attacks.validation import check_classes
from bnn_adv.compute import arguments, parallel, programs
from bnn_adv.compute.checkpoint import NoCheckpoints
from bnn_adv.compute.checkpoint_store import Saved
from bnn_adv.compute.identity import OtherWorkError, identify
from bnn_adv.compute.pacing import Pacer
from bnn_adv.posteriors.sampler import FreshDraws

StepCallback = Callable[[int, int], None]
"""Called with (image-steps done, image-steps in all)."""


@dataclasses.dataclass(frozen=True)
class AttackSettings(Settings):
    """How an attack is run.

    Args:
      batch_size: Images at once.
      sample_chunk: Draws at once, 1..S; None chooses from the size of the network.
      mesh: Devices to split the images over (its axis ``data``); the draws are split over them by
        ``shard_posterior``, the new ones of ``FreshDraws`` are made on every device.
      checkpoints: Where to save progress and to continue from it.
      indices: Distinct integers from 0 on that name the images, [N]; None counts from zero.
      on_steps: Progress callback.
      name: Tells attacks that share checkpoints apart.
    """

    indices: Any = None
    on_steps: StepCallback | None = None
    name: str = "attack"


DRAWS = crc32(b"draws")
"""Folded into the key, for the new draws of a fresh predictor."""

_STEPS_BETWEEN_LOOKS = 10
"""Steps after which ``stop_on_success`` is looked at, however the steps are cut into calls."""


def run_attack(
    rng_key: jax.Array,
    attack: Attack,
    objective: Objective,
    posterior: Attacked,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    settings: Settings = AttackSettings(),
) -> np.ndarray:
    """Attack every image and return the adversarial images.

    An image's result depends on the key and the image's index alone, not on its batch.

    Args:
      rng_key: Typed key; image i uses ``fold_in(rng_key, i)``, or of ``settings.indices``.
      attack: From ``fgsm.build()``, ``pgd.build(...)``.
      objective: What to maximise, see ``get_objective``.
      posterior: The draws that the attacker knows; or ``Transfer``, to follow another model's
        gradients; or ``FreshDraws``, for a predictor that draws anew: each step's gradient is then
        that of new draws, the same for all images.
      x: Clean images in the threat model's box, [N, ...].
      y: Labels, integers [N].
      threat: Norm, radius (one, or one an image, [N]) and box.
      settings: Batch and chunk sizes; ``AttackSettings`` for more.

    Returns:
      Adversarial images, float32 [N, ...]; an image that stopped being finite on its way is the
      clean one.

    Raises:
      TypeError: ``rng_key`` is no typed key.
      ValueError: A norm that the attack does not know; images, labels, radii or indices that
        ``inputs`` refuses; a bad size; checkpoints of another attack.
    """
    arguments.check_key(rng_key)
    how = AttackSettings.extend(settings)
    batch_size, mesh, name, on_steps = how.batch_size, how.mesh, how.name, how.on_steps
    arguments.check_count("batch_size", batch_size, 1)
    check_norm(attack, threat)
    x, y, threat = inputs.convert(x, y, threat)
    indices = arguments.as_indices(how.indices, len(x))
    judge = batches.judge_of(posterior)
    programs.note(judge.apply_fn)
    check_classes(judge, x, y)
    parts = 1 if mesh is None else mesh.shape["data"]
    if batch_size % parts:
        raise ValueError(
            f"batch_size={batch_size} cannot be split evenly over data:{parts} of the mesh. "
            f"Give a multiple of {parts}."
        )
    chunk = batches.choose_chunk(posterior, how.sample_chunk, x[:batch_size])
    radii = np.broadcast_to(np.asarray(threat.epsilon, x.dtype), (len(x),))
    result = np.array(x)
    keeper = how.checkpoints or NoCheckpoints()
    attacked = posterior

    def identity() -> dict[str, str]:
        return identify(
            f"attack {name}",
            key=rng_key,
            attack=attack,
            objective=objective,
            **subject.describe(attacked),
            inputs=x,
            labels=y,
            indices=indices,
            threat=threat,
            batch_size=batch_size,
            sample_chunk=chunk,
            mesh=mesh,
        )

    if isinstance(posterior, FreshDraws):
        sampler = parallel.replicate(posterior.sampler, mesh)
        posterior = dataclasses.replace(posterior, sampler=sampler)
    draws_key = jax.random.fold_in(rng_key, DRAWS)
    pacer, total = Pacer(), len(x) * attack.num_steps
    with keeper.session(identity) as saved:
        for start in range(0, len(x), batch_size):
            rows = np.arange(start, min(start + batch_size, len(x)))
            part = f"{name}/{start}"
            if saved is not None and part in saved.parts:
                result[rows] = _recall(part, saved.parts[part], rows, result[rows])
                continue
            padded = batches.pad(rows, batch_size, parts)
            own = with_radius(threat, radii[padded])
            examples = indices[padded], x[padded], y[padded], own
            names, images, labels, own = parallel.shard_examples(examples, mesh)
            keys = batches.derive_keys(rng_key, names)
            batch = Batch(keys, images, labels, own, draws_key)
            walk = _Walk(posterior, attack, objective, chunk, parts, batch, len(rows))
            if saved is not None and saved.meta.get("part") == part:
                walk.resume(saved)
            for first in walk.run(pacer):
                if on_steps is not None:
                    on_steps(start * attack.num_steps + len(rows) * first, total)
                keeper.tick(None, walk.arrays, {"part": part, **walk.meta})
            result[rows] = walk.found
            keeper.add_part(part, {"x_adv": result[rows], "rows": rows})
            keeper.tick(None, {})
    if on_steps is not None:
        on_steps(total, total)
    return result


class _Walk:
    """One batch on its way: images that are fooled leave it where the attack stops for them."""

    def __init__(
        self,
        posterior: Attacked,
        attack: Attack,
        objective: Objective,
        chunk: int,
        parts: int,
        batch: Batch,
        count: int,
    ) -> None:
        self._posterior, self._static = posterior, (attack, objective, chunk)
        self._attack, self._parts, self._batch = attack, parts, batch
        self._state, self._scales, _ = batches.start(posterior, batch, *self._static)
        # Places in the first batch of the images that are still walking, and of those that the
        # batch holds, row by row: fooled ones and padding stay while it would not shrink.
        self._places = np.arange(count)
        self._held = np.minimum(np.arange(len(batch.y)), count - 1)
        self._first = 0
        self.found = parallel.to_host(batch.x)[:count].copy()

    @property
    def arrays(self) -> Any:
        """What a checkpoint needs to go on."""
        return {"state": self._state, "found": self.found}

    @property
    def meta(self) -> dict[str, Any]:
        """What a checkpoint needs besides, as JSON values."""
        return {
            "first": self._first,
            "places": self._places.tolist(),
            "held": self._held.tolist(),
        }

    def resume(self, saved: Saved) -> None:
        """Go on from a checkpoint of this batch."""
        self._first, self._places = saved.meta["first"], np.asarray(saved.meta["places"])
        self._hold(np.asarray(saved.meta["held"]))
        arrays = saved.fit(self.arrays)
        self._state, self.found = arrays["state"], np.array(arrays["found"])

    def run(self, pacer: Pacer) -> Iterator[int]:
        """Take all steps; yield the number that is done, between calls."""
        last = self._attack.num_steps
        while self._first < last:
            most = _STEPS_BETWEEN_LOOKS - self._first % _STEPS_BETWEEN_LOOKS
            count = pacer.next(min(most, last - self._first))
            with pacer.timed(count):
                self._state, _ = jax.block_until_ready(
                    batches.advance(
                        self._posterior,
                        self._batch,
                        self._state,
                        self._scales,
                        (self._first, count),
                        *self._static,
                    )
                )
            self._first += count
            looks = self._attack.stop_on_success and self._first % _STEPS_BETWEEN_LOOKS == 0
            if looks and not self._dismiss_fooled():
                return
            if self._first < last:
                yield self._first
        self._record(np.arange(len(self._places)))

    def _dismiss_fooled(self) -> bool:
        """Let fooled images go, and return whether any is left."""
        fooled = parallel.to_host(self._state.success)[self._rows]
        if not fooled.any():
            return True
        self._record(np.flatnonzero(fooled))
        if fooled.all():
            return False
        self._places = self._places[~fooled]
        held = batches.pad(self._places, len(self._held), self._parts)
        if len(held) < len(self._held):
            self._hold(held)
        return True

    def _record(self, at: np.ndarray) -> None:
        self.found[self._places[at]] = keep_finite(
            parallel.to_host(self._state.x_adv)[self._rows[at]], self.found[self._places[at]]
        )

    @property
    def _rows(self) -> np.ndarray:
        """Rows of the batch at which the images stand that are still walking."""
        return np.searchsorted(self._held, self._places)

    def _hold(self, held: np.ndarray) -> None:
        """Go on with a batch of the images at the places ``held``, ascending."""
        if len(held) < len(self._held):
            self._batch, self._state, self._scales = batches.take_images(
                self._batch, self._state, self._scales, np.searchsorted(self._held, held)
            )
        self._held = held


def _recall(
    name: str, part: dict[str, np.ndarray], rows: np.ndarray, clean: np.ndarray
) -> np.ndarray:
    """Return the images of a part, which must be those of the rows it is asked for."""
    stored, found = part.get("rows"), part["x_adv"]
    same = stored is not None and np.array_equal(stored, rows)
    if not same or found.shape != clean.shape or found.dtype != clean.dtype:
        raise OtherWorkError(
            f"The checkpoint's part {name} holds {found.dtype}{list(found.shape)} for the rows "
            f"{None if stored is None else stored.tolist()}, where {clean.dtype}"
            f"{list(clean.shape)} for the rows {rows.tolist()} are wanted: it is a checkpoint of "
            "something else. Give another folder, or delete this one."
        )
    return found


def keep_finite(images: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Return images, and others in place of those that hold a NaN or an infinity, [N, ...]."""
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    return np.where(finite.reshape(-1, *(1,) * (images.ndim - 1)), images, otherwise)


def check_norm(attack: Attack, threat: Any) -> None:
    """Raise unless an attack is defined for the threat model's norm.

    Raises:
      ValueError: The message names the norms that it knows.
    """
    if attack.norms is not None and threat.norm not in attack.norms:
        raise ValueError(
            f"{attack.name} is defined for the norms {', '.join(attack.norms)}, not for "
            f"{threat.norm}."
        )
