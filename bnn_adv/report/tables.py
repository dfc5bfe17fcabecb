"""The results as one table, for a terminal and for a README.

A model has one line per protocol, so that what each protocol claims about the same draws stands
in one column, one below the other.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from bnn_adv.report import captions, fields, wording
from bnn_adv.report.fields import Line, Results

NOT_PART = "-"
_MIN_WIDTH = 80
_NUM_HEAD = 3


class Group(NamedTuple):
    """The lines of one model as text.

    line: The model and who predicts.
    head: Name, draws and clean accuracy.
    body: Per protocol its name, every attack, softmax robustness and share of zero gradients;
      ``-`` where the protocol has no such number, ``n/a`` where the number is missing.
    """

    line: Line
    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]


def table_groups(results: Results) -> tuple[tuple[str, ...], tuple[Group, ...]]:
    """Return the names of the columns and the lines of every model.

    Args:
      results: What the run found.

    Returns:
      Header (of head and body) and groups. Accuracies are in per cent with their 95 % intervals;
      of a worst-case protocol only ``worst`` is a column.
    """
    protocols = fields.list_protocols(results)
    attacks = list(
        dict.fromkeys(a for protocol in protocols for a in fields.list_attacks(results, protocol))
    )
    # The strongest statement stands last, next to what qualifies it.
    attacks.sort(key=lambda name: name == fields.WORST)
    header = (
        *("model", "draws", "clean", "protocol"),
        *(wording.format_attack(name) for name in attacks),
        *("softmax rob.", "zero grad. %"),
    )
    groups = []
    for line in fields.list_lines(results):
        draws = wording.NOT_AVAILABLE if line.num_samples is None else f"{line.num_samples:,}"
        body = tuple(_body(results, line, p, attacks) for p in protocols if p in line.protocols)
        groups.append(
            Group(
                line,
                (line.label, draws, str(line.accuracy)),
                body or ((NOT_PART,) * (len(header) - _NUM_HEAD),),
            )
        )
    return header, tuple(groups)


def format_table(results: Results) -> str:
    """Format the results for a terminal.

    Args:
      results: What the run found.

    Returns:
      Lines of at most 150 characters for the usual protocols: the table, the warnings, a legend.

    Raises:
      ValueError: The results have another schema version.
    """
    fields.check_schema(results)
    header, groups = table_groups(results)
    cells = [_align(line) for line in (header, *_full_lines(groups))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *lines = (_pad(line, widths) for line in cells)
    rule = "-" * max(len(head), *map(len, lines), _MIN_WIDTH)
    notes = [f"WARNING ({model}): {text}" for model, text in fields.list_warnings(results)]
    notes.append(captions.legend(results))
    wrapped = [
        textwrap.fill(note, len(rule), subsequent_indent="  ", break_on_hyphens=False)
        for note in notes
    ]
    title = f"Accuracy in % [95 % interval]: {fields.describe_setting(results, ascii_only=True)}"
    return "\n".join([title, "", head, rule, *lines, rule, *wrapped]) + "\n"


def markdown_table(results: Results) -> str:
    """Format the results as a Markdown table, for a README.

    Args:
      results: What the run found.

    Returns:
      The table alone, without warnings and legend.

    Raises:
      ValueError: The results have another schema version.
    """
    fields.check_schema(results)
    header, groups = table_groups(results)
    rule = ["---" if name in ("model", "protocol") else "---:" for name in header]
    lines = [[_escape(cell) for cell in line] for line in (header, *_full_lines(groups))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))


def _body(results: Results, line: Line, protocol: str, attacks: Sequence[str]) -> tuple[str, ...]:
    shown = fields.list_attacks(results, protocol)
    numbers = line.protocols[protocol]
    # Both belong to the attack, not to who predicts its images.
    robustness = wording.format_fraction(numbers.get("softmax_robustness"))
    share = wording.format_percent(numbers.get("zero_gradient_share"))
    return (
        wording.one_line(protocol),
        *(str(line.attack(protocol, name)) if name in shown else NOT_PART for name in attacks),
        *((NOT_PART, NOT_PART) if line.is_fresh else (robustness, share)),
    )


def _full_lines(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    blank = ("",) * _NUM_HEAD
    return [
        (*(group.head if number == 0 else blank), *cells)
        for group in groups
        for number, cells in enumerate(group.body)
    ]


def _align(line: Sequence[str]) -> list[str]:
    # The values of a column line up, whether or not an interval follows; heads stand over them.
    is_accuracy = [i == _NUM_HEAD - 1 or _NUM_HEAD < i < len(line) - 2 for i in range(len(line))]
    return [_indent(cell) if i else cell for cell, i in zip(line, is_accuracy, strict=True)]


def _indent(cell: str) -> str:
    value, bracket, interval = cell.partition(" [")
    return f"{value:>5}{bracket}{interval}"


def _pad(line: Sequence[str], widths: Sequence[int]) -> str:
    is_number = [i == 1 or i >= len(line) - 2 for i in range(len(line))]
    cells = zip(line, widths, is_number, strict=True)
    return "  ".join(c.rjust(w) if right else c.ljust(w) for c, w, right in cells).rstrip()


def _escape(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
