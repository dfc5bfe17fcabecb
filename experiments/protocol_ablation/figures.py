"""Figures of the ablation: what is left under each departure, and each one's share."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_adv.report import style
from experiments.protocol_ablation import words
from experiments.protocol_ablation.switches import IN_2020, relevant
from experiments.protocol_ablation.words import Data

_HEADINGS = {
    "base": "Nothing as published",
    "alone": "One departure alone",
    "half": "One half as published",
    "version": "Everything as published",
    "all_but": "All of 2020 but this one",
}
_COLOURS = style.suite_colours(("published", "strong"))
_PGD, _STRONG = "#d55e00", _COLOURS["strong"]
_WIDTH = 48


def departures_figure(data: Data) -> Figure:
    """Draw accuracies under FGSM, PGD and the strong attack, one line a row.

    Args:
      data: See ``report.build_study``.
    """
    with style.paper_style():
        figure = Figure(figsize=(6.9, 7.4), layout="constrained")
        ax = figure.subplots()
        height, ticks, labels, before = 0.0, [], [], ""
        for row in data["rows"]:
            if row["group"] != before:
                before = row["group"]
                height += 0.25
                ax.annotate(
                    _HEADINGS[before],
                    (0.0, height),
                    xycoords=("axes fraction", "data"),
                    xytext=(-6, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=8.0,
                    weight="bold",
                )
                height += 0.8
            _draw_row(ax, height, row)
            ticks.append(height)
            labels.append(style.wrap(_label(row, data), _WIDTH))
            height += 1.0
        ax.set_yticks(ticks, labels=labels, fontsize=6.8)
        ax.set_ylim(height - 0.4, -0.35)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlim(-3, 103)
        ax.grid(axis="x", color=style.GRID, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.set_xlabel(
            rf"accuracy (%), {data['num_test']} images, $\ell_\infty$, "
            rf"$\epsilon = {data['epsilon']:g}$"
        )
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def shares_figure(data: Data) -> Figure:
    """Draw each switch's Shapley share of the accuracy under PGD, in percentage points."""
    shares = data["shares"]["shapley"]["pgd"]
    # What changes no image of the attack has no share, and no interval either.
    names = [name for name in words.shared(data) if name in relevant("pgd", IN_2020)]
    values, lows, highs = ([100 * shares[name][place] for name in names] for place in range(3))
    with style.paper_style():
        figure = Figure(figsize=(6.2, 2.9), layout="constrained")
        ax = figure.subplots()
        places = range(len(names))
        ax.barh(places, values, height=0.6, color=_PGD)
        around = [
            [value - low for value, low in zip(values, lows, strict=True)],
            [high - value for value, high in zip(values, highs, strict=True)],
        ]
        ax.errorbar(values, places, xerr=around, fmt="none", ecolor=style.INK, elinewidth=0.9)
        span = max(map(abs, (*lows, *highs)), default=0.0) or 1.0
        for place, value, high in zip(places, values, highs, strict=True):
            ax.annotate(
                f"{value:+.1f}",
                (max(high, 0.0), place),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.0,
            )
        ax.axvline(0, color=style.INK, linewidth=0.7)
        ax.set_xlim(min(0.0, *lows) - 0.06 * span, max(0.0, *highs) + 0.18 * span)
        labels = [style.wrap(words.describe_switch(name, data), _WIDTH) for name in names]
        ax.set_yticks(places, labels=labels, fontsize=7.0)
        ax.invert_yaxis()
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x", color=style.GRID, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.set_xlabel("share of the accuracy under PGD (percentage points)")
    return figure


def _label(row: Data, data: Data) -> str:
    text = words.describe_row(row, data)
    for start in ("2020 but this one: ", "none: "):
        text = text.removeprefix(start)
    return textwrap.shorten(text, 3 * _WIDTH, placeholder=" ...")


def _draw_row(ax: Axes, height: float, row: Data) -> None:
    fgsm, pgd, strong, clean = (100 * row[key] for key in ("fgsm", "pgd", "strong", "accuracy"))
    low, high = (100 * end for end in row["intervals"]["pgd"])
    ax.plot([strong, pgd], [height] * 2, color=_PGD, linewidth=4.0, alpha=0.22, zorder=1)
    ax.plot([low, high], [height] * 2, color=_PGD, linewidth=1.2, zorder=2, clip_on=False)
    marks: tuple[tuple[float, str, dict[str, Any]], ...] = (
        (clean, "clean images", {"marker": "|", "markersize": 9, "color": style.MUTED}),
        (strong, "strong attack", {"marker": "D", "markersize": 4.2, "color": _STRONG}),
        (fgsm, "FGSM", {"marker": "o", "markersize": 6, "color": style.INK, "mfc": "none"}),
        (pgd, "PGD", {"marker": "o", "markersize": 4.2, "color": _PGD}),
    )
    for above, (value, label, look) in enumerate(marks):
        ax.plot(
            value,
            height,
            linestyle="none",
            clip_on=False,
            zorder=2 + above,
            # The legend lists what the first row draws.
            label=label if row["group"] == "base" else "_",
            **look,
        )
