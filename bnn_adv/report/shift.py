"""What uncertainty tells of inputs of another kind: tables, a figure, a page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_adv.report import page, style
from bnn_adv.report.table import Table, named_lines, to_html, to_text
from bnn_adv.report.wording import Measured, format_percent, to_dict

_CONDITIONS = {
    "clean": "clean",
    "out_attacked": "OOD attacked",
    "in_attacked": "in distr. attacked",
    "both_attacked": "both attacked",
}
_KINDS = {"in": "in distribution", "out": "out of distribution"}
_REJECTIONS = (0.0, 0.2, 0.5)
_LARGEST_STUCK = 0.05
_WIDTH = 100
_COLOURS = ("#0072b2", "#e69f00", "#009e73")
_MARKERS = ("o", "s", "^")


def shift_tables(found: Mapping[str, Any]) -> tuple[Table, ...]:
    """Return how scores tell the two kinds apart, and what refusing by them is worth.

    Args:
      found: ``ShiftReport.to_dict``.

    Returns:
      Three tables; none where nothing was measured.
    """
    if not found:
        return ()
    scores = {_spell(name): part for name, part in found["scores"].items()}
    told = [
        (name, *(_with_interval(part[key]) for key in _CONDITIONS)) for name, part in scores.items()
    ]
    return (
        Table(
            "Semantic shift",
            ("score", *(f"AUROC, {name}" for name in _CONDITIONS.values())),
            named_lines(told, "accuracy"),
            f"{found['num_in']:,} inputs in distribution, of which "
            f"{format_percent(found['accuracy'])} % are classified correctly, against "
            f"{found['num_out']:,} out of distribution (OOD). AUROC: how well a score tells them "
            "apart (1: always; 0.5: chance), 95 % interval. Attacked, by somebody who knows draws "
            "and score: OOD inputs to look certain, inputs in distribution to look uncertain. "
            "Under attack numbers are upper bounds.",
        ),
        _selective_table("Selective accuracy", scores, "selective", "in distribution"),
        _selective_table(
            "Selective accuracy of both kinds",
            scores,
            "selective_mixed",
            "of both kinds (no answer to an OOD input is right)",
        ),
    )


def _selective_table(title: str, scores: Mapping[str, Any], key: str, which: str) -> Table:
    lines = []
    for name, part in scores.items():
        for state, curve in (("clean", part[key]), ("attacked", part[f"{key}_attacked"])):
            at = [_read_off(curve, rejection) for rejection in _REJECTIONS]
            lines.append((f"{name}, {state}", *map(str, at), format_percent(curve["area"])))
    return Table(
        title,
        ("score", *(f"{100 * r:.0f} % refused" for r in _REJECTIONS), "area"),
        named_lines(lines, "accuracy"),
        f"Accuracy in % of inputs {which} that are answered, the most uncertain refused first, "
        "with 95 % Wilson intervals over the answered; area: its mean over all numbers of answers. "
        "Attacked: an input that can be misclassified is, as certain as can be; others look "
        "uncertain.",
    )


def _read_off(curve: Mapping[str, Any], rejection: float) -> Measured:
    # The last of the tabulated where all others refuse fewer.
    places = [i for i, r in enumerate(curve["rejection"]) if r >= rejection - 1e-9]
    place = places[0] if places else len(curve["rejection"]) - 1
    low, high = curve["intervals"][place]
    return Measured(curve["accuracy"][place], (low, high))


def describe_stuck(found: Mapping[str, Any]) -> str:
    """Return a sentence on gradients that are exactly zero, with a warning where there are many."""
    zeros, stuck = found["zero_gradients"], found["stuck"]
    worst = {kind: max(zeros, key=lambda name: zeros[name][kind]) for kind in _KINDS}
    if not any(zeros[name][kind] for kind, name in worst.items()):
        return "No gradient is exactly zero at a clean input."
    shares = [
        f"{format_percent(zeros[name][kind])} % of inputs {_KINDS[kind]} ({_spell(name)})"
        for kind, name in worst.items()
    ]
    text = (
        f"Gradients that are exactly zero at the clean input, the most of any objective: "
        f"{' and '.join(shares)}. No objective moves {format_percent(stuck['in'])} % and "
        f"{format_percent(stuck['out'])} %."
    )
    if max(stuck.values()) > _LARGEST_STUCK:
        text += (
            " WARNING: that is a sign of masking; these attacks may have failed for reasons other "
            "than robustness."
        )
    return text


def format_shift(found: Mapping[str, Any], *, captions: bool = True) -> str:
    """Return tables and sentences for a terminal.

    Args:
      found: ``ShiftReport.to_dict``.
      captions: Whether to say how the tables are read.
    """
    parts = []
    for table in shift_tables(found):
        parts += [table.title, to_text(table), ""]
        parts += [*_wrap(table.caption), ""] if captions else []
    return "\n".join([*parts, *_wrap(describe_stuck(found))]) + "\n"


def shift_figure(found: Mapping[str, Any]) -> Figure:
    """Draw AUROC under the four conditions, and accuracy against the share that is refused.

    Args:
      found: ``ShiftReport.to_dict``.
    """
    scores = found["scores"]
    with style.paper_style():
        figure = Figure(figsize=(7.0, 2.7), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        _draw_areas(left, scores)
        for number, (name, part) in enumerate(scores.items()):
            colour = _COLOURS[number]
            for key, dashes in (("selective", "-"), ("selective_attacked", "--")):
                curve = part[key]
                right.plot(
                    100 * np.asarray(curve["rejection"]),
                    100 * np.asarray(curve["accuracy"]),
                    dashes,
                    color=colour,
                    # Where lines lie on each other all are seen.
                    linewidth=2.6 - 0.7 * number,
                    label=_spell(name) if dashes == "-" else None,
                    clip_on=False,
                )
        right.plot([], [], "--", color=style.MUTED, label="attacked")
        right.set_xlim(0, 100)
        right.set_ylim(0, 100)
        right.set_xlabel("inputs refused (%)")
        right.set_ylabel("accuracy of the others (%)")
        right.grid(color=style.GRID, linewidth=0.5)
        right.legend(frameon=False, loc="best")
    return figure


def _draw_areas(ax: Axes, scores: Mapping[str, Any]) -> None:
    for number, (name, part) in enumerate(scores.items()):
        places = np.arange(len(_CONDITIONS)) + 0.22 * (number - (len(scores) - 1) / 2)
        values = np.array([part[key]["value"] for key in _CONDITIONS])
        ends = np.array([[part[key][end] for key in _CONDITIONS] for end in ("lower", "upper")])
        ax.errorbar(
            places,
            values,
            yerr=np.maximum([values - ends[0], ends[1] - values], 0),
            fmt=_MARKERS[number],
            markersize=4,
            elinewidth=1.0,
            color=_COLOURS[number],
            label=_spell(name),
            clip_on=False,
        )
    ax.axhline(0.5, color=style.MUTED, linewidth=0.8, linestyle=":")
    ax.set_xticks(
        range(len(_CONDITIONS)),
        labels=["clean", "OOD\nattacked", "in distr.\nattacked", "both\nattacked"],
    )
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.5, len(_CONDITIONS) - 0.5)
    ax.set_ylim(0, 1)
    ax.set_ylabel("AUROC")
    ax.grid(axis="y", color=style.GRID, linewidth=0.5)


def shift_caption(found: Mapping[str, Any]) -> str:
    """Return what the figure shows and how it is read."""
    return (
        f"Semantic shift, clean and attacked. Left: AUROC of {found['num_out']:,} inputs out of "
        f"distribution (OOD) against {found['num_in']:,} in distribution, by three scores, with "
        "95 % intervals; dotted: chance. Right: accuracy in distribution of the inputs that are "
        "not refused, clean (lines) and attacked (dashed)."
    )


def render_shift(found: Mapping[str, Any]) -> str:
    """Render a report as one HTML file that needs nothing else.

    Args:
      found: ``ShiftReport.to_dict``.
    """
    return page.render(
        "shift.html",
        title=f"Semantic shift: {found['norm']} {found['epsilon']:g}, {found['num_samples']} draws",
        shifts=shift_sections({"": found}),
    )


def shift_sections(reports: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return sections of a page, of reports by name of the inputs out of distribution."""
    sections = []
    for name, found in reports.items():
        tables = shift_tables(to_dict(found))
        for number, table in enumerate(tables):
            is_first = number == 0
            picture = style.to_png(shift_figure(found)) if is_first else b""
            sections.append(
                {
                    "title": f"{table.title}: {_spell(name)}" if name else table.title,
                    "figure": page.picture(picture, shift_caption(found)) if is_first else None,
                    "table": to_html(table),
                    "sentence": describe_stuck(found) if is_first else "",
                }
            )
    return sections


def _spell(name: str) -> str:
    return " ".join(name.split()).replace("_", " ")


def _with_interval(auroc: Mapping[str, float]) -> str:
    return f"{auroc['value']:.3f} [{auroc['lower']:.3f}, {auroc['upper']:.3f}]"


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_on_hyphens=False)
