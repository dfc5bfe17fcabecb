"""Figure of accuracy against the radius of the attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnn_adv.report import fields, style

_NAMES = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$", "l1": r"$\ell_1$"}


def curve_figure(record: fields.Results) -> Figure | None:
    """Draw the robustness curve: measured points with intervals, over the distribution found.

    Args:
      record: ``Evaluation.record``.

    Returns:
      The share of inputs that stands against the radius; None where no curve was traced.
    """
    curve: Mapping[str, Any] = record.get("curve") or {}
    if not curve:
        return None
    smallest = np.array(
        [np.inf if value is None else value for value in curve["smallest_epsilon"]], float
    )
    epsilons, accuracy = np.asarray(curve["epsilons"]), np.asarray(curve["accuracy"])
    low, high = np.asarray(curve["intervals"]).T
    radius = float(record["epsilon"])
    with style.paper_style():
        figure = Figure(figsize=(3.4, 2.5), layout="constrained")
        ax = figure.subplots()
        finite = np.sort(smallest[np.isfinite(smallest)])
        steps = np.concatenate([[0.0], finite])
        # After its smallest radius an input no longer stands.
        standing = 1 - np.searchsorted(finite, steps, side="right") / len(smallest)
        ax.step(steps, 100 * standing, where="post", color=style.MUTED, linewidth=0.9)
        ax.errorbar(
            epsilons,
            100 * accuracy,
            yerr=100 * np.maximum([accuracy - low, high - accuracy], 0),
            fmt="o",
            markersize=4,
            elinewidth=1.0,
            color="#0072b2",
            clip_on=False,
            zorder=3,
        )
        if radius > 0:
            ax.axvline(radius, color="#d55e00", linewidth=0.9, linestyle="--")
        ax.set_xlim(0, max(float(epsilons.max()), radius) * 1.05 or 1.0)
        ax.set_ylim(0, 100)
        norm = _NAMES.get(str(record.get("norm")), str(record.get("norm")))
        ax.set_xlabel(rf"radius $\epsilon$ ({norm})")
        ax.set_ylabel("accuracy under attack (%)")
        ax.grid(color=style.GRID, linewidth=0.5)
    return figure


def curve_caption(record: fields.Results) -> str:
    """Return what the figure shows and how it is read."""
    count = (record.get("curve") or {}).get("num_images", 0)
    return (
        f"Accuracy against the radius of the attack, {count:,} inputs drawn by seed. Points with "
        "95 % Wilson intervals: share of inputs that no attack breaks within the radius. Line: the "
        "same from the smallest perturbation found for every input, by bisection and by attacks "
        "that minimise the norm. Dashed: the radius of the evaluation. All are upper bounds."
    )
