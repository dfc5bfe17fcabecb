"""Figure of the cost: seconds of an expected gradient against draws and against images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from bnn_adv.report import fields, style, wording
from bnn_adv.report.fields import Results

_VARIABLES = ("draws", "images")


class _Sweep(NamedTuple):
    network: str
    variable: str
    fixed: str
    exponent: float
    counts: np.ndarray
    seconds: np.ndarray
    low: np.ndarray
    high: np.ndarray


def cost_figure(results: Results) -> Figure | None:
    """Draw cost against draws and against images, both axes logarithmic, one panel each.

    Args:
      results: What the benchmark found; its rows with ``counts`` among their details are drawn.

    Returns:
      Points with the range of the repeats, the least-squares line, and its exponent in the
      legend. None where nothing was swept.

    Raises:
      ValueError: The results have another schema version.
    """
    fields.check_schema(results)
    rows = wording.to_dicts(results.get("rows"))
    sweeps = [_read(row) for row in rows if "counts" in wording.to_dict(row.get("details"))]
    variables = [name for name in _VARIABLES if any(s.variable == name for s in sweeps)]
    if not variables:
        return None
    networks = list(dict.fromkeys(sweep.network for sweep in sweeps))
    colours = {
        name: style.CLASS_COLOURS[number % len(style.CLASS_COLOURS)]
        for number, name in enumerate(networks)
    }
    with style.paper_style():
        figure = Figure(figsize=(0.3 + 3.0 * len(variables), 2.6), layout="constrained")
        axes = figure.subplots(1, len(variables), squeeze=False, sharey=True)[0]
        for ax, variable in zip(axes, variables, strict=True):
            chosen = [sweep for sweep in sweeps if sweep.variable == variable]
            _draw_panel(ax, chosen, colours)
        # The legend's two lines lie above all points, of all panels.
        low, high = axes[0].get_ylim()
        axes[0].set_ylim(low, high * (high / low) ** 0.25)
        axes[0].set_ylabel("seconds of one gradient")
    return figure


def _read(row: Mapping[str, Any]) -> _Sweep:
    details = row["details"]
    arrays = (np.asarray(details[key], float) for key in ("counts", "seconds", "low", "high"))
    return _Sweep(
        details["network"], details["variable"], details["fixed"], float(row["value"]), *arrays
    )


def _draw_panel(ax: Axes, sweeps: Sequence[_Sweep], colours: Mapping[str, str]) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    for sweep in sweeps:
        colour = colours[sweep.network]
        ax.errorbar(
            sweep.counts,
            sweep.seconds,
            yerr=np.maximum([sweep.seconds - sweep.low, sweep.high - sweep.seconds], 0),
            fmt="o",
            markersize=3.2,
            elinewidth=0.8,
            color=colour,
        )
        # The least-squares line passes through the means of the logarithms.
        middle = np.exp(np.mean(np.log(sweep.counts))), np.exp(np.mean(np.log(sweep.seconds)))
        ax.plot(
            sweep.counts,
            middle[1] * (sweep.counts / middle[0]) ** sweep.exponent,
            color=colour,
            label=f"{style.plain(sweep.network)}: exponent {sweep.exponent:.2f}",
        )
    counts = sorted({float(count) for sweep in sweeps for count in sweep.counts})
    ax.xaxis.set_major_locator(FixedLocator(counts))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_locator(LogLocator(numticks=8))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    fixed = ", ".join(dict.fromkeys(sweep.fixed for sweep in sweeps))
    ax.set_title(style.wrap(f"{fixed}", 40))
    ax.set_xlabel(sweeps[0].variable)
    ax.grid(color=style.GRID, linewidth=0.5)
    ax.legend(frameon=False, loc="upper left")
