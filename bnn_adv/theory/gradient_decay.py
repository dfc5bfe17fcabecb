r"""Numbers that say how gradients of many draws cancel in their mean, with intervals.

For independent gradients g_s of zero mean the norm of the mean of S falls as S^(-1/2), whatever the
posterior. Where their expectation is not zero it falls more slowly, towards a floor. In expectation
nothing falls faster, so that the exponent describes a figure and tells nothing of the posterior but
that floor. Its height, and whether it is above zero, is the subject of ``expected_norm``.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import numpy as np

from bnn_adv.theory.expected_norm import estimate_square, mean_products
from bnn_adv.theory.gradients import LossGradients

MONTE_CARLO = -0.5
"""Exponent of the norm of a mean of S independent terms of zero mean."""


class Estimate(NamedTuple):
    """A number with its bootstrap interval; NaN where it is not defined.

    value: The number.
    low: Lower end of the interval.
    high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


class Cancellation(NamedTuple):
    """How the first S draws' gradients cancel, one number an input, each [N].

    ratio: ``||mean_s g_s||_2 / mean_s ||g_s||_2``, in [0, 1]: 1 where all gradients are equal, 0
      where they cancel; NaN where every gradient is zero.
    chance: The ratio that gradients of these norms have where they are orthogonal, as independent
      ones of zero mean nearly are in many dimensions: ``sqrt(sum_s ||g_s||^2) / sum_s ||g_s||``,
      S^(-1/2) where the norms are equal.
    """

    ratio: np.ndarray
    chance: np.ndarray


def cancellation(gradients: LossGradients, index: int = -1) -> Cancellation:
    """Return how gradients cancel over the first ``counts[index]`` draws as stored.

    Args:
      gradients: From ``expected_loss_gradients``.
      index: Which of the counts.
    """
    size = int(gradients.counts[index])
    each = gradients.draw_l2[:size].astype(np.float64)
    mean = gradients.mean_l2[0, index].astype(np.float64)
    # By the largest norm of an input, for squares of small float32 norms vanish.
    largest = each.max(axis=0)
    safe = np.where(np.isfinite(largest) & (largest > 0), largest, np.nan)
    each, mean = each / safe, mean / safe
    total, squares = each.sum(axis=0), (each**2).sum(axis=0)
    return Cancellation(mean / (total / size), np.sqrt(squares) / total)


def zero_share(gradients: LossGradients) -> np.ndarray:
    """Return the share of draws whose gradient is exactly zero in float32, per input, [N].

    NaN where a draw's gradient is not finite.
    """
    is_zero = np.where(np.isfinite(gradients.draw_linf), gradients.draw_linf == 0, np.nan)
    found: np.ndarray = is_zero.mean(axis=0)
    return found


def estimate_mean(
    rng_key: jax.Array, values: np.ndarray, *, num_resamples: int = 1000, confidence: float = 0.95
) -> Estimate:
    """Return the mean over inputs with a percentile bootstrap interval over inputs.

    Inputs at which the value is not finite are left out.

    Args:
      rng_key: Typed key of the resamples.
      values: One number an input, [N].
      num_resamples: Resamples of the inputs.
      confidence: Coverage of the interval, in (0, 1).
    """
    kept = values[np.isfinite(values)].astype(np.float64)
    if not len(kept):
        return Estimate(np.nan, np.nan, np.nan)
    rows = _generator(rng_key).integers(len(kept), size=(num_resamples, len(kept)))
    return _estimate(float(kept.mean()), kept[rows].mean(axis=1), confidence)


def typical_norm(norms: np.ndarray, statistic: str = "median") -> np.ndarray:
    """Return one norm for all inputs: the geometric mean over orders of ``statistic`` over inputs.

    Args:
      norms: [R, K, N], see ``LossGradients``; what is not finite is left out.
      statistic: ``"median"``, or ``"rms"``, the root mean square. The mean square of the l_2 norm
        falls as 1/S exactly in expectation for independent gradients of zero mean.

    Returns:
      [K]; zero where it is zero in any order.
    """
    with np.errstate(divide="ignore"):
        found: np.ndarray = np.exp(np.log(_centre(norms, statistic)).mean(axis=0))
        return found


