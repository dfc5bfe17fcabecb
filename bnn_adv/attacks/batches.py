"""A batch of images under attack: its compiled steps, and what stays when images leave it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks import objectives
from bnn_adv.attacks.base import Attack, Loss, LossFn
from bnn_adv.attacks.ear import Ear, Heard, nothing_heard
from bnn_adv.attacks.objectives import Objective
from bnn_adv.attacks.parts import Parts, parts_of
from bnn_adv.attacks.threat import Threat
from bnn_adv.attacks.transfer import Transfer
from bnn_adv.compute import effort, programs
from bnn_adv.compute.singular import finite_gradient
from bnn_adv.compute.types import Classes, RngKey, RngKeys, Scales
from bnn_adv.posteriors.decision import is_fooled
from bnn_adv.posteriors.posterior import Posterior, check_sample_chunk
from bnn_adv.posteriors.sampler import FreshDraws

_SMALLEST = 8

Numbers = tuple[dict[str, Any], tuple[float | jax.Array, ...]]
"""An attack's settings and an objective's numbers that compiled programs take as data."""

Attacked = Posterior | FreshDraws | Transfer
"""What is attacked: known draws ("frozen"), also by another model's gradients, or a predictor that
draws anew ("fresh")."""


class Batch(NamedTuple):
    """What an attack knows of B images.

    keys: One key an image, [B].
    x: Clean images, [B, ...].
    y: Labels, [B].
    threat: The threat model, with a radius for every image.
    draws_key: What the new draws of every step follow from, the same for all images, a scalar.
    """

    keys: jax.Array
    x: jax.Array
    y: jax.Array
    threat: Threat
    draws_key: jax.Array


def bind(
    objective: Objective,
    posterior: Posterior,
    y: Classes,
    scales: Scales,
    chunk: int,
) -> LossFn:
    """Return the loss function that an attack climbs: objective, posterior and labels in one."""

    def loss_fn(x: jax.Array, target: jax.Array | None = None) -> Loss:
        evaluation = objectives.value_and_gradient(
            objective, posterior, x, y, target=target, scales=scales, sample_chunk=chunk
        )
        fooled = is_fooled(evaluation.log_probs, y)
        # Attacks compare values: what is not a number is worth less than anything that is.
        value = jnp.where(jnp.isnan(evaluation.value), -jnp.inf, evaluation.value)
        return Loss(
            value.astype(x.dtype),
            finite_gradient(evaluation.gradient).astype(x.dtype),
            fooled,
            evaluation.log_probs,
        )

    return loss_fn


def bind_fresh(
    objective: Objective,
    fresh: FreshDraws,
    batch: Batch,
    scales: Scales,
    chunk: int,
    number: jax.Array | int,
) -> LossFn:
    """Return a loss function whose gradients come from new draws, and all else from held-out ones.

    All calls within a step see the same new draws, so that their gradients can be compared.

    Args:
      objective: What the attacker maximises.
      fresh: The predictor.
      batch: The images.
      scales: The held-out draws' scales at the clean images, [held-out draws, B].
      chunk: Draws at once, at most.
      number: Of the step, for which the draws are made; 0 is the start.
    """
    drawn = fresh.sampler.sample(jax.random.fold_in(batch.draws_key, number), fresh.num_samples)
    return bind_transfer(objective, Transfer(drawn, fresh.held_out), batch, scales, chunk)


def bind_transfer(
    objective: Objective,
    transfer: Transfer,
    batch: Batch,
    scales: Scales,
    chunk: int,
) -> LossFn:
    """Return a loss function whose gradients are one model's, and all else another's.

    The judge's gradient is not used, and the compiler leaves out what makes it.

    Args:
      objective: What the attacker maximises.
      transfer: Both models.
      batch: The images.
      scales: The judge's scales at the clean images, [its draws, B].
      chunk: Draws at once, at most.
    """
    guide, judge = transfer
    few = _fit(chunk, guide)
    with jax.default_matmul_precision(guide.precision):
        own = objectives.compute_scales(objective, guide, batch.x, sample_chunk=few)
    lead = bind(objective, guide, batch.y, own, few)
    look = bind(objective, judge, batch.y, scales, _fit(chunk, judge))

    def loss_fn(x: jax.Array, target: jax.Array | None = None) -> Loss:
        return look(x, target)._replace(gradient=lead(x, target).gradient)

    return loss_fn


def choose_chunk(attacked: Attacked, sample_chunk: int | None, x: Any) -> int:
    """Return how many draws are taken at once, see ``check_sample_chunk``.

    Where some draws guide and others judge, the larger set decides; one with fewer draws is taken
    whole.

    Raises:
      ValueError: The chunk is below one, or larger than the number of a posterior's draws.
    """
    if isinstance(attacked, Posterior):
        return check_sample_chunk(attacked, sample_chunk, x)
    if isinstance(attacked, Transfer):
        both = tuple(attacked)
    else:
        both = attacked.sampler.shapes(attacked.num_samples), attacked.held_out
    larger = max(both, key=_draws_on_a_device)
    most = None if sample_chunk is None else min(sample_chunk, _draws_on_a_device(larger))
    return check_sample_chunk(larger, most, x)


def judge_of(attacked: Attacked) -> Posterior:
    """Return the draws that say what an input is worth, and whether it fools."""
    if isinstance(attacked, Posterior):
        return attacked
    return attacked.judge if isinstance(attacked, Transfer) else attacked.held_out


def _draws_on_a_device(posterior: Posterior) -> int:
    return posterior.num_samples // posterior.shards


def _fit(chunk: int, posterior: Posterior) -> int:
    return min(chunk, _draws_on_a_device(posterior))


def _loss_fn(
    attacked: Attacked,
    batch: Batch,
    scales: Scales,
    number: jax.Array | int,
    objective: Objective,
    chunk: int,
) -> LossFn:
    if isinstance(attacked, Posterior):
        return bind(objective, attacked, batch.y, scales, chunk)
    if isinstance(attacked, Transfer):
        return bind_transfer(objective, attacked, batch, scales, chunk)
    return bind_fresh(objective, attacked, batch, scales, chunk, number)


@programs.jit
def derive_keys(rng_key: RngKey, indices: jax.Array) -> RngKeys:
    """Return a key for every image, from its index alone."""
    return jax.vmap(jax.random.fold_in, (None, 0))(rng_key, indices)


def start(
    attacked: Attacked, batch: Batch, attack: Attack, objective: Objective, chunk: int
) -> tuple[Any, jax.Array, Heard]:
    """Return the attack's first state, fixed scales, and what was seen at the start.

    The scales are those of every draw that judges, [S, B].
    """
    parts, static = _choose_parts(attack, objective), (*_split(attack, objective), chunk)
    if parts is None:
        found: tuple[Any, jax.Array, Heard] = _start(attacked, batch, *static)
        return found
    size = judge_of(attacked).num_samples, len(batch.y)
    scales = jax.device_put(np.ones(size, batch.x.dtype))
    state, heard = _advance(attacked, batch, _blank(parts, batch), scales, -1, 1, *static, True)
    return state, scales, heard


@functools.partial(programs.jit, static_argnames=("attack", "objective", "chunk"))
def _start(
    attacked: Attacked,
    batch: Batch,
    numbers: Numbers,
    attack: Attack,
    objective: Objective,
    chunk: int,
) -> tuple[Any, jax.Array, Heard]:
    config, objective = _join(numbers, attack, objective)
    judges = judge_of(attacked)
    few = _fit(chunk, judges)
    with jax.default_matmul_precision(judges.precision):
        scales = objectives.compute_scales(objective, judges, batch.x, sample_chunk=few)
    ear = Ear(_loss_fn(attacked, batch, scales, 0, objective, chunk))
    state = keep_dtypes(attack.init(batch.keys, ear, batch.x, batch.threat, config))
    return state, scales, ear.heard(state, batch.x)


def keep_dtypes(state: Any) -> Any:
    """Return an attack's state in float32 and int32, also under ``jax_enable_x64``.

    There a sum of booleans is int64 and a Python number's power float64: the state after a step
    would have other types than the one before.
    """

    def narrow(leaf: jax.Array) -> jax.Array:
        wide = {"float64": jnp.float32, "int64": jnp.int32, "uint64": jnp.uint32}
        return leaf.astype(wide[leaf.dtype.name]) if leaf.dtype.name in wide else leaf

    return jax.tree.map(narrow, state)


@functools.partial(programs.jit, static_argnames=("attack", "objective", "chunk", "starts_within"))
def _advance(
    attacked: Attacked,
    batch: Batch,
    state: Any,
    scales: Scales,
    first: jax.Array | int,
    count: jax.Array | int,
    numbers: Numbers,
    attack: Attack,
    objective: Objective,
    chunk: int,
    starts_within: bool,
) -> tuple[Any, Heard]:
    """Take steps; with ``starts_within`` number -1 is the start: one program in place of two."""
    config, objective = _join(numbers, attack, objective)
    parts = parts_of(attack) if starts_within else None

    def body(done: jax.Array, current: Any) -> Any:
        ear = Ear(_loss_fn(attacked, batch, scales, done + 1, objective, chunk))
        if parts is None:
            after = attack.step(batch.keys, current[0], ear, batch.x, batch.threat, config)
            after = keep_dtypes(after)
        else:
            after = _start_or_step(parts, ear, done < 0, current[0], batch, config)
        return after, ear.heard(after, batch.x)

    found: tuple[Any, Heard] = jax.lax.fori_loop(
        first, first + count, body, (state, nothing_heard(batch.x))
    )
    return found


def _start_or_step(
    parts: Parts, loss_fn: LossFn, is_start: jax.Array, now: Any, batch: Batch, config: Any
) -> Any:
    x, threat = batch.x, batch.threat
    moved = jax.lax.cond(
        is_start,
        lambda: parts.start_at(batch.keys, x, threat, config),
        lambda: parts.propose(now, x, threat, config),
    )
    loss = loss_fn(moved)
    both = parts.begin(moved, loss, threat), parts.take_in(now, moved, loss, x, threat, config)
    return jax.tree.map(lambda a, b: jnp.where(is_start, a, b), *map(keep_dtypes, both))


def _choose_parts(attack: Attack, objective: Objective) -> Parts | None:
    """Return an attack's parts where compiling it in parts is worth it, and scales are ones."""
    return parts_of(attack) if effort.is_low() and objective.scale is None else None


