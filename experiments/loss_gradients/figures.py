"""Figures of expected loss gradients: maps of pixels, strips of components, norms against S."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_adv.report import style

EXPECTED = r"$\langle\nabla_{\!x} L(x, w)\rangle_w$"
NORM = r"$\|\langle\nabla_{\!x} L(x, w)\rangle_w\|_\infty$"
_POSTERIOR = style.CLASS_COLOURS[0]
_LINES = {
    "posterior": (_POSTERIOR, "o", "-"),
    "prior": ("#d55e00", "s", "--"),
    "shuffled labels": ("#009e73", "^", "-."),
}
_COLUMNS = 2


@dataclasses.dataclass(frozen=True)
class Curve:
    """Norms against the number of draws, over inputs.

    Args:
      counts: Numbers of draws, [K].
      lower: First quartile over inputs, [K].
      median: Median, [K].
      upper: Third quartile, [K].
    """

    counts: np.ndarray
    lower: np.ndarray
    median: np.ndarray
    upper: np.ndarray


@dataclasses.dataclass(frozen=True)
class Strip:
    """All components of the expected gradients for one number of draws.

    Args:
      count: Number of draws.
      components: Any shape; what is not finite is left out.
    """

    count: int
    components: np.ndarray


def gradient_maps(
    images: np.ndarray, gradients: np.ndarray, counts: Sequence[int], names: Sequence[str]
) -> Figure:
    """Draw images, and beside each its expected loss gradient for several numbers of draws.

    Args:
      images: Images in [0, 1], [M, H, W] or [M, H, W, 1].
      gradients: Expected gradients, [K, M, ...] with the images' shape.
      counts: Numbers of draws, [K].
      names: A label an image, [M].

    Returns:
      One row an image. The colours of a row share one scale, symmetric about zero.

    Raises:
      ValueError: There is no image, or images are no grey pictures.
    """
    images, gradients = np.asarray(images), np.asarray(gradients)
    if images.ndim == 4 and images.shape[-1] == 1:
        images, gradients = images[..., 0], gradients[..., 0]
    if images.ndim != 3 or not len(images):
        raise ValueError(f"Need grey images of shape [M, H, W], M > 0, got {images.shape}.")
    rows, columns = len(images), len(counts) + 1
    with style.paper_style():
        figure = Figure(figsize=(1.35 * columns, 1.5 * rows + 0.3), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for row, (line, image) in enumerate(zip(axes, images, strict=True)):
            line[0].imshow(image, cmap="gray_r", vmin=0, vmax=1)
            line[0].set_xlabel(style.plain(names[row]), fontsize=7.0)
            limit = float(np.nanmax(np.abs(gradients[:, row]), initial=0.0)) or 1.0
            for column, count in enumerate(counts):
                ax, gradient = line[column + 1], gradients[column, row]
                ax.imshow(gradient, cmap="RdBu_r", vmin=-limit, vmax=limit)
                norm = float(np.max(np.abs(gradient)))
                ax.set_xlabel(rf"$\|\cdot\|_\infty$ = {_short(norm)}", fontsize=7.0)
                if row == 0:
                    ax.set_title(f"S = {count}")
        axes[0, 0].set_title("image x")
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(True)
        figure.suptitle(f"expected loss gradient {EXPECTED}", fontsize=8.5)
    return figure


def gradient_strips(
    panels: Mapping[str, Sequence[Strip]], *, seed: int = 0, most: int = 50_000
) -> Figure:
    """Draw every component of the expected gradients, a strip a number of draws.

    Args:
      panels: Strips by title of panel.
      seed: Seed of the sideways jitter.
      most: Points drawn of a strip; where it has more, evenly spaced ones by rank, extremes too.

    Returns:
      One panel a title; above each strip the share of components that are exactly zero.
    """
    rng = np.random.default_rng(seed)
    with style.paper_style():
        figure, axes = _panels(len(panels), height=2.2)
        for ax, (title, strips) in zip(axes, panels.items(), strict=True):
            for place, strip in enumerate(strips):
                values = np.asarray(strip.components).ravel()
                values = values[np.isfinite(values)]
                drawn = _thin(values, most)
                sideways = place + rng.uniform(-0.28, 0.28, len(drawn))
                ax.plot(
                    sideways,
                    drawn,
                    linestyle="none",
                    marker=".",
                    markersize=1.2,
                    markeredgewidth=0,
                    color=_POSTERIOR,
                    alpha=0.5,
                    rasterized=True,
                )
                zero = 100 * float(np.mean(values == 0)) if len(values) else float("nan")
                ax.annotate(
                    f"{zero:.0f} % zero",
                    (place, 1),
                    (0, 3),
                    xycoords=("data", "axes fraction"),
                    textcoords="offset points",
                    ha="center",
                    fontsize=6.0,
                    color=style.MUTED,
                )
            ax.axhline(0, color="#aaaaaa", linewidth=0.6, zorder=0)
            ax.set_xticks(range(len(strips)), labels=[str(strip.count) for strip in strips])
            ax.set_xlim(-0.6, len(strips) - 0.4)
            ax.set_title(style.wrap(title, 40), pad=14)
        figure.supxlabel("draws S in the expectation", fontsize=8.0)
        figure.supylabel(f"components of {EXPECTED}", fontsize=8.0)
    return figure


def norm_curves(panels: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Draw the median norm against the number of draws, on logarithmic axes.

    Args:
      panels: Curves by title of panel and name: ``posterior``, ``prior``, ``shuffled labels``.

    Returns:
      One panel a title, with quartile bands and, from each panel's posterior and prior at their
      first S, the line of slope -1/2. Norms of zero have no place on the axis and are left out.
    """
    with style.paper_style():
        figure, axes = _panels(len(panels), height=2.2)
        handles: dict[str, Any] = {}
        for ax, (title, curves) in zip(axes, panels.items(), strict=True):
            for name, curve in curves.items():
                handles[name] = _draw_curve(ax, name, curve)
            for name in ("posterior", "prior"):
                line = _draw_law(ax, curves.get(name))
                if line is not None:
                    handles[r"$S^{-1/2}$"] = line
            counts = np.unique(np.concatenate([c.counts for c in curves.values()]))
            ax.set(xscale="log", yscale="log")
            ax.set_xticks(counts, labels=[str(count) for count in counts])
            ax.xaxis.minorticks_off()
            ax.set_title(style.wrap(title, 40))
            ax.grid(color=style.GRID, linewidth=0.5, zorder=0)
        figure.supxlabel("draws S in the expectation", fontsize=8.0)
        figure.supylabel(f"{NORM}, median and quartiles", fontsize=8.0)
        # One panel is narrower than a row of four.
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside upper center",
            ncols=4 if len(panels) > 1 else 2,
            frameon=False,
        )
    return figure


