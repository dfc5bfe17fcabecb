"""Figure of the training curves: loss, negative ELBO, log density."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from bnn_adv.report import fields, style, wording
from bnn_adv.report.fields import Results

_PANELS_PER_ROW = 4
_CURVES = (
    ("loss", 1.0, "training loss (nats)", "epoch"),
    ("elbo", -1.0, "negative ELBO (nats)", "epoch"),
    ("log_density", 1.0, "log density (nats)", "kept draw"),
)


class _Curve(NamedTuple):
    model: str
    values: np.ndarray  # [curves, steps]
    label: str
    steps: str


def training_figure(results: Results) -> Figure | None:
    """Draw the training curve of every model that has one, one panel a curve.

    Args:
      results: What the run found; curves are ``loss``, ``elbo`` (drawn negative) and
        ``log_density`` of a row's diagnostics, each one list of numbers or one list per chain or
        member.

    Returns:
      Small multiples, None where no model has a curve.

    Raises:
      ValueError: The results have another schema version.
    """
    fields.check_schema(results)
    curves = [curve for row in wording.to_dicts(results.get("rows")) for curve in _curves(row)]
    if not curves:
        return None
    with style.paper_style():
        num_columns = min(_PANELS_PER_ROW, len(curves))
        num_rows = math.ceil(len(curves) / num_columns)
        figure = Figure(
            figsize=(0.3 + 2.1 * num_columns, 2.0 * num_rows),
            layout=ConstrainedLayoutEngine(w_pad=0.09),
        )
        axes = figure.subplots(num_rows, num_columns, squeeze=False)
        for ax, curve in zip(axes.flat, curves, strict=False):
            _draw_curve(ax, curve)
        for ax in axes.flat[len(curves) :]:
            ax.set_visible(False)
    return figure


def _curves(row: Mapping[str, Any]) -> list[_Curve]:
    diagnostics = wording.to_dict(row.get("diagnostics"))
    model = wording.one_line(row.get("model") or "unnamed")
    found = []
    for key, sign, label, steps in _CURVES:
        values = _numbers(diagnostics.get(key))
        if values is not None:
            found.append(_Curve(model, sign * values, label, steps))
    return found


def _numbers(value: Any) -> np.ndarray | None:
    if isinstance(value, str | Mapping) or not hasattr(value, "__len__"):
        return None
    try:
        array = np.atleast_1d(np.asarray(value, dtype=float))
    except (TypeError, ValueError):
        return None
    array = array[None] if array.ndim == 1 else array
    is_curve = array.ndim == 2 and array.size and np.isfinite(array).any()
    return array if is_curve else None


def _draw_curve(ax: Axes, curve: _Curve) -> None:
    num_curves, num_steps = curve.values.shape
    steps = np.arange(1, num_steps + 1)
    for number, values in enumerate(curve.values):
        ax.plot(
            steps,
            values,
            color=style.CLASS_COLOURS[number % len(style.CLASS_COLOURS)],
            linewidth=1.3 if num_curves == 1 else 0.9,
            marker="o" if num_steps <= 25 else None,
            markersize=2.8,
        )
    finite = curve.values[np.isfinite(curve.values)]
    if finite.min() > 0 and finite.max() > 20 * finite.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.tick_params(axis="y", which="minor", length=0)
    else:
        ax.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True, useOffset=False)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    ax.set_title(style.wrap(curve.model, 20))
    ax.set_xlabel(curve.steps)
    ax.set_ylabel(curve.label)
    ax.grid(color=style.GRID, linewidth=0.5)