def fit_exponent(
    rng_key: jax.Array,
    norms: np.ndarray,
    counts: np.ndarray,
    *,
    statistic: str = "median",
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """Fit ``norm ~ S^a`` by least squares of the logarithms.

    The interval is a percentile bootstrap: every resample takes one of the orders of the draws and
    resamples the inputs. It covers the choice of inputs and of which draws come first, not that of
    the posterior.

    Args:
      rng_key: Typed key of the resamples.
      norms: [R, K, N], see ``LossGradients``.
      counts: Numbers of draws, [K].
      statistic: See ``typical_norm``.
      num_resamples: Resamples.
      confidence: Coverage of the interval, in (0, 1).

    Returns:
      The exponent a; ``MONTE_CARLO`` for independent gradients of zero mean. Counts at which the
      norm is zero in any order are left out; NaN where fewer than two remain, and an interval of
      NaN where most resamples have a norm of zero.
    """
    usable = typical_norm(norms, statistic) > 0
    if usable.sum() < 2:
        return Estimate(np.nan, np.nan, np.nan)
    norms, log_counts = norms[:, usable], np.log(np.asarray(counts, np.float64)[usable])
    value = float(_slope(log_counts, np.log(typical_norm(norms, statistic))))
    rng, num = _generator(rng_key), norms.shape[2]
    orders = rng.integers(len(norms), size=(num_resamples, 1, 1))
    rows = rng.integers(num, size=(num_resamples, 1, num))
    centres = _centre(norms[orders, np.arange(norms.shape[1])[:, None], rows], statistic)
    alive = np.all(centres > 0, axis=1)
    slopes = np.full(num_resamples, np.nan)
    slopes[alive] = _slope(log_counts, np.log(centres[alive]))
    return _estimate(value, slopes, confidence)


def summarise(
    rng_key: jax.Array, gradients: LossGradients, num_chains: int | None = None
) -> dict[str, Any]:
    """Return every number of this module for one set of gradients, as JSON values.

    Args:
      rng_key: Typed key of the bootstraps.
      gradients: From ``expected_loss_gradients``.
      num_chains: ``Groups.num_chains`` where the gradients have products of groups.

    Returns:
      ``counts``; by count ``median_linf`` (see ``typical_norm``), ``quartiles_linf`` [3, K] (over
      inputs and orders) and ``zero_means`` (share of inputs whose mean gradient is exactly zero);
      as [value, low, high] ``exponent_linf`` (of the median), ``exponent_l2`` (of the root mean
      square), ``zero_draws``, and ``ratio`` and ``chance`` at the largest count. With products of
      groups also ``products`` [G, G] (``expected_norm.mean_products``), ``num_group_chains`` and
      ``square``: squared norm of the expectation over the mean square of a gradient.
    """
    keys = [jax.random.fold_in(rng_key, index) for index in range(5)]
    counts, last = gradients.counts, cancellation(gradients)
    finite = np.where(np.isfinite(gradients.mean_linf), gradients.mean_linf, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        quartiles = np.nanpercentile(finite, [25, 50, 75], axis=(0, 2))
    squares: dict[str, Any] = {}
    if num_chains is not None:
        products = mean_products(gradients.products, gradients.draw_l2)
        squares = {
            "products": [[float(f"{value:.6g}") for value in row] for row in products],
            "num_group_chains": num_chains,
            "square": list(estimate_square(products, num_chains)),
        }
    return {
        "counts": counts.tolist(),
        "num_inputs": int(gradients.draw_linf.shape[1]),
        "num_nonfinite_inputs": int(np.sum(~np.isfinite(gradients.draw_linf).all(axis=0))),
        "median_linf": typical_norm(gradients.mean_linf).tolist(),
        "quartiles_linf": quartiles.tolist(),
        "zero_means": np.mean(gradients.mean_linf == 0, axis=(0, 2)).tolist(),
        "exponent_linf": list(fit_exponent(keys[0], gradients.mean_linf, counts)),
        "exponent_l2": list(fit_exponent(keys[1], gradients.mean_l2, counts, statistic="rms")),
        "zero_draws": list(estimate_mean(keys[2], zero_share(gradients))),
        "ratio": list(estimate_mean(keys[3], last.ratio)),
        "chance": list(estimate_mean(keys[4], last.chance)),
        **squares,
    }


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the least-squares slope of y [..., K] over x [K]."""
    centred = x - x.mean()
    found: np.ndarray = y @ centred / (centred @ centred)
    return found


def _centre(norms: np.ndarray, statistic: str) -> np.ndarray:
    """Return the statistic over the last axis, without what is not finite."""
    if statistic not in ("median", "rms"):
        raise ValueError(f"Unknown statistic {statistic!r}. Known: median, rms.")
    values = np.asarray(norms, np.float64)
    if np.isfinite(values).all():
        if statistic == "median":
            return np.median(values, axis=-1)
        found: np.ndarray = np.sqrt(np.mean(values**2, axis=-1))
        return found
    values = np.where(np.isfinite(values), values, np.nan)
    with warnings.catch_warnings():
        # Nothing but NaN gives NaN, which is the answer.
        warnings.simplefilter("ignore", RuntimeWarning)
        if statistic == "median":
            return np.nanmedian(values, axis=-1)
        centre: np.ndarray = np.sqrt(np.nanmean(values**2, axis=-1))
        return centre


def _estimate(value: float, resamples: np.ndarray, confidence: float) -> Estimate:
    defined = resamples[np.isfinite(resamples)]
    if 2 * len(defined) < len(resamples):
        return Estimate(value, np.nan, np.nan)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(defined, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def _generator(rng_key: jax.Array) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(rng_key)).tolist())