def _draw_curve(ax: Axes, name: str, curve: Curve) -> Any:
    colour, marker, dashes = _LINES[name]
    # Logarithms of zero are not drawn; matplotlib leaves gaps at NaN.
    median, lower, upper = (
        np.where(values > 0, values, np.nan) for values in (curve.median, curve.lower, curve.upper)
    )
    ax.fill_between(
        curve.counts,
        np.where(curve.lower > 0, lower, median),
        upper,
        color=colour,
        alpha=0.15,
        lw=0,
    )
    (line,) = ax.plot(
        curve.counts, median, color=colour, marker=marker, markersize=3.5, linestyle=dashes
    )
    return line


def _draw_law(ax: Axes, curve: Curve | None) -> Any:
    if curve is None or not np.any(curve.median > 0):
        return None
    first = int(np.argmax(curve.median > 0))
    counts = curve.counts[first:].astype(float)
    law = curve.median[first] * (counts / counts[0]) ** -0.5
    return ax.plot(counts, law, color=style.MUTED, linestyle=":", linewidth=1.0, zorder=1)[0]


def _thin(values: np.ndarray, most: int) -> np.ndarray:
    """Return at most ``most`` values, evenly spaced in rank: the extremes are among them."""
    if len(values) <= most:
        return values
    return np.sort(values)[np.linspace(0, len(values) - 1, most).astype(int)]


def _panels(number: int, *, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(_COLUMNS, number)
    rows = -(-number // columns)
    figure = Figure(figsize=(3.3 * columns, height * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes[number:]:
        ax.set_visible(False)
    return figure, axes[:number]


def _short(value: float) -> str:
    return "0 (exact)" if value == 0 else f"{value:.2g}"
