"""Figures of the clouds: robustness against accuracy, and against the size of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from bnn_adv.report import style

Row = dict[str, Any]
"""A network: name, data set, method, settings, status and numbers, as JSON values."""

METHOD_COLOURS = {
    **{"hmc": "#0072b2", "sgd": "#d55e00", "vi": "#009e73"},
    **{"ensemble": "#e69f00", "laplace": "#cc79a7", "swag": "#56b4e9"},
}
_MARKERS = {
    **{"hmc": "o", "sgd": "^", "vi": "s"},
    **{"ensemble": "v", "laplace": "D", "swag": "P"},
}
NAMES = {
    **{"hmc": "HMC", "sgd": "SGD", "vi": "VI"},
    **{"ensemble": "ensemble", "laplace": "Laplace", "swag": "SWAG"},
}
"""For readers."""
PUBLISHED_FLOOR = 0.853
"""Below this the published metric cannot fall with ten classes (``metrics``)."""


def published_metric(row: Row) -> float:
    """Return softmax robustness under the published PGD, by the published metric."""
    return row["protocols"]["published"]["pgd"]["published_metric"]


def corrected_metric(row: Row) -> float:
    """Return softmax robustness under the corrected PGD, on probabilities."""
    return row["protocols"]["corrected"]["pgd"]["corrected_metric"]


def published_accuracy(row: Row) -> float:
    """Return accuracy under the published PGD, in [0, 1]."""
    return row["protocols"]["published"]["pgd"]["accuracy"]


def corrected_accuracy(row: Row) -> float:
    """Return accuracy under the corrected PGD, in [0, 1]."""
    return row["protocols"]["corrected"]["pgd"]["accuracy"]


def strong_accuracy(row: Row) -> float:
    """Return accuracy under the strong suite, in [0, 1]."""
    return row["protocols"]["strong"]["worst"]["accuracy"]


def strong_metric(row: Row) -> float:
    """Return softmax robustness under the strong suite, on probabilities."""
    return row["protocols"]["strong"]["worst"]["corrected_metric"]


def _percent(measure: Callable[[Row], float]) -> Callable[[Row], float]:
    return lambda row: 100 * measure(row)


_PANELS: tuple[tuple[str, str, Callable[[Row], float]], ...] = (
    ("published metric", "softmax robustness", published_metric),
    ("corrected metric", "softmax robustness", corrected_metric),
    ("strong attack", "adversarial accuracy (%)", _percent(strong_accuracy)),
)


def cloud_figure(rows: Sequence[Row]) -> Figure:
    """Draw robustness against accuracy, a dot a network, a line of panels a data set.

    Args:
      rows: Finished networks, at least one.

    Raises:
      ValueError: There is none.
    """
    datasets = list(dict.fromkeys(row["dataset"] for row in _some(rows)))
    with style.paper_style():
        figure = Figure(figsize=(6.8, 2.1 * len(datasets) + 0.5), layout="constrained")
        axes = figure.subplots(len(datasets), len(_PANELS), squeeze=False, sharex=True)
        for line, dataset in zip(axes, datasets, strict=True):
            own = [row for row in rows if row["dataset"] == dataset]
            for ax, (title, label, measure) in zip(line, _PANELS, strict=True):
                _scatter(ax, own, lambda row: 100 * row["accuracy"], measure)
                ax.set_ylabel(label)
                ax.set_title(f"{_words(dataset)}: {title}")
                ax.margins(0.08)
            _mark_bounds(line, own)
        for ax in axes[-1]:
            ax.set_xlabel("accuracy (%)")
        _legend(figure, list(axes.flat))
    return figure


def size_figure(rows: Sequence[Row]) -> Figure:
    """Draw robustness against the number of weights, a dot a network.

    Args:
      rows: Finished networks, at least one.

    Raises:
      ValueError: There is none.
    """
    datasets = list(dict.fromkeys(row["dataset"] for row in _some(rows)))
    with style.paper_style():
        figure = Figure(figsize=(6.8, 1.9 * len(datasets) + 0.5), layout="constrained")
        axes = figure.subplots(len(datasets), len(_PANELS), squeeze=False)
        for line, dataset in zip(axes, datasets, strict=True):
            own = [row for row in rows if row["dataset"] == dataset]
            for ax, (title, label, measure) in zip(line, _PANELS, strict=True):
                _scatter(ax, own, lambda row: row["num_params"] / 1000, measure)
                ax.set_xscale("log")
                ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                ax.xaxis.set_minor_formatter(NullFormatter())
                ax.set_ylabel(label)
                ax.set_title(f"{_words(dataset)}: {title}")
                ax.margins(0.08)
        for ax in axes[-1]:
            ax.set_xlabel("weights and biases (thousands)")
        _legend(figure, list(axes.flat))
    return figure


def _some(rows: Sequence[Row]) -> Sequence[Row]:
    if not rows:
        raise ValueError("No network is finished: there is nothing to draw.")
    return rows


def _scatter(
    ax: Axes, rows: Sequence[Row], x: Callable[[Row], float], y: Callable[[Row], float]
) -> None:
    ax.grid(color=style.GRID, linewidth=0.5)
    for place, (method, colour) in enumerate(METHOD_COLOURS.items()):
        for starred in (False, True):
            chosen = [r for r in rows if r["method"] == method and r["starred"] == starred]
            if chosen:
                ax.plot(
                    [x(row) for row in chosen],
                    [y(row) for row in chosen],
                    "*" if starred else _MARKERS[method],
                    color=colour,
                    markersize=9 if starred else 3.6,
                    markeredgecolor=style.INK if starred else "white",
                    markeredgewidth=0.6 if starred else 0.3,
                    linestyle="none",
                    alpha=1.0 if starred else 0.75,
                    label=f"{NAMES[method]}, starred" if starred else NAMES[method],
                    # The first methods are few and alike: they lie on top.
                    zorder=4 if starred else 3 - place / 10,
                )


def _mark_bounds(line: Sequence[Axes], rows: Sequence[Row]) -> None:
    """Draw what cannot be crossed: the published metric's floor, and the clean accuracy."""
    line[0].axhline(PUBLISHED_FLOOR, color=style.MUTED, linewidth=0.8, linestyle="--")
    ends = [100 * min(row["accuracy"] for row in rows), 100 * max(row["accuracy"] for row in rows)]
    line[2].plot(ends, ends, color=style.MUTED, linewidth=0.8, linestyle="--", zorder=1)


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    found: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    names = sorted(found)
    figure.legend(
        [found[name] for name in names],
        names,
        loc="outside upper center",
        ncols=max(len(names), 1),
        frameon=False,
    )


def _words(name: str) -> str:
    return {"mnist": "MNIST", "fashion_mnist": "Fashion"}.get(name, name)
