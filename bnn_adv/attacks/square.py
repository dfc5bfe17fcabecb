r"""Square attack: random search that asks for the objective only, never for a gradient.

Andriushchenko, Croce, Flammarion, Hein 2020, arXiv 1912.00049, algorithms 1 (the search), 2 (l_inf)
and 3 (l_2). One query a step: a square window at a random place is changed, and the change is kept
if it is better. The window covers a share p of the pixels, which falls with the steps from
``first_share``. Under l_inf the window becomes ``+-epsilon``, one sign a channel; under l_2 the
budget of another window moves into it, as two opposite bumps.

What it breaks while gradient attacks do not says that gradients were masked.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks.base import Attack, Best, LossFn, check_steps, keep_better
from bnn_adv.attacks.threat import Threat, per_input, radius_of
from bnn_adv.compute.types import Images, RngKeys

# Of 10,000 queries, those at which the share of pixels is halved (section 5, "schedule of p").
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclasses.dataclass(frozen=True)
class Config:
    """How long the search is.

    Args:
      num_steps: Queries after the first one, at least 1.
      first_share: Share of the pixels in the first window, in (0, 1].
    """

    num_steps: int = 5000
    first_share: float = 0.8


class State(NamedTuple):
    """The attack's state.

    x_adv: The best inputs so far, [B, ...].
    success: Whether ``x_adv`` is known to fool, [B].
    value: The objective at ``x_adv``, [B].
    step: Steps taken, a scalar.
    """

    x_adv: jax.Array
    success: jax.Array
    value: jax.Array
    step: jax.Array


def init(rng_keys: RngKeys, loss_fn: LossFn, x: Images, threat: Threat, config: Config) -> State:
    """Start from stripes (l_inf) or a grid of bumps (l_2), and evaluate the objective there."""
    images = x.reshape(x.shape[0], *_image_shape(x.shape[1:]))
    start = _stripes if threat.norm == "linf" else _grid
    delta = jax.vmap(lambda key, row: start(key, row.shape))(rng_keys, images)
    moved = threat.project((images + radius_of(threat, images) * delta).reshape(x.shape), x)
    loss = loss_fn(moved)
    return State(moved, loss.success, loss.value, jnp.zeros((), jnp.int32))


def step(
    rng_keys: RngKeys,
    state: State,
    loss_fn: LossFn,
    x: Images,
    threat: Threat,
    config: Config,
) -> State:
    """Change one window of every input, and keep what is better."""
    shape = (x.shape[0], *_image_shape(x.shape[1:]))
    shares = jnp.asarray(_shares(config))
    change = _set_window if threat.norm == "linf" else _move_budget

    def one(key: jax.Array, best: jax.Array, clean: jax.Array, own: Threat) -> jax.Array:
        key = jax.random.fold_in(key, state.step)
        return change(key, best, clean, own, shares[state.step])

    images = state.x_adv.reshape(shape), x.reshape(shape)
    proposed = jax.vmap(one)(rng_keys, *images, per_input(threat, x.shape[0], x.dtype))
    proposed = threat.project(proposed.reshape(x.shape), x)
    best = Best(state.x_adv, state.success, state.value)
    return State(*keep_better(best, proposed, loss_fn(proposed)), state.step + 1)


def build(
    *, num_steps: int = 5000, first_share: float = 0.8, stop_on_success: bool = True
) -> Attack:
    """Return the attack with the given settings, see ``Config``.

    Args:
      stop_on_success: End a batch once all its inputs are fooled.

    Raises:
      ValueError: A setting is out of range.
    """
    check_steps(num_steps)
    if not 0 < first_share <= 1:
        raise ValueError(f"first_share must lie in (0, 1], got {first_share}.")
    config = Config(num_steps, first_share)
    norms = ("linf", "l2")
    return Attack(
        "square", config, init, step, num_steps, stop_on_success, norms, uses_gradient=False
    )


def _shares(config: Config) -> np.ndarray:
    """Return the share of the pixels that each step's window covers, [num_steps]."""
    scaled = np.arange(config.num_steps) * 10_000 // config.num_steps
    halvings = (scaled[:, None] > np.array(_HALVINGS)).sum(axis=1)
    found: np.ndarray = (config.first_share * 0.5**halvings).astype(np.float32)
    return found


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return height, width and channels; what is no image is one column of pixels."""
    return shape if len(shape) == 3 else (int(np.prod(shape)), 1, 1)


def _sides(share: jax.Array, shape: tuple[int, ...], least: int) -> tuple[jax.Array, jax.Array]:
    """Return a window's height and width, which are equal but for a single column."""
    height, width = shape[:2]
    if min(height, width) == 1:
        longest = max(height, width)
        side = jnp.round(share * longest).astype(jnp.int32)
        side = jnp.clip(side, min(least, longest), longest)
        one = jnp.ones((), jnp.int32)
        return (side, one) if width == 1 else (one, side)
    side = jnp.round(jnp.sqrt(share * height * width)).astype(jnp.int32)
    side = jnp.clip(side, min(least, height, width), min(height, width))
    return side, side


def _corner(
    rng_key: jax.Array, sides: tuple[jax.Array, jax.Array], shape: tuple[int, ...]
) -> jax.Array:
    """Return the first row and column of a window that lies within the image."""
    free = jnp.asarray(shape[:2]) - jnp.stack(sides)
    return jax.random.randint(rng_key, (2,), 0, free + 1, jnp.int32)


