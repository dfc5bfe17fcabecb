"""Pieces of HTML; every function escapes the text that it is given."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from html import escape
from typing import Literal, NamedTuple

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DOTS_PER_CSS_PIXEL = 200 / 96


class Cell(NamedTuple):
    """A cell of a table.

    text: What stands in it.
    kind: How it is set; an accuracy is ``value`` or ``value [low, high]``, prose is broken into
      lines.
    note: Small print below.
    rows: Number of lines that it spans.
    is_heading: Whether it names its line.
    """

    text: str
    kind: Literal["name", "number", "accuracy", "prose"] = "number"
    note: str = ""
    rows: int = 1
    is_heading: bool = False


def section(title: str, *parts: str) -> str:
    """Return a section, or nothing where all its parts are empty. Parts are HTML."""
    inner = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{inner}\n</section>" if inner else ""


def paragraph(text: str, *, style: str = "") -> str:
    """Return a paragraph, or nothing where the text is empty."""
    attribute = f' class="{escape(style)}"' if style else ""
    return f"<p{attribute}>{escape(text)}</p>" if text else ""


def table(header: Sequence[str], lines: Sequence[Sequence[Cell]]) -> str:
    """Return a table that scrolls by itself where the page is narrow.

    Args:
      header: Names of the columns.
      lines: Cells; the first line is complete and a line that begins with a heading gets a rule
        above.
    """
    if not lines:
        return ""
    heads = "".join(
        f'<th scope="col" class="{cell.kind}">{escape(name)}</th>'
        for name, cell in zip(header, lines[0], strict=True)
    )
    body = "\n".join(map(_line, lines))
    return (
        f'<div class="scroll"><table class="results">\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def pairs(items: Sequence[tuple[str, str]]) -> str:
    """Return a table of names and texts, or nothing where there are none."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>'
        for name, text in items
    )
    return f'<div class="scroll"><table class="pairs"><tbody>{rows}</tbody></table></div>' * bool(
        rows
    )


def figure(png: bytes, caption: str) -> str:
    """Return a figure with its picture inside the page.

    Raises:
      ValueError: The bytes are not a PNG.
    """
    if not png.startswith(_PNG_SIGNATURE) or len(png) < 24:
        raise ValueError("A figure is not a PNG; figures are given as the bytes of PNG files.")
    width, height = (round(n / _DOTS_PER_CSS_PIXEL) for n in struct.unpack(">II", png[16:24]))
    data = base64.b64encode(png).decode("ascii")
    # The first sentence says what is shown; readers of the alternative text need no more.
    alternative = caption.partition(". ")[0]
    return (
        f'<figure><div class="scroll"><img alt="{escape(alternative)}" width="{width}" '
        f'height="{height}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _line(cells: Sequence[Cell]) -> str:
    attribute = ' class="first"' if cells and cells[0].is_heading else ""
    return f"<tr{attribute}>{''.join(map(_cell, cells))}</tr>"


def _cell(cell: Cell) -> str:
    if cell.kind == "accuracy":
        value, bracket, interval = cell.text.partition(" [")
        text = f'<span class="value">{escape(value)}</span>'
        text += f" <small>[{escape(interval)}</small>" if bracket else ""
    else:
        text = escape(cell.text)
    note = f'<small class="note">{escape(cell.note)}</small>' if cell.note else ""
    tag, scope = ("th", ' scope="row"') if cell.is_heading else ("td", "")
    span = f' rowspan="{cell.rows}"' if cell.rows > 1 else ""
    return f'<{tag}{scope}{span} class="{cell.kind}">{text}{note}</{tag}>'
