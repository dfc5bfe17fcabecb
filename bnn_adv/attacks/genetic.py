r"""Genetic attack: a population that breeds by fitness, and never asks for a gradient.

GenAttack, Alzantot et al. 2019, arXiv 1805.11090, algorithm 1, here untargeted: the fitness F is
the objective's value. From P random points of ball and box, every generation keeps the elite, the
best member so far, and fills the other P - 1 places with children:

    parents a, b ~ softmax(F / s),    each coordinate from a with chance p_a / (p_a + p_b),
    child = Proj_{ball and box}( crossover + Bernoulli(rho) U(-alpha r, alpha r) )

with ``r = epsilon`` under l_inf, else the half side of the cube inside the ball, ``epsilon
d^(-1/p)``. Mutations become rarer and smaller with every plateau (section 4.2):

    rho = max(0.1, 0.5 0.9^plateaus),    alpha = max(0.15, 0.4 0.9^plateaus)

The paper's fitness is a log probability, and s = 1. Objectives come in many units: here s is the
standard deviation of the population's fitness.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.attacks.base import Attack, Best, LossFn, check_steps, keep_better
from bnn_adv.attacks.threat import Threat, per_input, random_starts
from bnn_adv.compute.types import Images, RngKeys

_FIRST_RATE, _LEAST_RATE = 0.5, 0.1
_FIRST_RANGE, _LEAST_RANGE = 0.4, 0.15
_DECAY = 0.9
# How the half side of the cube inside a ball of radius one falls with the dimension.
_POWERS = {"linf": 0.0, "l2": -0.5, "l1": -1.0}


@dataclasses.dataclass(frozen=True)
class Config:
    """How long the search is, and how many breed.

    With the defaults it asks for 1,006 values an input: six, then five a generation.

    Args:
      num_steps: Generations after the first one, at least 1.
      population: Members of a generation, the elite among them, at least 2.
      patience: Generations without a better elite that make a plateau, at least 1. The paper's
        100 would use up half of a short search.
    """

    num_steps: int = 200
    population: int = 6
    patience: int = 5


class State(NamedTuple):
    """The attack's state.

    x_adv: The best inputs so far, [B, ...]; the next generation's elite.
    success: Whether ``x_adv`` is known to fool, [B].
    value: The objective at ``x_adv``, [B].
    step: Generations bred, a scalar.
    members: The population, [B, P, ...].
    fitness: The objective there, [B, P].
    stalled: Generations since ``x_adv`` became better or a plateau was counted, [B].
    plateaus: Plateaus so far, [B].
    """

    x_adv: jax.Array
    success: jax.Array
    value: jax.Array
    step: jax.Array
    members: jax.Array
    fitness: jax.Array
    stalled: jax.Array
    plateaus: jax.Array


def init(rng_keys: RngKeys, loss_fn: LossFn, x: Images, threat: Threat, config: Config) -> State:
    """Draw the first population at random from ball and box, and evaluate it."""
    keys = jax.vmap(lambda key: jax.random.split(key, config.population))(rng_keys)
    members = jax.vmap(random_starts, (None, 1, None), 1)(threat, keys, x)
    # Whatever its value, a member is better than the input that nobody has looked at.
    unseen = Best(x, jnp.zeros(len(x), bool), jnp.full(len(x), -jnp.inf, x.dtype))
    best, members, fitness = _evaluate(unseen, members, loss_fn, x, threat)
    none = jnp.zeros(len(x), jnp.int32)
    return State(*best, jnp.zeros((), jnp.int32), members, fitness, none, none)


def step(
    rng_keys: RngKeys,
    state: State,
    loss_fn: LossFn,
    x: Images,
    threat: Threat,
    config: Config,
) -> State:
    """Breed one generation, and count how long the elite has stayed the same."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(rng_keys, state.step)
    rate, reach = _mutation(state.plateaus)
    side = per_input(threat, len(x), x.dtype).epsilon * x[0].size ** _POWERS[threat.norm]
    children = jax.vmap(_breed)(keys, state.members, state.fitness, rate, reach * side)
    elite = Best(state.x_adv, state.success, state.value)
    best, children, fitness = _evaluate(elite, children, loss_fn, x, threat)
    is_better = (best.value != elite.value) | (best.success != elite.success)
    stalled = jnp.where(is_better, 0, state.stalled + 1)
    is_plateau = stalled >= config.patience
    return State(
        *best,
        step=state.step + 1,
        members=jnp.concatenate([elite.x[:, None], children], axis=1),
        fitness=jnp.concatenate([elite.value[:, None], fitness], axis=1),
        stalled=jnp.where(is_plateau, 0, stalled),
        plateaus=state.plateaus + is_plateau,
    )


def build(
    *,
    num_steps: int = 200,
    population: int = 6,
    patience: int = 5,
    stop_on_success: bool = True,
) -> Attack:
    """Return the attack with the given settings, see ``Config``.

    Args:
      stop_on_success: End a batch once all its inputs are fooled.

    Raises:
      ValueError: A setting is out of range.
    """
    check_steps(num_steps)
    if population < 2:
        raise ValueError(f"population must be at least 2, an elite and a child, got {population}.")
    if patience < 1:
        raise ValueError(f"patience must be at least 1, got {patience}.")
    config = Config(num_steps, population, patience)
    return Attack("genetic", config, init, step, num_steps, stop_on_success, uses_gradient=False)


def _evaluate(
    best: Best, members: jax.Array, loss_fn: LossFn, x: jax.Array, threat: Threat
) -> tuple[Best, jax.Array, jax.Array]:
    """Project members, [B, N, ...], evaluate them one after another, and keep the best.

    Returns:
      The best of ``best`` and the members, the projected members, their fitness, [B, N].
    """

    def one(best: Best, member: jax.Array) -> tuple[Best, tuple[jax.Array, jax.Array]]:
        moved = threat.project(member, x)
        loss = loss_fn(moved)
        return keep_better(best, moved, loss), (moved, loss.value)

    best, (moved, fitness) = jax.lax.scan(one, best, jnp.moveaxis(members, 1, 0))
    return best, jnp.moveaxis(moved, 0, 1), fitness.T


def _mutation(plateaus: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the share of coordinates that mutate and by how much at most, both [B]."""
    decay = (_DECAY**plateaus).astype(jnp.float32)
    rate = jnp.maximum(_LEAST_RATE, _FIRST_RATE * decay)
    return rate, jnp.maximum(_LEAST_RANGE, _FIRST_RANGE * decay)


def _breed(
    rng_key: jax.Array, members: jax.Array, fitness: jax.Array, rate: jax.Array, reach: jax.Array
) -> jax.Array:
    """Return one child less than there are members, [P - 1, ...], of one input."""
    parent_key, cross_key, where_key, change_key = jax.random.split(rng_key, 4)
    spread = jnp.std(fitness)
    log_odds = (fitness - fitness.max()) / jnp.where(spread > 0, spread, 1.0)
    first, second = jax.random.categorical(parent_key, log_odds, shape=(2, len(fitness) - 1))
    shape = (len(first), *members.shape[1:])
    chance = jax.nn.sigmoid(log_odds[first] - log_odds[second])
    chance = chance.reshape(-1, *(1,) * (members.ndim - 1))
    from_first = jax.random.bernoulli(cross_key, chance, shape)
    child = jnp.where(from_first, members[first], members[second])
    change = jax.random.uniform(change_key, shape, members.dtype, -1.0, 1.0) * reach
    return child + jnp.where(jax.random.bernoulli(where_key, rate, shape), change, 0.0)
