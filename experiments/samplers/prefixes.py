"""Judge chains by what they had found after a number of gradients: numbers of one prefix."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from arviz_stats.base.array import array_stats

from bnn_adv.inference.mixing import measure_mixing

LEAST_DRAWS = 4
"""Draws of a chain below which nothing is said."""


class Draws(NamedTuple):
    """What is kept of all draws of a method's chains.

    log_probs: Of held-out examples, [chains, draws, examples, classes].
    labels: Their labels, [examples].
    log_density: Of the draws on all training data, in nats up to a constant that the methods
      share, [chains, draws].
    gradients: Gradients of all data that a chain had taken by a draw, [chains, draws].
    """

    log_probs: np.ndarray
    labels: np.ndarray
    log_density: np.ndarray
    gradients: np.ndarray

    @property
    def total(self) -> float:
        """Gradients a chain, in the mean over chains."""
        return float(self.gradients[:, -1].mean())


def list_prefixes(total: float, number: int) -> list[float]:
    """Return numbers of gradients, evenly spaced by ratio from a sixteenth of all to all."""
    return [float(at) for at in np.geomspace(total, total / 16, number)[::-1]]


def keep_half(draws: Draws, upto: float) -> Draws | None:
    """Return the draws made in the second half of the first ``upto`` gradients of each chain.

    Returns:
      Equally many of each chain, the last ones; None where there are fewer than four.
    """
    # Numbers of gradients of chains that adapt differ: shares of a chain's own run are compared.
    share = draws.gradients / draws.gradients[:, -1:]
    limit = upto / draws.total * (1 + 1e-9)
    last = (share <= limit).sum(axis=1)
    count = int(np.min(last - (share <= limit / 2).sum(axis=1)))
    if count < LEAST_DRAWS:
        return None

    def take(values: np.ndarray) -> np.ndarray:
        return np.stack([own[end - count : end] for own, end in zip(values, last, strict=True)])

    return draws._replace(
        log_probs=take(draws.log_probs),
        log_density=take(draws.log_density),
        gradients=take(draws.gradients),
    )


def summarise(kept: Draws, upto: float) -> dict[str, Any]:
    """Return the numbers of a prefix, under the names that ``diagnostics.has_mixed`` reads.

    Args:
      kept: Its draws.
      upto: Its gradients a chain.
    """
    num_chains, num_draws = kept.log_density.shape
    own = np.take_along_axis(kept.log_probs, kept.labels[None, None, :, None], axis=-1)[..., 0]
    found: dict[str, Any] = {
        "gradients": upto,
        "num_chains": num_chains,
        "num_draws": num_draws,
        "rhat": "rank-normalised split",
        "num_still_chains": sum(bool((chain == chain[:1]).all()) for chain in own),
        "num_equal_chains": num_chains - len({chain.tobytes() for chain in own}),
        **_predict(kept),
        **_describe_density(kept.log_density),
    }
    undefined = 0
    if (mixing := measure_mixing(own)) is not None:
        # An R-hat that is not defined is as bad as an infinite one.
        rhat = np.where(mixing.is_undefined, np.inf, mixing.rhat)
        undefined += int(mixing.is_undefined.sum())
        found |= {
            "max_rhat": rhat.max(),
            "upper_rhat": np.quantile(rhat, 0.95, method="higher"),
            "median_rhat": np.median(rhat),
            "min_ess": mixing.ess.min(),
            "median_ess": np.median(mixing.ess),
            "min_tail_ess": mixing.tail_ess.min(),
        }
    if (trace := measure_mixing(kept.log_density[..., None])) is not None:
        undefined += int(trace.is_undefined.sum())
        found |= {
            "log_density_rhat": trace.rhat[0],
            "log_density_ess": trace.ess[0],
            "log_density_tail_ess": trace.tail_ess[0],
        }
    numbers = {name: _plain(value) for name, value in found.items()}
    finite = {n: v for n, v in numbers.items() if isinstance(v, str) or np.isfinite(v)}
    return finite | {"num_undefined_rhats": undefined}


def smallest_ess(point: dict[str, Any]) -> float | None:
    """Return the smallest effective sample size of predictions and log density."""
    sizes = [point[name] for name in ("min_ess", "log_density_ess") if name in point]
    return min(sizes) if len(sizes) == 2 else None


def largest_rhat(point: dict[str, Any]) -> float | None:
    """Return the largest R-hat of predictions and log density."""
    found = [point[name] for name in ("max_rhat", "log_density_rhat") if name in point]
    return max(found) if len(found) == 2 else None


def _predict(kept: Draws) -> dict[str, Any]:
    """Return mean log likelihood, in nats an example, and accuracy of the predictive."""
    flat = kept.log_probs.reshape(-1, *kept.log_probs.shape[2:]).astype(np.float64)
    predictive = np.logaddexp.reduce(flat, axis=0) - np.log(len(flat))
    own = np.take_along_axis(predictive, kept.labels[:, None], axis=-1)
    return {
        "log_likelihood": own.mean(),
        "accuracy": np.mean(predictive.argmax(axis=-1) == kept.labels),
    }


def _describe_density(log_density: np.ndarray) -> dict[str, Any]:
    """Return mean and spread of the log density, and the mean's Monte Carlo error, in nats."""
    values = np.asarray(log_density, np.float64)
    spread = values.std()
    if not (np.isfinite(spread) and spread > 0):
        return {"density": values.mean(), "density_spread": spread}
    size = float(array_stats.ess(values[..., None], chain_axis=0, draw_axis=1, method="mean")[0])
    # Of chains that are far apart the estimate may be below one.
    error = spread / np.sqrt(max(size, 1.0))
    return {"density": values.mean(), "density_spread": spread, "density_error": error}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int) else float(value)
