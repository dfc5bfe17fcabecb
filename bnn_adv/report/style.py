"""What all figures share: fonts, colours, and turning a figure into bytes."""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# Okabe and Ito's palette, distinguishable with any colour vision and in grey.
INK, MUTED, GRID = "#1a1a1a", "#666666", "#dddddd"
CLEAN_COLOUR, WRONG_COLOUR = "#1a1a1a", "#d55e00"
_SUITE_COLOURS = {"published": "#e69f00", "corrected": "#009e73", "strong": "#0072b2"}
_OTHER_COLOURS = ("#cc79a7", "#56b4e9", "#d55e00", "#999999")
CLASS_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")

_FONT: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 7.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#888888",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "lines.linewidth": 1.3,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "image.interpolation": "nearest",
}


@contextlib.contextmanager
def paper_style() -> Iterator[None]:
    """Draw with the settings of this module, whatever the reader's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_FONT)
        yield


def suite_colours(suites: tuple[str, ...]) -> dict[str, str]:
    """Return a colour for every suite; the three known ones always have the same."""
    others = [name for name in suites if name not in _SUITE_COLOURS]
    rest = {name: _OTHER_COLOURS[i % len(_OTHER_COLOURS)] for i, name in enumerate(others)}
    return _SUITE_COLOURS | rest


def plain(text: Any) -> str:
    """Return text that matplotlib does not read as a formula."""
    return " ".join(str(text).split()).replace("$", r"\$")


def wrap(text: Any, width: int) -> str:
    """Return text in lines, broken at spaces and underscores, that is no formula."""
    # A space after each underscore lets the text break there; it is taken out again.
    breakable = " ".join(str(text).split()).replace("_", "_ ")
    lines = textwrap.wrap(breakable, width, max_lines=3, placeholder=" …") or ["unnamed"]
    return "\n".join(plain(line.replace("_ ", "_")) for line in lines)


def to_png(figure: Figure, *, dpi: int = 200) -> bytes:
    """Return a figure as PNG, the same bytes for the same figure.

    Args:
      figure: What to draw.
      dpi: Pixels per inch.
    """
    buffer = io.BytesIO()
    with paper_style():
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
