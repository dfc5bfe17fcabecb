r"""The norm of the expected gradient, without the Monte Carlo part of the norm of a mean.

The mean of S independent gradients of expectation mu and covariance Sigma has

    E |mean|^2 = |mu|^2 + tr(Sigma) / S

so that its norm never falls faster than S^(-1/2), and falls like that for every posterior until it
comes to |mu|. Whether mu is zero is therefore asked of an estimate without the second term: inner
products of the means m_a of different groups of draws that are independent of one another. Of G
groups in independent chains, each of which has products with r groups of other chains,

    U = mean of m_a . m_b over the G r / 2 pairs,        E U = |mu|^2
    var U = 4 mu' Sigma_G mu / G + 2 tr(Sigma_G^2) / (G r)

with Sigma_G the covariance of a group's mean (Chen, Qin 2010, Annals of Statistics 38, 808-835, who
have r = G - 1: every group is independent of every other). The interval holds every
|mu|^2 that U does not contradict, as Wilson's holds shares: the variance is taken at |mu|^2 and not
at U, which is near zero, or below, where mu is zero.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from bnn_adv.theory.trend import CONFIDENCE, Interval

NUM_GROUPS = 20
"""Groups of draws, about: their spread is the error of the result."""


class Groups(NamedTuple):
    """Which draws are averaged together.

    of_draw: Group of every draw, in 0..G-1, int [S]. Groups of one chain follow one another.
    num_groups: G.
    num_chains: Independent chains in which the groups lie, a divisor of G; G where all draws are
      independent.
    """

    of_draw: np.ndarray
    num_groups: int
    num_chains: int


def group_draws(num_draws: int, num_chains: int | None = None) -> Groups:
    """Return groups of draws of which the means are independent, or nearly so.

    Args:
      num_draws: S.
      num_chains: Markov chains of equal length that follow one another among the draws; each is cut
        into blocks. None where draws are independent.

    Raises:
      ValueError: The draws cannot be those of so many chains.
    """
    if num_chains is None:
        num_chains = min(NUM_GROUPS, num_draws)
    elif num_chains < 1 or num_draws < 1 or num_draws % num_chains:
        raise ValueError(
            f"Draws of chains of equal length must be a multiple of the chains, got {num_draws} "
            f"draws and {num_chains} chains."
        )
    blocks = max(1, min(-(-NUM_GROUPS // num_chains), num_draws // num_chains))
    chains = np.array_split(np.arange(num_draws), num_chains)
    parts = [block for chain in chains for block in np.array_split(chain, blocks)]
    of_draw = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return Groups(of_draw, len(parts), num_chains)


def mean_products(products: np.ndarray, draw_l2: np.ndarray) -> np.ndarray:
    """Return products of the groups' means in units of a single gradient's mean square.

    Args:
      products: ``LossGradients.products``, [G, G, N].
      draw_l2: l_2 norm of every draw's gradient, [S, N].

    Returns:
      Mean over inputs, each divided by its own ``mean_s |g_s|^2``, [G, G]: all inputs count alike.
      Inputs where all gradients are zero, or one is not finite, are left out; NaN if none is left.
    """
    squares = np.mean(np.asarray(draw_l2, np.float64) ** 2, axis=0)
    kept = np.isfinite(squares) & (squares > 0) & np.isfinite(products).all(axis=(0, 1))
    if not kept.any():
        return np.full(products.shape[:2], np.nan)
    mean: np.ndarray = np.mean(products[..., kept] / squares[kept], axis=-1)
    return mean


def estimate_square(products: np.ndarray, num_chains: int) -> Interval:
    """Return |mu|^2 with a 95 % interval over draws, from products of groups' means.

    Args:
      products: m_a . m_b, [G, G]; groups of one chain follow one another.
      num_chains: Independent chains, a divisor of G. Products within a chain are not used.

    Returns:
      Estimate and interval in the products' units, not cut off at zero. NaN for one chain, which
      leaves no product; the interval is NaN for fewer than three groups.
    """
    products, size = np.asarray(products, np.float64), len(products)
    partners = size - size // num_chains if num_chains else 0
    if not partners or not np.isfinite(products).all():
        return Interval(np.nan, np.nan, np.nan)
    chain = np.arange(size) * num_chains // size
    square = float(products[chain[:, None] != chain].mean())
    if size < 3:
        return Interval(square, np.nan, np.nan)
    centred = products - products.mean(axis=0)
    centred = centred - centred.mean(axis=1, keepdims=True)
    degrees = size - 1
    # tr(Sigma^2) of Gaussian means, without bias: Srivastava 2005, J. Japan Statist. Soc. 35, 251.
    trace_square = np.sum((centred / degrees) ** 2) - np.trace(centred / degrees) ** 2 / degrees
    trace_square *= degrees**2 / ((degrees - 1) * (degrees + 2))
    # Variance of a group's mean along the mean of all: mu' Sigma mu / |mu|^2 where there is a mu.
    along = products.mean(axis=1) - products.mean()
    length = products.mean()
    variance = float(np.sum(along**2) / degrees / length) if length > 0 else 0.0
    quantile = float(special.stdtrit(degrees, 0.5 + CONFIDENCE / 2))
    return _invert(square, 4 * variance / size, 2 * trace_square / (size * partners), quantile)


def bound_square(square: float, num_draws: int) -> Interval:
    """Return |mu|^2 with the widest interval that S independent draws can have.

    For records without products of groups: of gradients with mean square 1, ``mu' Sigma mu`` is at
    most |mu|^2 and ``tr(Sigma^2)`` at most 1, also where the gradients of all inputs move together.

    Args:
      square: Mean of g_s . g_t over s != t, in units of the mean square of a gradient.
      num_draws: S, at least 2.
    """
    quantile = float(special.ndtri(0.5 + CONFIDENCE / 2))
    return _invert(square, 4 / num_draws, 2 / (num_draws * (num_draws - 1)), quantile)


def _invert(square: float, slope: float, least: float, quantile: float) -> Interval:
    """Return all t with ``(square - t)^2 <= quantile^2 (slope max(t, 0) + least)``."""
    at_zero, half = quantile * math.sqrt(max(least, 0.0)), quantile**2 * slope / 2
    inside = half**2 + 2 * half * square + at_zero**2
    root = math.sqrt(max(inside, 0.0))
    low = square - at_zero if square <= at_zero else square + half - root
    # An estimate so far below zero that no t of at least zero explains it.
    is_below = inside < 0 or square + half + root < 0
    return Interval(square, low, square + at_zero if is_below else square + half + root)
