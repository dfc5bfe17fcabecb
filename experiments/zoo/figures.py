"""One plot of all posteriors: certified <= true <= attacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bnn_adv.report import style
from experiments.zoo.record import PosteriorRecord, RadiusRecord

_KNOWN = {"standard": "#d55e00", "adversarial": "#0072b2", "interval": "#009e73"}
_NORMS = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$", "l1": r"$\ell_1$"}
_ROW = 0.2
"""Inches of a posterior."""


def bracket_figure(records: Sequence[PosteriorRecord]) -> Figure | None:
    """Draw what is certified and what attacks leave of every posterior, a panel a radius.

    Args:
      records: One a posterior.

    Returns:
      A row of panels for every data set; None where nothing was certified or attacked.
    """
    panels = _list_panels(records)
    if not panels:
        return None
    datasets = list(dict.fromkeys(dataset for dataset, _, _ in panels))
    radii = {name: [(n, e) for d, n, e in panels if d == name] for name in datasets}
    lines = {name: [r for r in records if r.dataset == name and r.radii] for name in datasets}
    colours = training_colours(records)
    most = max(map(len, radii.values()))
    heights = [_ROW * len(lines[name]) + 0.55 for name in datasets]
    with style.paper_style():
        figure = Figure(figsize=(7.2, sum(heights) + 0.5), layout="constrained")
        axes = figure.subplots(
            len(datasets), most, squeeze=False, gridspec_kw={"height_ratios": heights}
        )
        for row, name in zip(axes, datasets, strict=True):
            for number, ax in enumerate(row):
                if number >= len(radii[name]):
                    ax.set_axis_off()
                    continue
                _draw(ax, lines[name], radii[name][number], colours)
                norm, epsilon = radii[name][number]
                ax.set_title(
                    f"{style.plain(name)}, {_NORMS.get(norm, style.plain(norm))} {epsilon:g}"
                )
                ax.set_yticks(range(len(lines[name])))
                ax.set_yticklabels(
                    [style.plain(p.name) for p in lines[name]] if number == 0 else []
                )
        figure.legend(handles=_legend(colours), loc="outside lower center", ncols=4, frameon=False)
    return figure


def bracket_caption() -> str:
    """Return what the plot shows and how it is read."""
    return (
        "Accuracy of every posterior within a radius, from below and from above. The bar goes from "
        "what is certified to what the strong attacks leave: on these inputs the truth lies on it. "
        "Thin lines: 95 % intervals over inputs. Ring: what the published attack leaves; cross: "
        "clean accuracy. A mark that is absent was not measured."
    )


def training_colours(records: Sequence[PosteriorRecord]) -> dict[str, str]:
    """Return a colour for every kind of training; the three known ones always have the same."""
    others = [r.training for r in records if r.training not in _KNOWN]
    rest = [c for c in style.CLASS_COLOURS if c not in _KNOWN.values()]
    extra = {name: rest[i % len(rest)] for i, name in enumerate(dict.fromkeys(others))}
    used = dict.fromkeys(record.training for record in records)
    return {name: {**_KNOWN, **extra}[name] for name in used}


def _list_panels(records: Sequence[PosteriorRecord]) -> list[tuple[str, str, float]]:
    found = {
        (record.dataset, radius.norm, radius.epsilon)
        for record in records
        for radius in record.radii
        if not radius.certified.value is radius.attacked.value is None
    }
    order = [record.dataset for record in records]
    return sorted(found, key=lambda panel: (order.index(panel[0]), *panel[1:]))


def _draw(
    ax: Any,
    records: Sequence[PosteriorRecord],
    panel: tuple[str, float],
    colours: dict[str, str],
) -> None:
    for place, record in enumerate(records):
        colour = colours[record.training]
        if record.accuracy.value is not None:
            ax.plot(100 * record.accuracy.value, place, "x", color=style.MUTED, markersize=4)
        for radius in record.radii:
            if (radius.norm, radius.epsilon) == panel:
                _draw_bracket(ax, place, radius, colour)
    ax.set_xlim(-2, 102)
    ax.set_ylim(len(records) - 0.4, -0.6)
    ax.set_xlabel("accuracy (%)")
    ax.grid(color=style.GRID, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)


def _draw_bracket(ax: Any, place: int, radius: RadiusRecord, colour: str) -> None:
    low, high = radius.certified.value, radius.attacked.value
    if low is not None and high is not None:
        ax.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=4, alpha=0.45)
    for measured, mark in ((radius.certified, "|"), (radius.attacked, "d")):
        if measured.value is None:
            continue
        if measured.interval is not None:
            ends = [100 * end for end in measured.interval]
            ax.plot(ends, [place, place], color=colour, linewidth=0.7)
        width = 1.8 if mark == "|" else 0.5
        ax.plot(
            100 * measured.value,
            place,
            mark,
            color=colour,
            markersize=7 if mark == "|" else 4.5,
            markeredgewidth=width,
        )
    if radius.published.value is not None:
        ax.plot(
            100 * radius.published.value,
            place,
            "o",
            color=colour,
            markersize=4.5,
            markerfacecolor="none",
            markeredgewidth=0.9,
        )


def _legend(colours: dict[str, str]) -> list[Line2D]:
    marks = [
        Line2D(
            [],
            [],
            color=style.INK,
            marker="|",
            linestyle="",
            markeredgewidth=1.8,
            label="certified",
        ),
        Line2D(
            [], [], color=style.INK, marker="d", linestyle="", markersize=4.5, label="strong attack"
        ),
        Line2D(
            [],
            [],
            color=style.INK,
            marker="o",
            linestyle="",
            markersize=4.5,
            markerfacecolor="none",
            label="published attack",
        ),
        Line2D([], [], color=style.MUTED, marker="x", linestyle="", markersize=4, label="clean"),
    ]
    trainings = [
        Line2D([], [], color=colour, linewidth=4, alpha=0.6, label=style.plain(name))
        for name, colour in colours.items()
    ]
    return [*marks, *trainings]
