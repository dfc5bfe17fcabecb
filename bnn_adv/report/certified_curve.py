"""Figure of certified and attacked accuracy against the radius, and of the gap between them."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from bnn_adv.report import fields, style

_NORMS = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$", "l1": r"$\ell_1$"}
_CERTIFIED, _ATTACKED = "#0072b2", "#d55e00"


def certified_figure(record: fields.Results) -> Figure | None:
    """Draw the share of inputs that is certified, and that stands, within every radius.

    Args:
      record: Of ``experiments.certify``, or ``Bracket.record``.

    Returns:
      The figure; None where no radii were looked for.
    """
    if not record.get("certified_radius"):
        return None
    certified = np.asarray(record["certified_radius"], float)
    attacked = _attacked(record)
    if attacked is not None:
        certified = certified[np.asarray(record["curve_indices"], int)]
    values = [certified, *([] if attacked is None else [attacked])]
    finite = np.concatenate([array[np.isfinite(array)] for array in values])
    last = max(float(finite.max(initial=0.0)), float(record["epsilon"])) * 1.05 or 1.0
    steps = np.unique([0.0, *finite, last])
    # Certified at its own radius; broken at its own.
    low = np.array([np.mean(certified >= step) if step else np.nan for step in steps])
    low[0] = np.mean(certified > 0)
    with style.paper_style():
        figure = Figure(figsize=(3.8, 2.6), layout="constrained")
        ax = figure.subplots()
        # A certified radius counts up to and including itself, hence the step before.
        ax.step(steps, 100 * low, where="pre", color=_CERTIFIED, label="certified")
        if attacked is not None:
            high = np.array([np.mean(attacked > step) for step in steps])
            ax.step(steps, 100 * high, where="post", color=_ATTACKED, label="withstands attacks")
            between = np.repeat(steps, 2)[1:-1]
            ax.fill_between(
                between,
                100 * np.repeat(low[1:], 2),
                100 * np.repeat(high[:-1], 2),
                color=style.GRID,
                linewidth=0,
                label="not known",
            )
        if record["epsilon"] > 0:
            ax.axvline(record["epsilon"], color=style.MUTED, linewidth=0.9, linestyle="--")
        ax.set_xlim(0, last)
        ax.set_ylim(0, 100)
        ax.set_xlabel(rf"radius $\epsilon$ ({_NORMS.get(record['norm'], record['norm'])})")
        ax.set_ylabel("accuracy (%)")
        ax.grid(color=style.GRID, linewidth=0.5)
        ax.legend(frameon=False, loc="best")
    return figure


def certified_caption(record: fields.Results) -> str:
    """Return what the figure shows and how it is read."""
    attacked = _attacked(record)
    count = len(record["certified_radius"] if attacked is None else attacked)
    text = (
        f"Certified accuracy against the radius, {count:,} inputs. Lower line: share of inputs "
        "whose prediction is proved not to change within the radius, by bisection: a lower bound "
        "of the truth."
    )
    if attacked is not None:
        text += (
            " Upper line: share that no attack broke within it: an upper bound. The truth lies in "
            "the grey between."
        )
    return f"{text} Dashed: the radius that was asked for."


def _attacked(record: fields.Results) -> np.ndarray | None:
    found = record.get("smallest_epsilon")
    if found is None:
        return None
    return np.array([np.inf if value is None else value for value in found], float)
