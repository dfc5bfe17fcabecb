"""Figure of the methods on equal terms: what they keep against how long they were trained."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, StrMethodFormatter

from bnn_adv.evaluation.metrics import wilson_interval
from bnn_adv.report import style
from experiments.robustness_accuracy.figures import METHOD_COLOURS, NAMES, Row, strong_accuracy
from experiments.robustness_accuracy.matched_report import Group, list_groups


def passes_figure(rows: Sequence[Row]) -> Figure | None:
    """Draw accuracy under the strong suite and clean accuracy against passes over the data.

    Args:
      rows: Finished networks of the methods on equal terms.

    Returns:
      A panel a data set and width; None where no two groups differ in their passes alone.
    """
    groups = list_groups(rows)
    panels = list(dict.fromkeys((g.dataset, g.hidden) for g in groups if g.passes is not None))
    if not panels:
        return None
    with style.paper_style():
        figure = Figure(figsize=(3.4 * len(panels), 3.0), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for ax, panel in zip(axes, panels, strict=True):
            own = {g: found for g, found in groups.items() if (g.dataset, g.hidden) == panel}
            _draw(ax, own)
            ax.set_title(f"{panel[0]}, {panel[1]} units")
        axes[0].set_ylabel("accuracy (%)")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


def _draw(ax: Axes, groups: dict[Group, list[Row]]) -> None:
    ax.grid(color=style.GRID, linewidth=0.5)
    for method, colour in METHOD_COLOURS.items():
        own = {g.passes: rows for g, rows in groups.items() if g.method == method}
        if None in own:
            _draw_level(ax, own[None], colour, NAMES[method])
        elif own:
            _draw_line(ax, {p: rows for p, rows in own.items() if p is not None}, colour, method)
    passes = sorted({g.passes for g in groups if g.passes is not None})
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(passes))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("passes over the data")
    ax.set_ylim(0, 100)


def _draw_line(ax: Axes, by_passes: dict[int, list[Row]], colour: str, method: str) -> None:
    places = sorted(by_passes)
    for measure, face in ((strong_accuracy, colour), (_clean, "white")):
        is_strong = measure is strong_accuracy
        values = [[100 * measure(row) for row in by_passes[p]] for p in places]
        ax.plot(
            places,
            [statistics.mean(each) for each in values],
            color=colour,
            linestyle="-" if is_strong else ":",
            label=NAMES[method] if is_strong else None,
            zorder=3,
        )
        ax.plot(
            np.repeat(places, [len(each) for each in values]),
            [value for each in values for value in each],
            "o",
            color=colour,
            markerfacecolor=face,
            markersize=3.6,
            markeredgewidth=0.7,
            zorder=4,
        )


def _draw_level(ax: Axes, rows: Sequence[Row], colour: str, name: str) -> None:
    strong = statistics.mean(map(strong_accuracy, rows))
    low, high = wilson_interval(strong, len(rows[0]["standing"]))
    ax.axhspan(100 * low, 100 * high, color=colour, alpha=0.15, linewidth=0, zorder=1)
    ax.axhline(100 * strong, color=colour, label=name, zorder=2)
    ax.axhline(100 * statistics.mean(map(_clean, rows)), color=colour, linestyle=":", zorder=2)


def _clean(row: Row) -> float:
    return float(row["accuracy"])
