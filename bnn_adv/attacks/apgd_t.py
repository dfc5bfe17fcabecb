r"""Targeted Auto-PGD: APGD towards one other class after the other.

Croce, Hein 2020, arXiv 2003.01690, sections 4 and 5 (APGD-T): for each of the ``num_targets`` most
likely classes t but the label, APGD (``apgd``) climbs ``loss_fn(x, target=t)`` for ``num_steps``
steps from a random start of its own. The paper does so with the targeted DLR loss (eq. 7), the
objective ``dlr``; any objective can be aimed.

Values aimed at different classes cannot be compared: what each target found is compared by whether
it fools, then by the objective without a target.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.attacks import apgd
from bnn_adv.attacks.base import Attack, Best, Loss, LossFn, check_steps, keep_better, select
from bnn_adv.attacks.targets import rank_targets
from bnn_adv.threat import Threat


@dataclasses.dataclass(frozen=True)
class Config:
    """Say how APGD walks, and towards how many classes.

    Args:
      num_steps: Steps towards each class, at least 1.
      num_targets: Classes to aim at, at least 1; of C classes at most C - 1 are.
      rho: As in ``apgd.Config``.
    """

    num_steps: int = 100
    num_targets: int = 9
    rho: float = 0.75


class State(NamedTuple):
    """Hold the attack's state.

    x_adv: The inputs that would be returned now, [B, ...].
    success: Whether ``x_adv`` is known to fool, [B].
    best: The best of the clean inputs and of what the finished targets found, by the objective
      without a target.
    targets: Classes to aim at, int32 [B, K].
    walk: APGD's state on the way to the current one.
    step: Steps taken, a scalar.
    """

    x_adv: jax.Array
    success: jax.Array
    best: Best
    targets: jax.Array
    walk: apgd.State
    step: jax.Array


def init(
    rng_keys: jax.Array, loss_fn: LossFn, x: jax.Array, threat: Threat, config: Config
) -> State:
    """Rank the classes at the clean inputs and start towards the first one.

    Raises:
      ValueError: ``loss_fn`` returns no ``log_probs``.
    """
    loss = loss_fn(x)
    targets = rank_targets(loss, config.num_targets)
    zero = jnp.zeros((), jnp.int32)
    walk = _start(rng_keys, loss_fn, x, threat, config, targets, zero)
    return _show(Best(x, loss.success, loss.value), targets, walk, zero)


def step(
    rng_keys: jax.Array,
    state: State,
    loss_fn: LossFn,
    x: jax.Array,
    threat: Threat,
    config: Config,
) -> State:
    """Take one step of APGD; after a target's last one, keep what is better and aim anew."""
    num_targets = state.targets.shape[1]

    def advance(now: State) -> State:
        turn = now.step // config.num_steps
        aimed = _aim(loss_fn, now.targets, turn)
        walk = apgd.step(rng_keys, now.walk, aimed, x, threat, _walk_config(config))

        def turn_over(best: Best, walk: apgd.State) -> tuple[Best, apgd.State]:
            best = keep_better(best, walk.x_adv, loss_fn(walk.x_adv))
            # After the last target nobody takes this walk; the classes do not suffice for another.
            following = jnp.minimum(turn + 1, num_targets - 1)
            return best, _start(rng_keys, loss_fn, x, threat, config, now.targets, following)

        ends = (now.step + 1) % config.num_steps == 0
        best, walk = jax.lax.cond(ends, turn_over, lambda *same: same, now.best, walk)
        return _show(best, now.targets, walk, now.step + 1)

    if num_targets == config.num_targets:
        return advance(state)
    # Fewer classes than targets: the steps that are left have nothing to do.
    return jax.lax.cond(
        state.step < num_targets * config.num_steps, advance, lambda now: now, state
    )


def build(
    *,
    num_steps: int = 100,
    num_targets: int = 9,
    rho: float = 0.75,
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
    config = Config(num_steps, num_targets, rho)
    return Attack("apgd_t", config, init, step, num_targets * num_steps, stop_on_success)


def _walk_config(config: Config) -> apgd.Config:
    return apgd.Config(config.num_steps, config.rho)


def _aim(loss_fn: LossFn, targets: jax.Array, turn: jax.Array) -> LossFn:
    target = targets[:, turn]

    def aimed(x: jax.Array, target: jax.Array | None = target) -> Loss:
        return loss_fn(x, target)

    return aimed


def _start(
    rng_keys: jax.Array,
    loss_fn: LossFn,
    x: jax.Array,
    threat: Threat,
    config: Config,
    targets: jax.Array,
    turn: jax.Array,
) -> apgd.State:
    """Return APGD's first state towards the target whose turn it is, from a start of its own."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(rng_keys, turn)
    return apgd.init(keys, _aim(loss_fn, targets, turn), x, threat, _walk_config(config))


def _show(best: Best, targets: jax.Array, walk: apgd.State, step: jax.Array) -> State:
    """Return the state that shows what fools now, though its target is not finished."""
    is_new = walk.success & ~best.success
    x_adv = select(is_new, walk.x_adv, best.x)
    return State(x_adv, best.success | is_new, best, targets, walk, step)
