"""Labelled samples of manifolds whose tangent spaces are known in closed form.

Carbone et al. (2020), sections 9 and 10 of the supplement, speak of the gradient along and across
the data manifold. Here both are known: curves and surfaces of R^2 or R^3, embedded isometrically
in R^d by a random orthonormal frame, and tubes around them, whose dimension is full.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from bnn_adv.compute.settings import SettingError, Settings, setting

_SINE_STEEPNESS = math.sqrt(1 + (0.2 * math.pi) ** 2)
"""Length of the gradient of the square's phase, at most, where x has slope 2 in it."""

_GRID = 400
"""Parameters on which the distance between classes is measured."""


class Manifold(NamedTuple):
    """N labelled points of a k-dimensional manifold in R^d, with their tangent spaces.

    x: Points, float32 [N, d], in natural units (half circles have radius 1), centred.
    y: Labels, int32 [N].
    tangent: Orthonormal basis of every tangent space, float32 [N, d, k].
    normal: Orthonormal basis of its complement, float32 [N, d, d - k].
    interior: Radius of a ball of R^d around the point that lies in the support and holds one
      class, float32 [N]; a lower bound, and zero where k < d.
    """

    x: np.ndarray
    y: np.ndarray
    tangent: np.ndarray
    normal: np.ndarray
    interior: np.ndarray

    @property
    def codimension(self) -> int:
        """Number of normal directions, d - k."""
        found: int = self.normal.shape[-1]
        return found


class _Base(NamedTuple):
    """Points, tangents and balls before the embedding; see ``Manifold``."""

    x: np.ndarray
    tangent: np.ndarray
    interior: np.ndarray


def _columns(*values: np.ndarray) -> np.ndarray:
    return np.stack(values, axis=-1)


def _circle(phase: np.ndarray, across: np.ndarray) -> _Base:
    """The unit circle; the phase is the angle in turns."""
    angle = 2 * np.pi * phase
    tangent = _columns(-np.sin(angle), np.cos(angle))[..., None]
    return _Base(_columns(np.cos(angle), np.sin(angle)), tangent, np.zeros_like(phase))


def _s_curve(phase: np.ndarray, across: np.ndarray) -> _Base:
    """Three quarters of two unit circles that touch: an S of length 3 pi."""
    angle = 3 * np.pi * (phase - 0.5)
    side = np.where(angle < 0, -1.0, 1.0)
    tangent = _columns(np.cos(angle), -side * np.sin(angle))[..., None]
    return _Base(_columns(np.sin(angle), side * (np.cos(angle) - 1)), tangent, np.zeros_like(phase))


def _s_surface(phase: np.ndarray, across: np.ndarray) -> _Base:
    """The S drawn along a third axis, of width 2."""
    curve = _s_curve(phase, across)
    x = np.concatenate([curve.x, 2 * across[:, None] - 1], axis=-1)
    tangent = np.zeros((len(phase), 3, 2))
    tangent[:, :2, 0], tangent[:, 2, 1] = curve.tangent[..., 0], 1.0
    return _Base(x, tangent, np.zeros_like(phase))


def _half_moons(phase: np.ndarray, across: np.ndarray) -> _Base:
    """Two interleaved half circles of radius 1, centred; the first half of the phases is one."""
    is_lower = phase >= 0.5
    angle = np.pi * (2 * phase - is_lower)
    flip = np.where(is_lower, -1.0, 1.0)
    x = _columns(np.cos(angle), np.sin(angle)) * flip[:, None]
    x = x + np.where(is_lower[:, None], [0.5, 0.25], [-0.5, -0.25])
    tangent = (_columns(-np.sin(angle), np.cos(angle)) * flip[:, None])[..., None]
    return _Base(x, tangent, np.zeros_like(phase))


class _Shape(NamedTuple):
    """A family: its map from parameters, the dimension it needs, and where it is cut.

    make: ``(phase [N] in [0, 1), across [N] in [0, 1)) -> _Base``.
    dim: Dimension of the space that it is drawn in.
    cuts: Phases at which the curve has a free end; none for a closed curve.
    """

    make: Callable[[np.ndarray, np.ndarray], _Base]
    dim: int
    cuts: tuple[float, ...]