def _blank(parts: Parts, batch: Batch) -> Any:
    """Return a state of zeros, of the shapes that the first one will have."""

    def begin(x: jax.Array, threat: Threat) -> Any:
        value = x.reshape(len(x), -1).sum(axis=1)
        return keep_dtypes(parts.begin(x, Loss(value, x, value > 0), threat))

    shapes = jax.eval_shape(begin, batch.x, batch.threat)
    return jax.device_put(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))


@programs.sized_by(_advance)
def advance(
    attacked: Attacked,
    batch: Batch,
    state: Any,
    scales: Scales,
    steps: tuple[jax.Array | int, jax.Array | int],
    attack: Attack,
    objective: Objective,
    chunk: int,
) -> tuple[Any, Heard]:
    """Take ``steps``, (first, count); they are data, so that one program serves them all.

    Returns:
      The state, and what was seen at the last step.
    """
    static = (*_split(attack, objective), chunk, _choose_parts(attack, objective) is not None)
    found: tuple[Any, Heard] = _advance(attacked, batch, state, scales, *steps, *static)
    return found


@functools.partial(programs.jit, static_argnames=("objective", "chunk"))
def look(
    attacked: Attacked,
    batch: Batch,
    scales: Scales,
    x: jax.Array,
    objective: Objective,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """Return value and success at any inputs of a batch, both [B]."""
    loss = _loss_fn(attacked, batch, scales, 0, objective, chunk)(x)
    return loss.value, loss.success


def _split(attack: Attack, objective: Objective) -> tuple[Numbers, Attack, Objective]:
    """Return the numbers that programs take as data, and the rest, by which they are told apart."""
    settings = {name: getattr(attack.config, name) for name in attack.as_data}
    config = _configure(attack, dict.fromkeys(settings, 0))
    # How many steps there are, and when a batch ends, is the host's business.
    attack = dataclasses.replace(attack, config=config, num_steps=0, stop_on_success=False)
    if objective.numbers:
        unnamed = dataclasses.replace(objective, name="", numbers=())
        return (settings, objective.numbers), attack, unnamed
    return (settings, ()), attack, objective


def _join(numbers: Numbers, attack: Attack, objective: Objective) -> tuple[Any, Objective]:
    """Return an attack's settings and an objective with the numbers that ``_split`` took out."""
    settings, of_objective = numbers
    return _configure(attack, settings), dataclasses.replace(objective, numbers=of_objective)


def _configure(attack: Attack, numbers: dict[str, Any]) -> Any:
    return dataclasses.replace(attack.config, **numbers) if numbers else attack.config


@programs.jit
def take_images(
    batch: Batch, state: Any, scales: Scales, places: jax.Array
) -> tuple[Batch, Any, jax.Array]:
    """Return batch, state and scales of the images at ``places``, in that order."""

    def rows(leaf: jax.Array) -> jax.Array:
        return leaf[places] if leaf.ndim else leaf

    return jax.tree.map(rows, batch), jax.tree.map(rows, state), scales[:, places]


def pad(rows: np.ndarray, batch_size: int, parts: int) -> np.ndarray:
    """Repeat the last row until the count is one of few sizes, so that few programs compile.

    Args:
      rows: At least one, at most ``batch_size``.
      batch_size: The largest size; each smaller one is half of the one before. Where compiling
        takes longer than computing (``effort``), it is the only one.
      parts: A size must be a multiple of it.
    """
    size, least = batch_size, batch_size if effort.is_low() else max(len(rows), _SMALLEST)
    while size // 2 >= least and (size // 2) % parts == 0:
        size //= 2
    return np.pad(rows, (0, size - len(rows)), mode="edge")
