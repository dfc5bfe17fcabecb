"""Figure of the accuracies: clean and under every attack, with intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_adv.report import fields, style, wording
from bnn_adv.report.fields import Line, Results
from bnn_adv.report.wording import Measured

_PANELS_PER_ROW = 4
_CHARACTERS_PER_INCH = 14
"""Of the label below the panels, which a figure of few panels breaks into lines."""


class _Row(NamedTuple):
    label: str
    colour: str
    suite: str
    attack: str


def accuracy_figure(results: Results) -> Figure | None:
    """Draw clean accuracy and accuracy under every attack, one panel a model.

    Args:
      results: What the run found.

    Returns:
      Points with 95 % intervals, labelled with their values; hollow points are fresh draws. None
      where the run holds no model.

    Raises:
      ValueError: The results have another schema version.
    """
    fields.check_schema(results)
    lines = fields.list_lines(results)
    models = [line for line in lines if not line.is_fresh]
    if not models:
        return None
    fresh = {id(line.row): line for line in lines if line.is_fresh}
    rows = _accuracy_rows(results)
    with style.paper_style():
        num_columns = min(_PANELS_PER_ROW, len(models))
        num_rows = math.ceil(len(models) / num_columns)
        # The height of a line holds two values where fresh draws are shown.
        height = num_rows * (0.75 + len(rows) * (0.34 if fresh else 0.27))
        figure = Figure(figsize=(1.5 + 1.65 * num_columns, height + 0.25), layout="constrained")
        axes = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True, sharey=True)
        for number, (ax, line) in enumerate(zip(axes.flat, models, strict=False)):
            _draw_accuracies(ax, rows, line, fresh.get(id(line.row)))
            _label_rows(ax, rows, is_left=number % num_columns == 0)
            # The panel below may be missing in the last line.
            ax.tick_params(axis="x", labelbottom=number + num_columns >= len(models))
        for ax in axes.flat[len(models) :]:
            ax.set_visible(False)
        below = " (filled: the draws that the attacker knows; hollow: fresh draws)"
        figure.supxlabel(
            style.wrap(
                f"accuracy (%), 95 % interval{below if fresh else ''}",
                int(_CHARACTERS_PER_INCH * figure.get_figwidth()),
            ),
            fontsize=8.0,
            color=style.INK,
        )
    return figure


def _accuracy_rows(results: Results) -> list[_Row]:
    suites = fields.list_suites(results)
    colours = style.suite_colours(suites)
    return [_Row("clean", style.CLEAN_COLOUR, "", "")] + [
        _Row(
            style.plain(f"{suite} {wording.format_attack(attack)}"),
            colours[suite],
            suite,
            attack,
        )
        for suite in suites
        for attack in fields.list_attacks(results, suite)
    ]


def _draw_accuracies(ax: Axes, rows: Sequence[_Row], line: Line, fresh: Line | None) -> None:
    shift = 0.0 if fresh is None else 0.2
    for height, row in enumerate(rows):
        _draw_point(ax, height - shift, _measured(line, row), row.colour, is_fresh=False)
        if fresh is not None:
            _draw_point(ax, height + shift, _measured(fresh, row), row.colour, is_fresh=True)
    ax.set_title(style.wrap(line.model, 20), pad=14)
    draws = wording.NOT_AVAILABLE if line.num_samples is None else f"{line.num_samples:,}"
    unit = "draw" if line.num_samples == 1 else "draws"
    ax.annotate(
        f"{draws} {unit}",
        (0.5, 1.0),
        (0, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=7.0,
        color=style.MUTED,
    )
    ax.set_xlim(-4, 104)
    ax.set_xticks([0, 25, 50, 75, 100])
    ax.set_xticks(range(0, 101, 5), minor=True)
    ax.tick_params(axis="x", which="minor", length=0)
    ax.grid(axis="x", color=style.GRID, linewidth=0.6, zorder=0)


def _draw_point(
    ax: Axes, height: float, measured: Measured, colour: str, *, is_fresh: bool
) -> None:
    size = 6.2 if is_fresh else 7.0
    if measured.value is None:
        return
    value = 100 * measured.value
    low, high = (100 * end for end in measured.interval or (measured.value, measured.value))
    ax.plot([low, high], [height, height], color=colour, linewidth=1.4, zorder=2, clip_on=False)
    face = "white" if is_fresh else colour
    ax.plot(
        [value],
        [height],
        marker="o",
        markersize=4.0 if is_fresh else 4.6,
        markerfacecolor=face,
        markeredgecolor=colour,
        markeredgewidth=1.1,
        linestyle="none",
        zorder=3,
        clip_on=False,
    )
    # On the side where there is room.
    is_right = high < 60
    ax.annotate(
        wording.format_percent(measured.value),
        (max(high, value) if is_right else min(low, value), height),
        (5 if is_right else -5, -0.3),
        textcoords="offset points",
        ha="left" if is_right else "right",
        va="center",
        fontsize=size,
        color=style.MUTED if is_fresh else style.INK,
        zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
    )


def _label_rows(ax: Axes, rows: Sequence[_Row], *, is_left: bool) -> None:
    ax.set_ylim(len(rows) - 0.45, -0.55)
    ax.set_yticks(range(len(rows)), labels=[row.label for row in rows])
    ax.tick_params(axis="y", length=0, labelleft=is_left)
    ax.spines["left"].set_visible(False)
    for above, (before, row) in enumerate(itertools.pairwise(rows)):
        if before.suite != row.suite:
            ax.axhline(above + 0.5, color="#aaaaaa", linewidth=0.6, zorder=0)


def _measured(line: Line, row: _Row) -> Measured:
    return line.attack(row.suite, row.attack) if row.suite else line.accuracy
