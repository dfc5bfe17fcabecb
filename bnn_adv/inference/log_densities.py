"""Whether draws of an unadjusted method have the log density that those of an adjusted one have.

Nothing is rejected by ``mclmc``, ``sgld``, ``sghmc`` and ``csgmcmc``: their draws follow a law that
differs from the posterior by what grows with the step. R-hat and effective sample size cannot show
that, and the mean log density, beside that of chains with a Metropolis test, does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from arviz_stats.base.array import array_stats

from bnn_adv.inference.diagnostics import describe_mixing, has_mixed
from bnn_adv.inference.mixing import RHAT_LIMIT, measure_mixing

_NORMAL_95 = 1.959964


class Difference(NamedTuple):
    """A mean log density less that of an adjusted method.

    nats: The difference of the means.
    interval: Its 95 % interval, by the Monte Carlo standard errors of both.
    is_judged: Whether both have settled, and nothing shows that the adjusted one has not mixed.
    sentence: What follows.
    """

    nats: float
    interval: tuple[float, float]
    is_judged: bool
    sentence: str


def is_adjusted(diagnostics: Mapping[str, Any]) -> bool | None:
    """Return whether chains have a Metropolis test, by their record; None: there are no chains."""
    if not diagnostics.get("log_density"):
        return None
    return "acceptance_rate" in diagnostics


def compare_log_densities(
    unadjusted: Mapping[str, Any],
    adjusted: Mapping[str, Any],
    names: tuple[str, str] = ("unadjusted", "adjusted"),
) -> Difference | None:
    """Compare the mean log densities of the draws of two methods with one target.

        m_1 - m_2 +- 1.96 (s_1^2 / ESS_1 + s_2^2 / ESS_2)^(1/2)

    with the effective sample sizes of the means, over all chains of each. The targets must be one:
    network, data, prior, likelihood and temperature; the record does not say so.

    Args:
      unadjusted: Diagnostics as of ``summarise_chains``, with ``log_density``, [chains][draws].
      adjusted: Those of a method with a Metropolis test.
      names: What the sentence calls them.

    Returns:
      The difference; None where there are too few draws, or some are not finite.
    """
    both = [np.asarray(each["log_density"], np.float64) for each in (unadjusted, adjusted)]
    if not all(curves.ndim == 2 and np.isfinite(curves).all() for curves in both):
        return None
    mixing = [measure_mixing(curves[..., None]) for curves in both]
    if mixing[0] is None or mixing[1] is None:
        return None
    errors = [_standard_error(curves) for curves in both]
    if not np.isfinite(errors).all():
        return None
    nats = float(both[0].mean() - both[1].mean())
    half = _NORMAL_95 * float(np.hypot(errors[0], errors[1]))
    interval = (nats - half, nats + half)
    rhats = [found.rhat[0] for found in mixing if found is not None]
    unsettled = [
        f"{name} (R-hat {rhat:.2f})"
        for name, rhat in zip(names, rhats, strict=True)
        if not rhat <= RHAT_LIMIT
    ]
    is_lost = has_mixed(adjusted) is False
    if unsettled:
        sentence = f"Not judged: the log density of {' and '.join(unsettled)} has not settled."
    elif is_lost:
        # A log density may settle where predictions have not: in one of several modes.
        why = describe_mixing(adjusted).removeprefix("unmixed: not judged ")
        sentence = f"Not judged: {names[1]} has not mixed {why}."
    else:
        sentence = _say(names, nats, interval)
    return Difference(nats, interval, not (unsettled or is_lost), sentence)


def _standard_error(curves: np.ndarray) -> float:
    """Return the Monte Carlo standard error of the mean of [chains, draws]."""
    size = array_stats.ess(curves, chain_axis=0, draw_axis=1, method="mean")
    return float(curves.std(ddof=1) / np.sqrt(size)) if size > 0 else np.inf


def _say(names: tuple[str, str], nats: float, interval: tuple[float, float]) -> str:
    low, high = interval
    found = f"{nats:+.1f} nats (95 % interval {low:+.1f} to {high:+.1f})"
    if low <= 0 <= high:
        return f"The log density of {names[0]} less that of {names[1]} is not told from 0: {found}."
    side = "below" if nats < 0 else "above"
    return (
        f"The log density of {names[0]} is {side} that of {names[1]} by {found}: its draws do not "
        "follow the posterior, as far as the adjusted chains do."
    )
