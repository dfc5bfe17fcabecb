r"""The true robustness of a classifier of the plane, by looking everywhere.

With two inputs the ball of an attacker can be searched: the posterior predictive is evaluated on a
dense grid of the box of valid inputs, and the distance of an input to the nearest grid point of
another class,

    d(x, y) = min { ||g - x||  :  g on the grid, argmax_k pbar_k(g) != y },

answers the question for every radius. A grid point within the radius is a proof that the input is
not robust. None within the radius plus the reach of a cell leaves no room for an adversarial region
wider than a cell; between the two the grid does not decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks.threat import THREATS
from bnn_adv.compute import parallel
from bnn_adv.posteriors.decision import predicted_class
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs

_ROWS_AT_ONCE = 16


class Plane(NamedTuple):
    """The predicted class at every point of a grid that covers the box, walls included.

    ticks: Values of either coordinate, float32 [G], rising from the box's lower end to its upper.
    classes: ``decision.predicted_class`` at ``(ticks[i], ticks[j])``, int32 [G, G].
    """

    ticks: np.ndarray
    classes: np.ndarray

    @property
    def cell(self) -> float:
        """Distance between neighbours along one coordinate."""
        return float(self.ticks[-1] - self.ticks[0]) / (len(self.ticks) - 1)


class Search(NamedTuple):
    """What the grid says about N inputs in one norm.

    distance: To the nearest grid point that is not of the label's class, float64 [N]; 0 where the
      input itself is misclassified, infinite where the whole grid has the label's class.
    witness: That point, float32 [N, 2]; the input itself where it is misclassified, NaN where
      there is none.
    reach: Diameter of a cell. Every ball of this diameter in the box holds a grid point, so that a
      misclassified point on the rim of such a ball, all misclassified, has a misclassified grid
      point this near.
    """

    distance: np.ndarray
    witness: np.ndarray
    reach: float

    def robust(self, epsilon: float) -> np.ndarray:
        """Return which inputs have no misclassified grid point within the radius, [N]."""
        return self.distance > epsilon

    def undecided(self, epsilon: float) -> np.ndarray:
        """Return which inputs could still be broken between grid points, [N]."""
        return self.robust(epsilon) & (self.distance <= epsilon + self.reach)


class Comparison(NamedTuple):
    """Count N inputs by what an attack left standing and what the grid knows.

    accuracy: Share that the attack left standing, in [0, 1].
    truth: Share without a misclassified grid point within the radius, in [0, 1].
    undecided: Inputs of those that could still be broken between grid points.
    missed: Inputs that the attack left standing though the grid has a misclassified point.
    between: Inputs that the attack broke between grid points, as the cell's size allows.
    unexplained: Inputs that the attack broke further from any misclassified grid point than a
      cell reaches: a region smaller than a cell, or an attack that left its ball.
    """

    accuracy: float
    truth: float
    undecided: int
    missed: int
    between: int
    unexplained: int


def classify_plane(
    posterior: Posterior,
    num_ticks: int,
    *,
    lower: float = 0.0,
    upper: float = 1.0,
    batch_size: int = 256,
    sample_chunk: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Plane:
    """Evaluate the posterior predictive on a grid of the box, ``[lower, upper]^2``.

    Args:
      posterior: S draws of networks with two inputs.
      num_ticks: Points along each coordinate, G >= 2; the cost grows with its square.
      lower: Smallest valid input value.
      upper: Largest valid input value.
      batch_size: Grid points at once.
      sample_chunk: Draws at once; None chooses from the size of the network.
      progress: Called with (grid points done, grid points in all).

    Raises:
      ValueError: Fewer than two ticks, or an empty box.
    """
    if num_ticks < 2:
        raise ValueError(f"A grid needs num_ticks of at least 2, got {num_ticks}.")
    if not lower < upper:
        raise ValueError(f"The box [{lower}, {upper}] is empty: give lower < upper.")
    ticks = np.linspace(lower, upper, num_ticks).astype(np.float32)
    rows = min(_ROWS_AT_ONCE, num_ticks)
    classes = np.empty((num_ticks, num_ticks), np.int32)
    for first in range(0, num_ticks, rows):
        # The last rows overlap those before, so that only one shape compiles.
        start = min(first, num_ticks - rows)
        pairs = np.meshgrid(ticks[start : start + rows], ticks, indexing="ij")
        points = jnp.asarray(np.stack(pairs, axis=-1).reshape(-1, 2))
        log_probs = predict_log_probs(
            posterior, points, sample_chunk=sample_chunk, batch_size=batch_size
        )
        found = predicted_class(parallel.to_host(log_probs))
        classes[start : start + rows] = found.reshape(rows, num_ticks)
        if progress is not None:
            progress((start + rows) * num_ticks, num_ticks**2)
    return Plane(ticks, classes)


def search(plane: Plane, x: Any, y: Any, predicted: Any, *, norm: str) -> Search:
    """Return the distance of every input to the nearest misclassified grid point.

    Args:
      plane: The grid.
      x: Inputs in the box, [N, 2].
      y: Labels, [N].
      predicted: Classes that the same posterior predicts at the inputs themselves, [N].
      norm: ``"linf"``, ``"l2"`` or ``"l1"``.

    Raises:
      ValueError: Inputs are not points of the plane, or lie outside the box; unknown norm.
    """
    x, y, predicted = np.asarray(x, np.float64), np.asarray(y), np.asarray(predicted)
    _check(plane, x, norm)
    distance = np.full(len(x), np.inf)
    witness = np.full((len(x), 2), np.nan, np.float32)
    # One pass a label: which grid points are wrong depends on nothing else of an input.
    for label in np.unique(y):
        wrong = np.argwhere(plane.classes != label)
        points = plane.ticks[wrong].astype(np.float64)
        for index in np.flatnonzero(y == label) if len(points) else ():
            gaps = _norms(points - x[index], norm)
            nearest = gaps.argmin()
            distance[index], witness[index] = gaps[nearest], points[nearest]
    is_wrong = predicted != y
    distance[is_wrong], witness[is_wrong] = 0.0, x[is_wrong]
    diagonal = np.full((1, 2), plane.cell)
    return Search(distance, witness, float(_norms(diagonal, norm)[0]))


def compare(found: Search, standing: Any, epsilon: float) -> Comparison:
    """An attack against the grid.

    Args:
      found: From ``search``, in the attack's norm.
      standing: Whether the attack left each input classified correctly, [N].
      epsilon: The attack's radius.
    """
    standing, robust = np.asarray(standing, bool), found.robust(epsilon)
    beyond = found.distance > epsilon + found.reach
    return Comparison(
        accuracy=float(standing.mean()),
        truth=float(robust.mean()),
        undecided=int(found.undecided(epsilon).sum()),
        missed=int(np.sum(standing & ~robust)),
        between=int(np.sum(~standing & robust & ~beyond)),
        unexplained=int(np.sum(~standing & beyond)),
    )


def _norms(gaps: np.ndarray, norm: str) -> np.ndarray:
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    return np.linalg.norm(gaps, ord=order, axis=1)


def _check(plane: Plane, x: np.ndarray, norm: str) -> None:
    if norm not in THREATS:
        raise ValueError(f"Unknown norm {norm!r}. Known: {', '.join(THREATS)}.")
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"The grid is of the plane: inputs must be [N, 2], got {list(x.shape)}.")
    low, high = float(plane.ticks[0]), float(plane.ticks[-1])
    if np.any(x < low) or np.any(x > high):
        raise ValueError(f"Inputs must lie in the grid's box [{low:g}, {high:g}].")
