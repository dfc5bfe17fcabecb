"""Ground truth for robustness: closed forms for linear models, dense grids in the plane."""

import numpy as np

from bnn_adv.attacks.threat import L1, LInf


def largest_rise(w, x, threat):
    """Return ``max w . (x' - x)`` over ball and box: closed form, l_2 by bisection.

    Args:
      w: Direction, [d].
      x: Point of the unit box, [d].
      threat: Norm and radius.
    """
    room, size = np.where(w > 0, 1 - x, x), np.abs(w)
    if isinstance(threat, LInf):
        return np.sum(size * np.minimum(threat.epsilon, room))
    if isinstance(threat, L1):
        left, rise = threat.epsilon, 0.0
        for index in np.argsort(-size):
            step = min(left, room[index])
            rise, left = rise + size[index] * step, left - step
        return rise
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        inside = np.linalg.norm(np.minimum(middle * size, room)) <= threat.epsilon
        low, high = (middle, high) if inside else (low, middle)
    return np.sum(size * np.minimum(low * size, room))


def linear_is_robust(weights, biases, x, y, threat):
    """Return for each input whether no point of ball and box changes a linear model's class.

    Args:
      weights: [d, C].
      biases: [C].
      x: [N, d].
      y: [N].
      threat: Norm and radius.

    Returns:
      The smallest worst-case margin of the label against any other class, [N]: positive is robust.
    """
    margins = []
    for row, label in zip(x, y, strict=True):
        others = [k for k in range(weights.shape[1]) if k != label]
        margins.append(
            min(
                (weights[:, label] - weights[:, k]) @ row
                + biases[label]
                - biases[k]
                - largest_rise(weights[:, k] - weights[:, label], row, threat)
                for k in others
            )
        )
    return np.array(margins)


def grid(cells):
    """Return the centres of ``cells`` by ``cells`` squares of the unit square, [cells^2, 2]."""
    ticks = (np.arange(cells) + 0.5) / cells
    return np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)


def nearest_wrong(points, classes, x, y, norm):
    """Return every input's distance to the nearest grid point of another class, [N].

    Args:
      points: Of the grid, [G, 2].
      classes: Predicted there, [G].
      x: Inputs, [N, 2].
      y: Labels, [N].
      norm: ``"linf"``, ``"l2"`` or ``"l1"``.
    """
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    distances = []
    for row, label in zip(x, y, strict=True):
        wrong = points[classes != label]
        gaps = np.linalg.norm(wrong - row, ord=order, axis=1)
        distances.append(gaps.min() if len(wrong) else np.inf)
    return np.array(distances)