_CURVES: Mapping[str, _Shape] = {
    "circle": _Shape(_circle, 2, ()),
    "s_curve": _Shape(_s_curve, 2, (0.0, 1.0)),
    "s_surface": _Shape(_s_surface, 3, (0.0, 1.0)),
    "half_moons": _Shape(_half_moons, 2, (0.0, 0.5, 1.0)),
}

MANIFOLDS = ("square", *_CURVES)
"""Names that ``sample_manifold`` knows."""


@dataclasses.dataclass(frozen=True)
class Description(Settings):
    """Which manifold.

    Args:
      name: ``"square"`` ([-1, 1]^2), ``"circle"``, ``"s_curve"``, ``"half_moons"`` (curves) or
        ``"s_surface"``.
      dim: Dimension d of the space that it is embedded in.
      thickness: Radius of the tube around it, in the units of x; zero is the manifold itself.
        A tube has full dimension: its tangent space is all of R^d.
      num_classes: Number of labels, which divide the phase (position along the curve, or height
        above a sine in the square) into equal parts.
      gap: Half-width of the phases left out on both sides of where two classes meet.
      frame_seed: Seed of the orthonormal frame of the embedding; None, or a ``dim`` that leaves
        no choice of subspace, takes the first axes.
    """

    name: str = setting(dataclasses.MISSING, choices=MANIFOLDS)
    dim: int = setting(2, least=2)
    thickness: float = setting(0.0, least=0)
    num_classes: int = setting(2, least=1)
    gap: float = setting(0.05, least=0)
    frame_seed: int | None = setting(0, least=0)

    def __post_init__(self) -> None:
        """Check every field, and that dimension, classes, gap and thickness fit each other."""
        super().__post_init__()
        if self.dim < (least := _drawn_in(self.name)):
            raise SettingError("dim", f"must be at least {least} for {self.name}, got {self.dim}.")
        if self.gap >= (most := 0.5 / self.num_classes):
            problem = f"must be below {most:.3g} for {self.num_classes} classes, got {self.gap}."
            raise SettingError("gap", problem)
        if not self.thickness:
            return
        most = separation(dataclasses.replace(self, thickness=0.0)) / 2
        if self.thickness > most:
            raise SettingError(
                "thickness",
                f"must be at most {most:.3g}, half the distance between the classes of "
                f"{self.name} with gap {self.gap}, got {self.thickness}.",
            )


def sample_manifold(description: Description, num_points: int, *, seed: int = 0) -> Manifold:
    """Draw points uniformly from the manifold, and for a tube uniform shifts in a ball.

    Points of one description and different seeds lie on the very same manifold.

    Args:
      description: Which manifold.
      num_points: N, at least 1.
      seed: Seed of the points.

    Returns:
      N points with tangent and normal spaces; labels from 0 to ``num_classes`` - 1.

    Raises:
      ValueError: ``num_points`` is below 1.
    """
    if num_points < 1:
        raise ValueError(f"num_points must be at least 1, got {num_points}.")
    rng = np.random.default_rng(seed)
    if description.name == "square":
        label, base = _draw_square(rng, description, num_points)
    else:
        label, phase = _draw_phases(rng, description, num_points)
        base = _CURVES[description.name].make(phase, rng.uniform(size=num_points))
    frame = embedding_frame(description)
    x, tangent, interior = base.x @ frame.T, frame @ base.tangent, base.interior
    if description.thickness:
        shift = _uniform_ball(rng, num_points, description.dim)
        x = x + description.thickness * shift
        tangent = np.broadcast_to(np.eye(description.dim), (num_points, *[description.dim] * 2))
        interior = description.thickness * (1 - np.linalg.norm(shift, axis=-1))
    elif tangent.shape[-1] < description.dim:
        interior = np.zeros(num_points)
    rank = tangent.shape[-1]
    normal = np.linalg.qr(tangent, mode="complete").Q[..., rank:]
    arrays = (array.astype(np.float32) for array in (x, tangent, normal, interior))
    x, tangent, normal, interior = arrays
    return Manifold(x, label.astype(np.int32), tangent, normal, interior)


