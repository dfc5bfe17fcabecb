"""Figures of the theory: gradients along and across manifolds, and their means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from bnn_adv.report import style
from bnn_adv.theory.averages import signed_root

TANGENT, NORMAL, AFTER = "#0072b2", "#d55e00", "#009e73"
_METHODS = {
    "hmc": ("HMC", "#0072b2", "o"),
    "vi": ("VI", "#e69f00", "s"),
    "ensemble": ("ensemble", "#009e73", "^"),
    "prior": ("prior", "#999999", "D"),
}
Rows = Sequence[Mapping[str, Any]]


def convergence_figure(rows: Rows) -> Figure:
    """Draw loss and gradient norm against width, data and steps.

    Args:
      rows: One a width and number of examples, with lists over seeds and steps.
    """
    widest, most = max(r["width"] for r in rows), max(r["num_data"] for r in rows)
    by_width = sorted((r for r in rows if r["num_data"] == most), key=lambda r: r["width"])
    by_data = sorted((r for r in rows if r["width"] == widest), key=lambda r: r["num_data"])
    last = next(r for r in rows if r["width"] == widest and r["num_data"] == most)

    def at_end(chosen: Rows, name: str) -> np.ndarray:
        return np.stack([np.asarray(r[name])[:, -1] for r in chosen])

    panels: list[tuple[str, Any, Any]] = [
        ("hidden units", [r["width"] for r in by_width], lambda n: at_end(by_width, n)),
        ("training points", [r["num_data"] for r in by_data], lambda n: at_end(by_data, n)),
        ("gradient steps", last["steps"], lambda n: np.asarray(last[n]).T),
    ]
    lines = (
        ("test_loss", style.INK, "o", "loss, held out"),
        ("train_loss", style.MUTED, "D", "loss, training"),
        ("loss_tangent", TANGENT, "s", r"$\|\nabla_\parallel L\|$"),
        ("loss_normal", NORMAL, "^", r"$\|\nabla_\perp L\|$"),
    )
    with style.paper_style():
        figure = Figure(figsize=(6.6, 2.5), layout="constrained")
        axes = figure.subplots(1, 3, sharey=True)
        for ax, (label, x, values) in zip(axes, panels, strict=True):
            for name, colour, marker, text in lines:
                _draw_seeds(ax, x, values(name), colour, marker, text)
            _log_axes(ax)
            ax.set_xlabel(label)
        axes[0].set_ylabel("at the end, squared loss")
        axes[0].legend(frameon=False, handlelength=1.5)
    return figure


def dimension_figure(rows: Rows) -> Figure:
    """Draw parts of the score's and the loss's gradient against loss, a column a support.

    Args:
      rows: One a support, trained with the squared loss.
    """
    kinds = (("score", r"score, $\|\nabla f_y\|$"), ("loss", r"loss, $\|\nabla L\|$"))
    with style.paper_style():
        figure = Figure(figsize=(0.6 + 1.5 * len(rows), 3.6), layout="constrained")
        axes = figure.subplots(2, len(rows), squeeze=False, sharex=True, sharey="row")
        for column, row in enumerate(rows):
            loss = np.asarray(row["test_loss"]).mean(axis=0)
            for line, (kind, label) in enumerate(kinds):
                ax = axes[line, column]
                _draw_seeds(ax, loss, np.asarray(row[f"{kind}_tangent"]).T, TANGENT, "s", "tangent")
                normal = np.asarray(row[f"{kind}_normal"]).T
                if np.any(normal > 0):
                    _draw_seeds(ax, loss, normal, NORMAL, "^", "normal")
                _log_axes(ax)
                if not column:
                    ax.set_ylabel(label)
            full = "full dimension" if row["has_full_dimension"] else "lower dimension"
            title = style.wrap(f"{row['support'].replace('-', ' ')}, d={row['dim']}", 18)
            axes[0, column].set_title(f"{title}\n{full}", fontsize=7.5)
        axes[0, 0].legend(frameon=False, handlelength=1.5)
        figure.supxlabel("held-out loss $L$ (falls to the left as training goes on)", fontsize=8.0)
    return figure


def field_figure(field: Mapping[str, Any]) -> Figure | None:
    """Draw gradients of the log-odds on a curve of the plane, before and after Lemma 4.

    Args:
      field: Points, tangent and normal parts, and the index of the point under attack.

    Returns:
      Two panels; None where the manifold does not lie in the plane.
    """
    x, labels = np.asarray(field["x"]), np.ravel(field["labels"])
    if x.shape[-1] != 2:
        return None
    before, after = np.asarray(field["before"]), np.asarray(field["after"])
    tangent, attacked = np.asarray(field["tangent"]), int(np.ravel(field["attacked"])[0])
    length = 0.45 / max(np.linalg.norm(v, axis=-1).max() for v in (before, after, tangent))
    panels = (
        ("gradient along and across", ((tangent, TANGENT, "tangent"), (before, NORMAL, "normal"))),
        ("normal part, two networks", ((before, NORMAL, "$w$"), (after, AFTER, "$w'$"))),
    )
    with style.paper_style():
        figure = Figure(figsize=(6.6, 2.6), layout="constrained")
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        for ax, (title, arrows) in zip(axes, panels, strict=True):
            for label in np.unique(labels):
                chosen = x[labels == label]
                ax.plot(*chosen.T, ".", color=style.MUTED if label else style.INK, markersize=4)
            for vectors, colour, name in arrows:
                ax.quiver(
                    *x.T,
                    *(length * vectors.T),
                    angles="xy",
                    scale_units="xy",
                    scale=1,
                    width=0.006,
                    color=colour,
                    label=name,
                )
            ax.set_title(title)
            ax.set_aspect("equal", adjustable="box")
            ax.set_xlabel("$x_1$")
            ax.legend(frameon=False, loc="upper right", handlelength=1.2)
        axes[1].plot(*x[attacked], "o", markersize=10, fillstyle="none", color=style.INK)
        # Arrows do not widen the axes by themselves.
        tips = np.concatenate([x, *(x + length * v for v in (tangent, before, after))])
        axes[0].set_xlim(tips[:, 0].min() - 0.1, tips[:, 0].max() + 0.1)
        axes[0].set_ylim(tips[:, 1].min() - 0.1, tips[:, 1].max() + 0.1)
        axes[0].set_ylabel("$x_2$")
    return figure


def mirror_figure(rows: Rows) -> Figure:
    """Draw how far function and gradient are from what Lemma 4 asks, one dot a construction."""
    names = [row["manifold"].replace("-", " ") for row in rows]
    panels = (
        ("max_difference", "largest change of a\nprobability on $M$", 1e-2),
        ("max_log_odds", "largest change of the\nlog-odds on $M$", None),
        ("relative_error", r"$\|v' + v\| \,/\, \|v\|$", None),
    )
    with style.paper_style():
        figure = Figure(figsize=(6.6, 0.9 + 0.28 * len(rows)), layout="constrained")
        axes = figure.subplots(1, 3, sharey=True)
        for ax, (name, label, limit) in zip(axes, panels, strict=True):
            for height, row in enumerate(rows):
                # Zero in float32 has no place on a logarithmic axis.
                values = np.maximum(row[name], 1e-9)
                shift = np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else [0.0]
                colours = [AFTER if ok else NORMAL for ok in row["success"]]
                ax.scatter(values, height + np.asarray(shift), s=6, c=colours, linewidths=0)
            if limit:
                ax.axvline(limit, color=style.INK, linewidth=0.8, linestyle="--")
            ax.set_xscale("log")
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set_xlabel(label)
            ax.grid(axis="x", color=style.GRID, linewidth=0.5)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def means_figure(rows: Rows, panels: Sequence[tuple[str, str, str]]) -> Figure:
    """Draw the mean gradient's norm against S beside the prior's and the S^(-1/2) line.

    Args:
      rows: Posteriors of one width and number of examples.
      panels: (title, manifold, part) of each column; part is ``within`` or ``across``.
    """
    kinds = (("score", "log-odds"), ("loss", "loss"))
    with style.paper_style():
        figure = Figure(figsize=(0.7 + 2.0 * len(panels), 4.0), layout="constrained")
        axes = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey=True)
        for column, (title, manifold, part) in enumerate(panels):
            for line, (kind, name) in enumerate(kinds):
                ax = axes[line, column]
                _draw_means(ax, [r for r in rows if r["manifold"] == manifold], f"{kind}_{part}")
                ax.set_title(title if not line else "")
                if not column:
                    ax.set_ylabel(f"{name}:\n$\\| \\bar g_S \\| / E \\| g \\|$")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=5)
        figure.supxlabel("number of draws $S$", fontsize=8.0)
    return figure


def _draw_means(ax: Axes, rows: Rows, name: str) -> None:
    largest = 1
    for method, (label, colour, marker) in _METHODS.items():
        chosen = [r[name] for r in rows if r["method"] == method]
        if chosen:
            counts = chosen[0]["counts"]
            largest = max(largest, counts[-1])
            norms = np.stack([np.asarray(c["norms"]) / max(c["typical"], 1e-30) for c in chosen])
            _draw_seeds(ax, counts, norms.T, colour, marker, label)
    line = np.geomspace(1, largest, 20)
    ax.plot(line, line**-0.5, color=style.INK, linestyle="--", linewidth=0.9, label="$S^{-1/2}$")
    _log_axes(ax)


def sweep_figure(rows: Rows) -> Figure:
    """Draw the share of the normal gradient that is left in the mean, against width and data."""
    parts = (("within", "-", "full"), ("across", "--", "none"))
    with style.paper_style():
        figure = Figure(figsize=(6.6, 2.4), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, axis, other in zip(axes, ("width", "num_data"), ("num_data", "width"), strict=True):
            base = rows[0][other]
            for method, (label, colour, marker) in _METHODS.items():
                for part, dash, fill in parts:
                    chosen = [r for r in rows if r["method"] == method and r[other] == base]
                    x = sorted({r[axis] for r in chosen})
                    squares = [
                        [r[f"score_{part}"]["square"] for r in chosen if r[axis] == v] for v in x
                    ]
                    # The prior knows no data: it has one number there.
                    if x and (axis == "width" or method != "prior"):
                        text = f"{label}, {part}"
                        means, *ends = (
                            [signed_root(float(f(s))) for s in squares]
                            for f in (np.mean, np.min, np.max)
                        )
                        ax.fill_between(x, *ends, color=colour, alpha=0.15, linewidth=0)
                        (line,) = ax.plot(x, means, dash, color=colour, marker=marker, label=text)
                        line.set(markersize=4, fillstyle=fill)
            ax.set_xscale("log")
            ax.set_xticks(sorted({r[axis] for r in rows}))
            ax.minorticks_off()
            ax.xaxis.set_major_formatter(FormatStrFormatter("%d"))
            ax.set_ylim(-0.15, 1.05)
            ax.grid(color=style.GRID, linewidth=0.5)
        axes[0].set_xlabel("hidden units")
        axes[1].set_xlabel("training points")
        axes[0].set_ylabel(r"share left, $\|E g\| / E\|g\|$")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc="outside right center", handlelength=2.2)
    return figure


def _draw_seeds(ax: Axes, x: Any, values: np.ndarray, colour: str, marker: str, label: str) -> None:
    """Draw the geometric mean over seeds, values [points, seeds], and the range of them all."""
    values = np.maximum(np.asarray(values, float), 1e-12)
    middle = np.exp(np.log(values).mean(axis=1))
    ax.fill_between(
        x, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.18, linewidth=0
    )
    ax.plot(x, middle, color=colour, marker=marker, markersize=3.5, label=label)


def _log_axes(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        _thin_labels(axis)
    ax.grid(color=style.GRID, linewidth=0.5)


def _thin_labels(axis: Axis) -> None:
    """Label powers of ten only, or 1, 2 and 5 of them where less than two are in sight."""
    low, high = axis.get_view_interval()
    axis.set_minor_formatter(NullFormatter())
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FormatStrFormatter("%g"))