def _window(
    corner: jax.Array, sides: tuple[jax.Array, jax.Array], shape: tuple[int, ...]
) -> jax.Array:
    """Return which pixels lie in a window, [H, W, 1]."""
    rows, columns = jnp.arange(shape[0])[:, None, None], jnp.arange(shape[1])[None, :, None]
    in_rows = (rows >= corner[0]) & (rows < corner[0] + sides[0])
    return in_rows & (columns >= corner[1]) & (columns < corner[1] + sides[1])


def _signs(rng_key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    # As jax.random.rademacher, whose numbers change with ``jax_enable_x64``.
    is_positive = jax.random.bernoulli(rng_key, jnp.float32(0.5), shape)
    return 2 * is_positive.astype(jnp.float32) - 1


def _stripes(rng_key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    # Where there is one column only, every pixel has a sign of its own.
    size = (1, *shape[1:]) if shape[1] > 1 else shape
    return jnp.broadcast_to(_signs(rng_key, size), shape)


def _set_window(
    rng_key: jax.Array, best: jax.Array, clean: jax.Array, threat: Threat, share: jax.Array
) -> jax.Array:
    place_key, sign_key = jax.random.split(rng_key)
    sides = _sides(share, best.shape, least=1)
    window = _window(_corner(place_key, sides, best.shape), sides, best.shape)
    delta = threat.epsilon * _signs(sign_key, (1, 1, best.shape[2]))
    return jnp.where(window, clean + delta, best)


def _bump(rows: jax.Array, columns: jax.Array, height: jax.Array, width: jax.Array) -> jax.Array:
    """Return a bump of unit norm over a rectangle, ``sum_{k >= r} 1 / (k + 1)^2`` at distance r.

    Args:
      rows: Row of every pixel within the rectangle, [H, 1]; outside where not in [0, height).
      columns: Columns likewise, [1, W].
      height: Rows of the rectangle.
      width: Columns of the rectangle.
    """
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    distance = jnp.maximum(jnp.abs(rows - height // 2), jnp.abs(columns - width // 2))
    reach = jnp.maximum(height // 2, width // 2) + 1
    terms = 1.0 / jnp.arange(1, rows.size + columns.size + 2) ** 2.0
    up_to = jnp.concatenate([jnp.zeros(1), jnp.cumsum(terms)])
    value = jnp.where(inside, up_to[reach] - up_to[jnp.clip(distance, 0, reach)], 0.0)
    norm = jnp.sqrt(jnp.sum(value**2))
    return value / jnp.where(norm > 0, norm, 1.0)


def _two_bumps(
    rng_key: jax.Array,
    corner: jax.Array,
    sides: tuple[jax.Array, jax.Array],
    shape: tuple[int, ...],
) -> jax.Array:
    """Return two opposite bumps in a window, side by side or one above the other, [H, W]."""
    rows = jnp.arange(shape[0])[:, None] - corner[0]
    columns = jnp.arange(shape[1])[None, :] - corner[1]

    def stacked(a: jax.Array, b: jax.Array, long: jax.Array, wide: jax.Array) -> jax.Array:
        half = long // 2
        return _bump(a, b, half, wide) - _bump(a - half, b, long - half, wide)

    upright = stacked(rows, columns, *sides)
    lying = stacked(columns.T, rows.T, *sides[::-1]).T
    both = jnp.where(jax.random.bernoulli(rng_key, jnp.float32(0.5)), upright, lying)
    norm = jnp.sqrt(jnp.sum(both**2))
    return both / jnp.where(norm > 0, norm, 1.0)


def _grid(rng_key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Return bumps on a grid of five by five windows, of unit norm."""
    counts = [min(5, size) for size in shape[:2]]
    sides = tuple(jnp.asarray(size // count) for size, count in zip(shape, counts, strict=False))
    corners = jnp.stack(
        jnp.meshgrid(*(jnp.arange(n) * s for n, s in zip(counts, sides, strict=True))), axis=-1
    ).reshape(-1, 2)

    def one(index: jax.Array, corner: jax.Array) -> jax.Array:
        bump_key, sign_key = jax.random.split(jax.random.fold_in(rng_key, index))
        bumps = _two_bumps(bump_key, corner, sides, shape)  # type: ignore[arg-type]
        return bumps[..., None] * _signs(sign_key, (1, 1, shape[2]))

    total = jax.vmap(one)(jnp.arange(len(corners)), corners).sum(axis=0)
    norm = jnp.sqrt(jnp.sum(total**2))
    return total / jnp.where(norm > 0, norm, 1.0)


def _move_budget(
    rng_key: jax.Array, best: jax.Array, clean: jax.Array, threat: Threat, share: jax.Array
) -> jax.Array:
    first_key, second_key, bump_key, sign_key = jax.random.split(rng_key, 4)
    shape, delta = best.shape, best - clean
    sides = _sides(share, shape, least=3)
    corner = _corner(first_key, sides, shape)
    window = _window(corner, sides, shape)
    other = _window(_corner(second_key, sides, shape), sides, shape)
    used = jnp.sum(jnp.where(window | other, delta, 0.0) ** 2)
    spare = jnp.maximum(threat.epsilon**2 - jnp.sum(delta**2), 0.0)
    bumps = _two_bumps(bump_key, corner, sides, shape)[..., None]
    old = jnp.where(window, delta, 0.0)
    old_norm = jnp.sqrt(jnp.sum(old**2, axis=(0, 1), keepdims=True))
    new = bumps * _signs(sign_key, (1, 1, shape[2])) + old / jnp.maximum(old_norm, 1e-12)
    norm = jnp.sqrt(jnp.sum(new**2))
    new = new * jnp.sqrt(used + spare) / jnp.where(norm > 0, norm, 1.0)
    return clean + jnp.where(window, new, jnp.where(other, 0.0, delta))
