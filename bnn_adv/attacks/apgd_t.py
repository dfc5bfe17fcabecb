r"""Targeted Auto-PGD: APGD towards one other class after the other.

Croce, Hein 2020, arXiv 2003.01690, sections 4 and 5 (APGD-T): for each of the ``num_targets`` most
likely classes t but the label, APGD (``apgd``) climbs ``loss_fn(x, target=t)`` for ``num_steps``
steps from a start of its own. The paper does so with the targeted DLR loss (eq. 7), the objective
``dlr``, from random points; any objective can be aimed.

From the clean input (``start="clean"``) the first step goes to the largest value that the linear
approximation there has in ball and box (``threat.maximise_linear``): a margin that is linear in the
input is at its maximum then, in every norm. Where the gradient at the clean input is exactly zero,
it goes to a random point.

Values aimed at different classes cannot be compared: of all points on all ways the one is kept that
fools, then the one where another class leads over the label by most, in the log of the prediction.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.attacks import apgd
from bnn_adv.attacks.base import Attack, Best, Loss, LossFn, check_steps, keep_better, select
from bnn_adv.attacks.targets import rank_targets
from bnn_adv.attacks.threat import Threat, random_starts
from bnn_adv.compute.types import Images, RngKeys


@dataclasses.dataclass(frozen=True)
class Config:
    """How APGD walks, and towards how many classes.

    Args:
      num_steps: Steps towards each class, at least 1.
      num_targets: Classes to aim at, at least 1; of C classes at most C - 1 are.
      rho: As in ``apgd.Config``.
      start: ``"random"`` points, or the ``"clean"`` inputs.
    """

    num_steps: int = 100
    num_targets: int = 9
    rho: float = 0.75
    start: Literal["random", "clean"] = "random"


class State(NamedTuple):
    """The attack's state.

    x_adv: The inputs that would be returned now, [B, ...].
    success: Whether ``x_adv`` is known to fool, [B].
    value: By how much another class leads over the label there, in the log of the prediction, [B].
    label: The label, int32 [B]; any class where the clean input fools.
    targets: All classes but the label, the likeliest first, int32 [B, C - 1].
    walk: APGD's state on the way to the current one.
    step: Steps taken, a scalar; a walk's start takes one.
    """

    x_adv: jax.Array
    success: jax.Array
    value: jax.Array
    label: jax.Array
    targets: jax.Array
    walk: apgd.State
    step: jax.Array


def init(rng_keys: RngKeys, loss_fn: LossFn, x: Images, threat: Threat, config: Config) -> State:
    """Look at the clean inputs, and rank the classes there.

    Raises:
      ValueError: ``loss_fn`` returns no ``log_probs``.
    """
    loss = loss_fn(x)
    targets = rank_targets(loss)
    assert loss.log_probs is not None
    label = jnp.argmax(loss.log_probs, axis=-1).astype(jnp.int32)
    nowhere = loss._replace(gradient=jnp.zeros_like(x))
    walk, zero = apgd.begin(x, nowhere, threat), jnp.zeros((), jnp.int32)
    return State(x, loss.success, _lead(loss, label), label, targets, walk, zero)


def step(
    rng_keys: RngKeys,
    state: State,
    loss_fn: LossFn,
    x: Images,
    threat: Threat,
    config: Config,
) -> State:
    """Take one step of APGD, or begin the way to the next target."""
    num_targets = jnp.minimum(config.num_targets, state.targets.shape[1])
    length = config.num_steps + 1

    def advance(now: State) -> State:
        turn, place = now.step // length, now.step % length
        keys = jax.vmap(jax.random.fold_in, (0, None))(rng_keys, turn)
        moved = jax.lax.cond(
            place < (2 if config.start == "clean" else 1),
            lambda: _start(keys, now.walk, place, x, threat, config),
            lambda: apgd.propose(now.walk, x, threat, _walk_config(config)),
        )
        loss = loss_fn(moved, now.targets[:, turn])
        begun = apgd.begin(moved, loss, threat)
        further = apgd.take_in(now.walk, moved, loss, x, threat, _walk_config(config))
        walk = jax.tree.map(lambda a, b: jnp.where(place == 0, a, b), begun, further)
        found = loss._replace(value=_lead(loss, now.label))
        best = keep_better(Best(now.x_adv, now.success, now.value), moved, found)
        return State(*best, now.label, now.targets, walk, now.step + 1)

    # Where there are fewer classes than targets, the steps that are left have nothing to do.
    result: State = jax.lax.cond(state.step < num_targets * length, advance, lambda now: now, state)
    return result


def build(
    *,
    num_steps: int = 100,
    num_targets: int = 9,
    rho: float = 0.75,
    start: Literal["random", "clean"] = "random",
    stop_on_success: bool = False,
) -> Attack:
    """Return the attack with the given settings, see ``Config``.

    Args:
      stop_on_success: End a batch once all its inputs are fooled.

    Raises:
      ValueError: A setting is out of range.
    """
    check_steps(num_steps)
    if num_targets < 1:
        raise ValueError(f"num_targets must be at least 1, got {num_targets}.")
    if not 0 <= rho <= 1:
        raise ValueError(f"rho must lie in [0, 1], got {rho}.")
    if start not in ("random", "clean"):
        raise ValueError(f"start must be 'random' or 'clean', got {start!r}.")
    config = Config(num_steps, num_targets, rho, start)
    total = num_targets * (num_steps + 1)
    as_data = (*apgd.AS_DATA, "num_targets")
    return Attack("apgd_t", config, init, step, total, stop_on_success, aims=True, as_data=as_data)


def _walk_config(config: Config) -> apgd.Config:
    return apgd.Config(config.num_steps, config.rho)


def _start(
    rng_keys: jax.Array,
    walk: apgd.State,
    place: jax.Array,
    x: jax.Array,
    threat: Threat,
    config: Config,
) -> jax.Array:
    """Return where a walk begins, and from a clean input where its first step leads."""
    anywhere = random_starts(threat, rng_keys, x)
    if config.start == "random":
        return anywhere
    slope = walk.loss.gradient
    is_flat = (slope == 0).reshape(len(slope), -1).all(axis=1)
    first = select(is_flat, anywhere, threat.maximise_linear(slope, x))
    return jnp.where(place == 0, x, first)


def _lead(loss: Loss, label: jax.Array) -> jax.Array:
    """Return by how much the likeliest other class leads over the label, [B]."""
    assert loss.log_probs is not None
    own = jnp.take_along_axis(loss.log_probs, label[:, None], axis=1)
    is_label = jnp.arange(loss.log_probs.shape[1]) == label[:, None]
    return jnp.where(is_label, -jnp.inf, loss.log_probs).max(axis=1) - own[:, 0]
