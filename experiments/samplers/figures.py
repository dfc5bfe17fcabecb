"""Figures of R-hat, effective sample size and held-out likelihood against gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, Locator, LogLocator, MaxNLocator, NullLocator

from bnn_adv.inference.mixing import ESS_LEAST, RHAT_LIMIT
from bnn_adv.report import style
from experiments.samplers.config import (
    ADJUSTED_MCLMC,
    CSGMCMC,
    HMC,
    HMC_CURVATURE,
    HMC_PUBLISHED,
    MCLMC,
    NUTS,
    SGHMC,
    SGLD,
)
from experiments.samplers.prefixes import largest_rhat, smallest_ess
from experiments.samplers.verdicts import Record

# Solid: with a Metropolis test; dashed: without; dotted: on minibatches.
_LINES = {
    HMC_PUBLISHED: (style.CLASS_COLOURS[6], "x", "-"),
    HMC: (style.CLASS_COLOURS[0], "o", "-"),
    NUTS: (style.CLASS_COLOURS[4], "s", "-"),
    ADJUSTED_MCLMC: (style.CLASS_COLOURS[2], "^", "-"),
    MCLMC: (style.CLASS_COLOURS[5], "D", "--"),
    SGLD: (style.CLASS_COLOURS[1], "v", ":"),
    SGHMC: (style.CLASS_COLOURS[3], "P", ":"),
    CSGMCMC: (style.INK, "*", ":"),
    HMC_CURVATURE: ("#5b3a8c", "h", "-"),
}
_LEAST_EXCESS = 1e-3
_MARGIN = 1.4
_TICKS = (0.001, 0.01, 0.05, 0.2, 1.0, 10.0, 100.0)
_MOST_LINEAR, _STEPS = 4, (1, 2, 2.5, 5, 10)


def mixing_curves(panels: Mapping[str, Sequence[Record]]) -> Figure:
    """Draw how chains mix and predict as they take gradients.

    Args:
      panels: Records of a posterior by its title.

    Returns:
      A row a posterior: largest R-hat, smallest effective sample size, and negative log likelihood
      of held-out examples, on logarithmic axes.
    """
    with style.paper_style():
        figure = Figure(figsize=(7.6, 2.15 * len(panels) + 0.6), layout="constrained")
        axes = figure.subplots(len(panels), 3, squeeze=False)
        handles: dict[str, Any] = {}
        for line, (title, records) in zip(axes, panels.items(), strict=True):
            for record in records:
                # A method that failed, or had too few draws, has no line, and no entry.
                if record["points"]:
                    handles[record["method"]] = _draw_record(line, record)
            _set_axes(line, title)
        figure.supxlabel("gradients of all training data a chain", fontsize=8.0)
        figure.legend(
            handles.values(),
            [style.plain(name) for name in handles],
            loc="outside upper center",
            ncols=4,
            frameon=False,
        )
    return figure


def _draw_record(line: Sequence[Axes], record: Record) -> Any:
    colour, marker, dashes = _LINES[record["method"]]
    points = record["points"]
    gradients = np.array([point["gradients"] for point in points])
    readings: tuple[Callable[[dict[str, Any]], float | None], ...] = (
        _excess,
        smallest_ess,
        lambda point: -point["log_likelihood"] if "log_likelihood" in point else None,
    )
    for ax, read in zip(line, readings, strict=True):
        values = np.array([np.nan if (v := read(p)) is None else v for p in points])
        # Logarithms of zero are not drawn; matplotlib leaves gaps at NaN.
        values = np.where(values > 0, values, np.nan)
        (handle,) = ax.plot(
            gradients, values, color=colour, marker=marker, markersize=3.5, linestyle=dashes
        )
    return handle


def _excess(point: dict[str, Any]) -> float | None:
    """Return the largest R-hat less one, at least a thousandth."""
    found = largest_rhat(point)
    return None if found is None else max(found - 1, _LEAST_EXCESS)


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _locate(axis: Axis, subs: tuple[float, ...]) -> Locator:
    """Return ticks at ``subs`` times powers of ten, or, of a narrow axis, a few even ones."""
    low, high = axis.get_view_interval()
    if low <= 0:
        return LogLocator(subs=subs)  # Nothing is drawn, and nothing has scaled the axis.
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high))
    ticks = np.multiply.outer(powers, subs)
    if np.sum((low <= ticks) & (ticks <= high)) > 1:
        return LogLocator(subs=subs)
    # Here LogLocator would take as many as fit a wider panel.
    return MaxNLocator(nbins=_MOST_LINEAR, steps=_STEPS)


def _set_axes(line: Sequence[Axes], title: str) -> None:
    rhat, size, likelihood = line
    for ax, limit in zip(line, (RHAT_LIMIT - 1, ESS_LEAST, np.nan), strict=True):
        ax.set(xscale="log", yscale="log")
        ax.grid(color=style.GRID, linewidth=0.5, zorder=0)
        shown = np.concatenate([[limit], *(curve.get_ydata() for curve in ax.lines)])
        if (shown := shown[np.isfinite(shown)]).size:
            ax.set_ylim(shown.min() / _MARGIN, shown.max() * _MARGIN)
        for axis, subs in ((ax.xaxis, (1.0, 3.0)), (ax.yaxis, (1.0, 2.0, 5.0))):
            axis.set_major_locator(_locate(axis, subs))
            axis.set_major_formatter(lambda value, _: _short(value))
            axis.set_minor_locator(NullLocator())
    rhat.axhline(RHAT_LIMIT - 1, color=style.MUTED, linewidth=0.9, linestyle=(0, (1, 1)), zorder=1)
    size.axhline(ESS_LEAST, color=style.MUTED, linewidth=0.9, linestyle=(0, (1, 1)), zorder=1)
    low, high = rhat.get_ylim()
    rhat.yaxis.set_major_locator(FixedLocator([tick for tick in _TICKS if low <= tick <= high]))
    rhat.yaxis.set_major_formatter(lambda value, _: f"{1 + value:g}")
    rhat.set_ylabel(style.wrap(title, 20))
    rhat.set_title("largest R-hat")
    size.set_title("smallest ESS")
    likelihood.set_title("held-out nats an example")
