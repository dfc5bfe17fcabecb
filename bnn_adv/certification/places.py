"""Where lines were made tight: what a certificate keeps so that its bounds can be made again.

A place is a change of the input in units of the ball's radius, in float16. Any place makes a sound
bound, so that none has to be trusted; the bound is made at the rounded places themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.bounds.balls import Ball

Places = dict[int, np.ndarray]
"""By the input's number: its places, float16 [rounds, C, d]."""


def to_shares(ball: Ball, points: jax.Array) -> jax.Array:
    """Return points, [C, 1, *D], as changes in units of the radius, rounded to float16."""
    radius = jnp.where(ball.epsilon > 0, ball.epsilon, 1.0)
    return ((points - ball.x) / radius).astype(jnp.float16)


def to_points(ball: Ball, shares: jax.Array) -> jax.Array:
    """Return the points, float64 [C, 1, *D], that shares stand for."""
    return ball.x + ball.epsilon * shares.astype(jnp.float64)


def cut(shares: np.ndarray, rounds: np.ndarray) -> np.ndarray:
    """Return the first rounds of every input behind each other, [K, C, d].

    Args:
      shares: Of all rounds and inputs, [R, B, C, ...].
      rounds: How many count, [B].
    """
    flat = shares.reshape(*shares.shape[:3], int(np.prod(shares.shape[3:])))
    kept = [flat[:number, i] for i, number in enumerate(rounds)]
    return np.concatenate([np.zeros((0, *flat.shape[2:]), np.float16), *kept])


def split(points: np.ndarray, rounds: np.ndarray, rows: np.ndarray) -> Places:
    """Return what ``cut`` put behind each other, by the inputs' numbers; of none where no round."""
    parts = np.split(points, np.cumsum(rounds)[:-1])
    return {int(row): part for row, part in zip(rows, parts, strict=True) if len(part)}


def join(places: Mapping[int, np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all places behind each other, [K, C, d], and how many each of the inputs has, [N]."""
    rounds = np.array([len(places.get(i, ())) for i in range(count)], np.int32)
    parts = [places[i] for i in sorted(places)]
    return np.concatenate(parts) if parts else np.zeros((0, 0, 0), np.float16), rounds