def embedding_frame(description: Description) -> np.ndarray:
    """Return the orthonormal frame of the embedding, [d, m] with m = 2 or 3 (``s_surface``).

    The manifold without thickness lies in its span, a subspace through the origin.
    """
    size = _drawn_in(description.name)
    if description.frame_seed is None or description.dim == size:
        return np.eye(description.dim, size)
    noise = np.random.default_rng(description.frame_seed).standard_normal((description.dim, size))
    return np.linalg.qr(noise).Q


def _drawn_in(name: str) -> int:
    return _CURVES[name].dim if name in _CURVES else 2


def _draw_phases(
    rng: np.random.Generator, description: Description, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels [N] and phases [N], uniform over what the gaps leave of each class."""
    lows, highs = _class_phases(description)
    label = rng.integers(description.num_classes, size=count)
    return label, rng.uniform(lows[label], highs[label])


def _class_phases(description: Description) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last phase of every class."""
    count = description.num_classes
    lows, highs = np.arange(count) / count, np.arange(1, count + 1) / count
    # A single class meets no other, not even on a closed curve.
    cuts = np.asarray((0.0, 1.0) if count == 1 else _CURVES[description.name].cuts)

    def is_cut(ends: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.isclose(ends[:, None], cuts).any(axis=1)
        return found

    # At the free end of a curve no other class begins.
    lows = lows + np.where(is_cut(lows), 0.0, description.gap)
    highs = highs - np.where(is_cut(highs), 0.0, description.gap)
    return lows, highs


def _draw_square(
    rng: np.random.Generator, description: Description, count: int
) -> tuple[np.ndarray, _Base]:
    """Draw from [-1, 1]^2 without the gaps; classes are bands between parallel sines.

    With u, v in [0, 1) the two coordinates, the phase is ``v - 0.1 sin(2 pi u)``.
    """
    classes, gap = description.num_classes, description.gap
    ends = np.arange(1, classes) / classes
    kept: list[np.ndarray] = []
    while sum(map(len, kept)) < count:
        units = rng.uniform(size=(2 * count, 2))
        away = np.abs(_square_phase(units)[:, None] - ends)
        kept.append(units[np.all(away >= gap, axis=1)])
    units = np.concatenate(kept)[:count]
    phase = _square_phase(units)
    label = (phase[:, None] >= ends).sum(axis=1)
    x = 2 * units - 1
    # The slope of the sines bounds the distance from a gap's edge from below.
    away = 2 * (np.abs(phase[:, None] - ends) - gap) / _SINE_STEEPNESS
    interior = np.min(np.concatenate([1 - np.abs(x), away], axis=1), axis=1)
    return label, _Base(x, np.broadcast_to(np.eye(2), (count, 2, 2)), interior)


def _square_phase(units: np.ndarray) -> np.ndarray:
    return units[:, 1] - 0.1 * np.sin(2 * np.pi * units[:, 0])


def _uniform_ball(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    direction = rng.standard_normal((count, dim))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    return direction * rng.uniform(size=(count, 1)) ** (1 / dim)


@functools.cache
def separation(description: Description) -> float:
    """Return the smallest distance between points of different classes; infinite for one class."""
    if description.num_classes == 1:
        return math.inf
    if description.name == "square":
        return 4 * description.gap / _SINE_STEEPNESS
    lows, highs = _class_phases(description)
    steps = np.linspace(0, 1, _GRID, endpoint=False)
    make = _CURVES[description.name].make
    classes = [
        make(low + (high - low) * steps, np.zeros(_GRID)).x
        for low, high in zip(lows, highs, strict=True)
    ]
    return min(
        float(np.linalg.norm(a[:, None] - b, axis=-1).min())
        for i, a in enumerate(classes)
        for b in classes[:i]
    )
