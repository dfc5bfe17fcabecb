r"""The referee's bounds of one draw on the balls of B inputs: intervals, and lines pulled back.

CROWN (Zhang et al. 2018, arXiv 1811.00866): a row ``q e`` of an affine function of atoms takes, of
each atom, the line below where its coefficient is positive and the line above where it is negative,
from the last activation to the first, until it is affine in the input.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bnn_adv.certification.referee_balls import Ball, minimise_roughly
from bnn_adv.certification.referee_linear import Expression
from bnn_adv.certification.referee_lines import ACTIVATIONS, Lines, enclose
from bnn_adv.certification.referee_network import Network

_U64, _U32 = 2.0**-53, 2.0**-24
_MOST_NUMBERS = 1 << 22
"""Coefficients of several rows and inputs that are in memory at once."""

Array = np.ndarray


class Range(NamedTuple):
    """What an array may be on the balls, [B, n] each.

    lower: Smallest values.
    upper: Largest values.
    error: How far float32 may be off.
    paths: Sum over all paths of absolute coefficients times magnitudes: float64's errors are
      ``count roundings * 2^-53`` of that.
    """

    lower: Array
    upper: Array
    error: Array
    paths: Array

    @property
    def size(self) -> Array:
        """Largest absolute values."""
        found: Array = np.maximum(np.abs(self.lower), np.abs(self.upper))
        return found


class Bounds(NamedTuple):
    """What is known of a network on balls.

    inputs: Ranges of what activations are applied to, in order.
    lines: Lines of the activations, [B, 1, n] each.
    logits: Range of the logits.
    factor: Relative error of what is pulled back, in units of ``paths``.
    atoms: Ranges of the input and of what activations make.
    """

    inputs: list[Range]
    lines: list[Lines]
    logits: Range
    factor: float
    atoms: list[Range]


def bound(network: Network, ball: Ball, *, is_linear: bool, most_rows: int) -> Bounds:
    """Bound every layer of a network.

    Args:
      network: The network with one draw's weights.
      ball: What B inputs may become.
      is_linear: Whether lines are pulled back for hidden layers too.
      most_rows: Elements of a layer up to which they are.
    """
    lower, upper = ball.x + ball.low, ball.x + ball.high
    far = np.maximum(np.abs(lower), np.abs(upper))
    atoms = [Range(lower, upper, np.zeros_like(lower), far)]
    inputs: list[Range] = []
    lines: list[Lines] = []
    parts = [*(node.expression for node in network.nodes), network.logits]
    factor = 4 * _U64 * (ball.x.shape[1] + sum(_count(e) for e in parts))
    for node in network.nodes:
        own = atoms[node.twin] if node.twin else _interval(node.expression, atoms)
        if is_linear and not node.twin and len(node.expression.constant) <= most_rows:
            own = _tighten(network, lines, node.expression, own, ball, factor)
        if node.pair is not None:
            own = _cut(own, *(_interval(e, atoms) for e in node.pair))
        around = enclose(node.kind, own.lower, own.upper)
        inputs.append(own)
        lines.append(Lines(*(part[:, None] for part in around)))
        atoms.append(_activate(node.kind, own, around))
    return Bounds(inputs, lines, _interval(network.logits, atoms), factor, atoms)


def _count(e: Expression) -> int:
    return e.terms + len(e.constant) + sum(int(m.shape[1]) for m in e.matrices.values()) + 64


def _gamma(terms: int, unit: float) -> float:
    return 1.01 * terms * unit / (1 - terms * unit)


def _interval(e: Expression, atoms: list[Range]) -> Range:
    count = len(atoms[0].lower)

    def total(of_atom: Any, matrices: Any, constant: Array | float) -> Array:
        found = np.broadcast_to(constant, (count, len(e.constant))).astype(np.float64)
        for a, m in matrices.items():
            found = found + (m @ of_atom(atoms[a]).T).T
        return found

    centre = total(lambda r: (r.lower + r.upper) / 2, e.matrices, e.constant)
    # Step by step, as intervals go through a network: what cancels later widens them.
    radius = total(lambda r: (r.upper - r.lower) / 2, e.sizes, 0.0)
    size = total(lambda r: r.size + r.error, e.sizes, e.constant_size)
    wide = radius + 4 * _U64 * _count(e) * size
    error = total(lambda r: r.error, e.sizes, 0.0) * 1.0001
    # Whatever underflows is far below this.
    error = error + _gamma(e.terms, _U32) * size + e.terms * 2.0**-100
    paths = total(lambda r: r.paths, e.sizes, e.constant_size)
    return Range(centre - wide, centre + wide, error, paths)


def _cut(own: Range, first: Range, second: Range) -> Range:
    """Return the range of a maximum, which lies between those of what it is of and errs no more."""
    lower = np.maximum(own.lower, np.maximum(first.lower, second.lower))
    upper = np.minimum(own.upper, np.maximum(first.upper, second.upper))
    error = np.minimum(own.error, np.maximum(first.error, second.error))
    return own._replace(lower=lower, upper=np.maximum(lower, upper), error=error)


def _activate(kind: str, own: Range, lines: Lines) -> Range:
    activation = ACTIVATIONS[kind]
    lower, upper = activation.fn(own.lower), activation.fn(own.upper)
    size = np.maximum(np.abs(lower), np.abs(upper))
    wide = 8 * 2.0**-52 * size if activation.rounding else np.zeros_like(size)
    steepest = activation.steepest(own.lower - own.error, own.upper + own.error)
    error = steepest * own.error + activation.rounding * _U32 * (size + 1e-30)
    slope = np.maximum(np.maximum(np.abs(lines.lower_slope), np.abs(lines.upper_slope)), steepest)
    offset = np.maximum(np.abs(lines.lower_offset), np.abs(lines.upper_offset))
    # Whatever lines are taken later.
    offset = np.maximum(offset, size + slope * own.size)
    return Range(lower - wide, upper + wide, error, slope * own.paths + offset + size)


def _tighten(
    network: Network, lines: list[Lines], e: Expression, own: Range, ball: Ball, factor: float
) -> Range:
    count = len(e.constant)
    widest = max(
        [ball.x.shape[1], count, *(len(node.expression.constant) for node in network.nodes)]
    )
    step = max(1, _MOST_NUMBERS // (len(ball.x) * widest))
    slack = factor * own.paths
    ends = []
    for sign in (1.0, -1.0):
        found = []
        for start in range(0, count, step):
            rows = sign * np.eye(min(step, count - start), count, start)[None]
            a, offset = pull(network, lines, e, rows)
            at_x = np.einsum("brd,bd->br", np.broadcast_to(a, (len(ball.x), *a.shape[1:])), ball.x)
            found.append(minimise_roughly(ball, a) + at_x + offset)
        ends.append(np.concatenate(found, axis=1) - slack)
    lower, upper = np.maximum(own.lower, ends[0]), np.minimum(own.upper, -ends[1])
    return own._replace(lower=lower, upper=np.maximum(lower, upper))


def pull(network: Network, lines: list[Lines], e: Expression, rows: Array) -> tuple[Array, Array]:
    """Return rows of an expression, bounded from below, as affine functions of the input.

    Args:
      network: The network.
      lines: Of the activations before the expression, [B, 1 or R, n] each.
      e: The expression.
      rows: Coefficients, [B or 1, R, n].

    Returns:
      Coefficients, [B or 1, R, d], and offsets, [B or 1, R].
    """
    coefficients: dict[int, Array] = {}
    offset = np.zeros(rows.shape[:2])

    def add(weights: Array, own: Expression) -> Array:
        for a, m in own.matrices.items():
            flat = weights.reshape(-1, weights.shape[-1]) @ m
            value = np.asarray(flat).reshape(*weights.shape[:2], m.shape[1])
            coefficients[a] = coefficients[a] + value if a in coefficients else value
        moved: Array = weights @ own.constant
        return moved

    offset = offset + add(rows, e)
    for number in range(len(lines), 0, -1):
        own = coefficients.pop(number, None)
        if own is None:
            continue
        around = lines[number - 1]
        positive, negative = np.maximum(own, 0.0), np.minimum(own, 0.0)
        weights = positive * around.lower_slope + negative * around.upper_slope
        moved = positive * around.lower_offset + negative * around.upper_offset
        offset = offset + moved.sum(axis=2) + add(weights, network.nodes[number - 1].expression)
    zero = np.zeros((*rows.shape[:2], network_inputs(network)))
    return coefficients.get(0, zero), offset


def minimise_merged(network: Network, bounds: Bounds, rows: Array) -> Array:
    """Return the smallest value of rows of the logits with all atoms in their intervals, [B, R].

    Args:
      network: The network.
      bounds: Of its atoms.
      rows: Coefficients, [B or 1, R, C].
    """
    e = network.logits
    found = rows @ e.constant
    for a, m in e.matrices.items():
        own = np.asarray(rows.reshape(-1, rows.shape[-1]) @ m).reshape(*rows.shape[:2], -1)
        lower, upper = (end[:, None] for end in (bounds.atoms[a].lower, bounds.atoms[a].upper))
        with np.errstate(invalid="ignore"):
            smallest = np.where(own > 0, own * lower, own * upper)
        found = found + np.where(own == 0, 0.0, smallest).sum(axis=2)
    merged: Array = found - bounds.factor * (np.abs(rows) * bounds.logits.paths[:, None]).sum(
        axis=2
    )
    return merged


def network_inputs(network: Network) -> int:
    """Return the number of values of one input, d."""
    parts = [*(node.expression for node in network.nodes), network.logits]
    return next(int(e.matrices[0].shape[1]) for e in parts if 0 in e.matrices)


def lines_at(network: Network, bounds: Bounds, points: Array) -> list[Lines]:
    """Return lines that are tight where the network is at certain inputs, [B, R, d].

    Returns:
      Lines of every activation, [B, R, n] each.
    """
    atoms, found = [points], []
    for node, own in zip(network.nodes, bounds.inputs, strict=True):
        at = _value(node.expression, atoms)
        found.append(enclose(node.kind, own.lower[:, None], own.upper[:, None], at))
        atoms.append(ACTIVATIONS[node.kind].fn(at))
    return found


def logits_at(network: Network, points: Array) -> Array:
    """Return the logits, [B, R, C], at certain inputs, [B, R, d]."""
    atoms = [points]
    for node in network.nodes:
        atoms.append(ACTIVATIONS[node.kind].fn(_value(node.expression, atoms)))
    return _value(network.logits, atoms)


def _value(e: Expression, atoms: list[Array]) -> Array:
    found = np.broadcast_to(e.constant, (*atoms[0].shape[:2], len(e.constant)))
    for a, m in e.matrices.items():
        flat = atoms[a].reshape(-1, m.shape[1])
        found = found + np.asarray((m @ flat.T).T).reshape(found.shape)
    return found
