"""Figures of the study: against the radius, against the number of draws, known and fresh draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_adv.report import style
from experiments.bayesian_gain.intervals import Share, share
from experiments.bayesian_gain.rows import Setting, Shown, at_radius, right
from experiments.bayesian_gain.trainings import SAMPLERS, TRAININGS

_COLOURS = {
    "sgd": "#666666",
    "map": "#e69f00",
    "vi": "#009e73",
    "laplace": "#cc79a7",
    "swag": "#56b4e9",
    "csgmcmc": "#8c6d31",
    "hmc": "#0072b2",
    "mclmc": "#332288",
    "hmc_cold": "#d55e00",
    "hmc_published": "#000000",
}
_LINES = ("-", "--", ":")


def curve_figure(settings: Sequence[Setting], shown: Sequence[Shown]) -> Figure:
    """Draw accuracy left against the radius, two panels a data set and network, a line a method.

    Args:
      settings: At least one.
      shown: The methods.

    Raises:
      ValueError: There is nothing to draw.
    """
    _check(settings)
    groups = {
        "networks and modes": [m for m in shown if m.training in ("sgd", "map", *SAMPLERS)],
        "posteriors": [m for m in shown if m.training not in ("sgd", "map") or _is_one(m)],
    }
    with style.paper_style():
        figure, axes = _panels(settings, list(groups), height=2.6)
        for line, setting in zip(axes, settings, strict=True):
            for ax, (title, methods) in zip(line, groups.items(), strict=True):
                _draw_curves(ax, setting, methods)
                ax.set_title(f"{setting.words}: {title}")
                ax.legend(frameon=False, handlelength=1.8)
            line[0].set_ylabel("accuracy left (%)")
        for ax in axes[-1]:
            ax.set_xlabel(r"radius $\epsilon$ ($\ell_\infty$)")
    return figure


def _is_one(method: Shown) -> bool:
    return (method.training, method.draws) == ("sgd", 1)


def _draw_curves(ax: Axes, setting: Setting, methods: Sequence[Shown]) -> None:
    """Draw a line a method: bands around those that the others are compared with, else bars."""
    for number, method in enumerate(methods):
        rows = setting.find(method.training, method.draws)
        epsilons = np.array([0.0, *rows[0]["epsilons"]])
        found = [share(right(rows, epsilon)) for epsilon in (None, *rows[0]["epsilons"])]
        same = [other.training for other in methods[:number]].count(method.training)
        colour, line = _COLOURS[method.training], _LINES[same]
        if _is_one(method) or method.training in SAMPLERS:
            _line(ax, epsilons, found, colour, method.label, line)
            continue
        low, value, high = _percent(found)
        ax.plot(epsilons, value, ls=line, color=colour, label=method.label)
        # Beside each other, where bars would hide each other; the line is where it belongs.
        places = epsilons + (number - len(methods) / 2) * 0.003 * epsilons[-1] / 0.3
        error = [value - low, high - value]
        ax.errorbar(places, value, error, ls="none", color=colour, elinewidth=0.6)


def _percent(found: Sequence[Share]) -> list[np.ndarray]:
    names = ("low", "value", "high")
    return [100 * np.array([getattr(one, name) for one in found]) for name in names]


def draws_figure(settings: Sequence[Setting], epsilons: Sequence[float]) -> Figure:
    """Draw accuracy left against draws of the sampler and members, a column a radius.

    Args:
      settings: At least one; a line of panels each.
      epsilons: Radii.

    Raises:
      ValueError: There is nothing to draw.
    """
    _check(settings)
    with style.paper_style():
        figure, axes = _panels(settings, epsilons)
        for line, setting in zip(axes, settings, strict=True):
            for ax, epsilon in zip(line, epsilons, strict=True):
                swept = [name for name in ("sgd", *SAMPLERS) if setting.list_draws(name)]
                for training in swept:
                    sizes = setting.list_draws(training)
                    found = [share(right(setting.find(training, n), epsilon)) for n in sizes]
                    name, colour = TRAININGS[training].words, _COLOURS[training]
                    _line(ax, sizes, found, colour, name, "-", marker="o")
                ax.set_xscale("log")
                ticks = sorted({n for t in swept for n in setting.list_draws(t)})
                ax.set_xticks(ticks, labels=[str(tick) for tick in ticks])
                ax.minorticks_off()
                ax.set_title(rf"{setting.words}: $\epsilon$ = {epsilon:g}")
                ax.set_xlabel("draws or members")
            line[0].set_ylabel("accuracy left (%)")
        _legend(figure, axes[0][0], "outside lower center", 2)
    return figure


def fresh_figure(settings: Sequence[Setting], epsilons: Sequence[float]) -> Figure:
    """Draw what known draws and fresh ones keep, method by method, a column a radius.

    Args:
      settings: At least one; a line of panels each.
      epsilons: Radii.

    Raises:
      ValueError: There is nothing to draw.
    """
    _check(settings)
    with style.paper_style():
        figure, axes = _panels(settings, epsilons)
        for line, setting in zip(axes, settings, strict=True):
            fresh = [row for row in setting.rows if row["kind"] == "fresh"]
            names = list(dict.fromkeys(row["training"] for row in fresh))
            for ax, epsilon in zip(line, epsilons, strict=True):
                for place, name in enumerate(names):
                    (draws,) = setting.list_draws(name, kind="fresh")
                    anew = at_radius(setting.find(name, draws, kind="fresh"), epsilon)
                    known = share(right(setting.find(name, draws), epsilon))
                    for shift, found, is_known in (
                        (-0.12, known, True),
                        (0.12, share(right(anew, epsilon)), False),
                    ):
                        _point(ax, place + shift, found, _COLOURS[name], is_known)
                words = [TRAININGS[name].words for name in names]
                ax.set_xticks(range(len(names)), labels=words, rotation=20, ha="right")
                ax.set_ylim(bottom=0)
                ax.set_title(rf"{setting.words}: $\epsilon$ = {epsilon:g}")
                ax.grid(axis="y", color=style.GRID, linewidth=0.5)
            line[0].set_ylabel("accuracy left (%)")
        for is_known, text in ((True, "known draws"), (False, "fresh draws")):
            face = style.INK if is_known else "white"
            axes[0][0].plot([], [], "o", color=style.INK, markerfacecolor=face, label=text)
        _legend(figure, axes[0][0], "outside lower center", 2)
    return figure


def _check(settings: Sequence[Setting]) -> None:
    if not settings:
        raise ValueError("Nothing was measured: there is nothing to draw.")


def _panels(
    settings: Sequence[Setting], columns: Sequence[Any], *, height: float = 2.3
) -> tuple[Figure, Any]:
    lines, count = len(settings), len(columns)
    figure = Figure(figsize=(3.5 * count, height * lines + 0.5), layout="constrained")
    return figure, figure.subplots(lines, count, squeeze=False, sharey="row")


def _line(
    ax: Axes,
    x: Any,
    found: Sequence[Share],
    colour: str,
    label: str,
    style_of_line: str,
    *,
    marker: str = "",
) -> None:
    low, value, high = _percent(found)
    ax.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    ax.plot(x, value, style_of_line, marker=marker, color=colour, markersize=3, label=label)
    # The values of single repetitions: what the band is made of, beside images.
    for number in range(len(found[0].repeats)):
        each = [100 * one.repeats[number] for one in found]
        ax.plot(x, each, ".", color=colour, markersize=1.8, alpha=0.6)
    ax.set_ylim(-3, 103)
    ax.grid(color=style.GRID, linewidth=0.5)


def _point(ax: Axes, x: float, found: Share, colour: str, is_known: bool) -> None:
    value = 100 * found.value
    error = [[value - 100 * found.low], [100 * found.high - value]]
    face = colour if is_known else "white"
    ax.errorbar(
        [x], [value], error, fmt="o", color=colour, markerfacecolor=face, capsize=2, elinewidth=0.9
    )
    ax.plot([x] * len(found.repeats), [100 * one for one in found.repeats], ".", color=colour)


def _legend(figure: Figure, ax: Axes, place: Any, columns: int) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc=place, ncols=columns, frameon=False, handlelength=1.8)
