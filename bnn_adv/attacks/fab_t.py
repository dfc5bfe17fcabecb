r"""Targeted fast adaptive boundary attack: FAB towards one other class after the other.

Croce, Hein 2020, arXiv 1907.02044 and, for the targeted form, arXiv 2003.01690, section 5 (FAB-T):
FAB (``fab``) in which the boundary that is linearised is always the one between the label and one
class, for each of the ``num_targets`` most likely classes at the clean input. A step costs one
gradient where FAB needs one a class. One final search serves all targets.
"""

from __future__ import annotations

import dataclasses

import jax

from bnn_adv.attacks import fab
from bnn_adv.attacks.base import Attack, LossFn
from bnn_adv.attacks.fab import LineariseFn, Plane, State
from bnn_adv.attacks.threat import Threat
from bnn_adv.compute.types import Images, RngKeys


@dataclasses.dataclass(frozen=True)
class Config(fab.Config):
    """How FAB walks, and towards how many classes.

    Args:
      num_steps: Steps from each start towards each class, at least 1.
      num_starts: Starts for each class, see ``fab.Config``.
      num_bisections: Steps of the final search, at least 0.
      alpha_max: Largest pull towards the clean input, in [0, 1].
      eta: Overshoot, at least 1.
      beta: Share of the way that is kept where an input fools, in (0, 1).
      num_targets: Classes to aim at, at least 1; of C classes at most C - 1 are.
    """

    num_targets: int = 9


def init(rng_keys: RngKeys, loss_fn: LossFn, x: Images, threat: Threat, config: Config) -> State:
    """Rank the classes at the clean inputs, which are the nearest ones where they fool.

    Raises:
      ValueError: ``loss_fn`` returns no ``log_probs``.
    """
    return fab.prepare(loss_fn, x, threat, num_targets=config.num_targets)


def step(
    rng_keys: RngKeys,
    state: State,
    loss_fn: LossFn,
    x: Images,
    threat: Threat,
    config: Config,
) -> State:
    """Take one step to the linearised boundary with the current class, or of the final search."""
    num_targets = state.targets.shape[1]
    num_walks = num_targets * config.num_starts

    def advance(now: State) -> State:
        def current_plane(linearise: LineariseFn) -> Plane:
            return linearise(now.step // (config.num_steps * config.num_starts))

        return fab.advance(rng_keys, now, loss_fn, x, threat, config, current_plane, num_walks)

    if num_targets == config.num_targets:
        return advance(state)
    # Fewer classes than targets: the steps that are left have nothing to do.
    last = num_walks * config.num_steps + config.num_bisections
    found: State = jax.lax.cond(state.step < last, advance, lambda now: now, state)
    return found


def build(
    *,
    num_steps: int = 100,
    num_targets: int = 9,
    num_starts: int = 1,
    num_bisections: int = 10,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    stop_on_success: bool = False,
) -> Attack:
    """Return the attack with the given settings, see ``Config``.

    Args:
      stop_on_success: Let an input go once it is fooled within its radius, though a nearer one
        may be found.

    Raises:
      ValueError: A setting is out of range.
    """
    config = Config(num_steps, num_starts, num_bisections, alpha_max, eta, beta, num_targets)
    fab.check(config)
    if num_targets < 1:
        raise ValueError(f"num_targets must be at least 1, got {num_targets}.")
    total = num_targets * num_starts * num_steps + num_bisections
    return Attack(
        "fab_t", config, init, step, total, stop_on_success, minimises_norm=True, aims=True
    )
