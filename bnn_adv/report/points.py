"""Figure of attacked points of the plane."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_adv.report import style
from bnn_adv.report.examples import Example


def draw_points(examples: Sequence[Example]) -> Figure:
    """Draw every point and the way that the attack moved it, one panel a model."""
    models = list(dict.fromkeys(example.model for example in examples))
    figure = Figure(figsize=(0.5 + 2.3 * len(models), 2.7), layout="constrained")
    axes = figure.subplots(1, len(models), squeeze=False, sharex=True, sharey=True)[0]
    for ax, model in zip(axes, models, strict=True):
        for example in examples:
            if example.model == model:
                _draw_move(ax, example)
        ax.set_title(style.wrap(model, 24))
        ax.set_xlabel("first input")
        ax.set_aspect("equal", adjustable="box")
        ax.grid(color=style.GRID, linewidth=0.5)
        ax.set_axisbelow(True)
    axes[0].set_ylabel("second input")
    return figure


def _draw_move(ax: Axes, example: Example) -> None:
    is_wrong = example.adversarial_prediction != example.label
    colour = style.CLASS_COLOURS[example.label % len(style.CLASS_COLOURS)]
    ax.annotate(
        "",
        tuple(example.adversarial),
        tuple(example.clean),
        arrowprops={
            "arrowstyle": "-|>",
            "mutation_scale": 6,
            "shrinkA": 0,
            "shrinkB": 0,
            "linewidth": 0.8,
            "color": style.INK if is_wrong else "#aaaaaa",
        },
    )
    ax.plot(*example.clean, marker="o", markersize=4, color=colour, linestyle="none")
    # An annotation does not widen the axes; an invisible point at its head does.
    ax.plot(*example.adversarial, alpha=0)
