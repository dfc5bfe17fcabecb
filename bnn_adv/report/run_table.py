"""The results as one table, for a terminal, a README and a page.

A model has one line per suite, so that what each suite claims about the same draws stands
in one column, one below the other.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bnn_adv.report import captions, fields, wording
from bnn_adv.report.fields import Line, Results
from bnn_adv.report.table import Cell, Table, to_markdown, to_text

NOT_PART = "-"
_LEAST_WIDTH = 80
_NUM_HEAD = 3


class Group(NamedTuple):
    """The lines of one model as text.

    line: The model and who predicts.
    head: Name, draws and clean accuracy.
    body: Per suite its name, every attack, softmax robustness and share of zero gradients;
      ``-`` where the suite has no such number, ``n/a`` where the number is missing.
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
      of a worst-case suite only ``worst`` is a column.
    """
    suites = fields.list_suites(results)
    attacks = list(
        dict.fromkeys(a for suite in suites for a in fields.list_attacks(results, suite))
    )
    # The strongest statement stands last, next to what qualifies it.
    attacks.sort(key=lambda name: name == fields.WORST)
    header = (
        *("model", "draws", "clean", "suite"),
        *(wording.format_attack(name) for name in attacks),
        *("softmax rob.", "zero grad. %"),
    )
    groups = []
    for line in fields.list_lines(results):
        draws = wording.NOT_AVAILABLE if line.num_samples is None else f"{line.num_samples:,}"
        body = tuple(_body(results, line, p, attacks) for p in suites if p in line.suites)
        groups.append(
            Group(
                line,
                (line.label, draws, str(line.accuracy)),
                body or ((NOT_PART,) * (len(header) - _NUM_HEAD),),
            )
        )
    return header, tuple(groups)


def results_table(results: Results) -> Table:
    """Return the results as one table.

    Args:
      results: What the run found.
    """
    header, groups = table_groups(results)
    return Table(
        "Accuracy under attack",
        header,
        tuple(line for group in groups for line in _lines(group)),
        "Accuracies are in per cent with 95 % Wilson intervals. " + captions.legend(results),
    )


def format_table(results: Results) -> str:
    """Format the results for a terminal.

    Args:
      results: What the run found.

    Returns:
      Lines of at most 150 characters for the usual suites: the table, the warnings, a legend.

    Raises:
      ValueError: The results have another schema version.
    """
    fields.check_schema(results)
    text = to_text(results_table(results), least_width=_LEAST_WIDTH)
    rule = text.split("\n")[1]
    notes = [f"WARNING ({model}): {text}" for model, text in fields.list_warnings(results)]
    notes.append(captions.legend(results))
    wrapped = [
        textwrap.fill(note, len(rule), subsequent_indent="  ", break_on_hyphens=False)
        for note in notes
    ]
    title = f"Accuracy in % [95 % interval]: {fields.describe_setting(results, ascii_only=True)}"
    return "\n".join([title, "", text, rule, *wrapped]) + "\n"


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
    return to_markdown(results_table(results))


def _lines(group: Group) -> Iterator[tuple[Cell, ...]]:
    row = {} if group.line.is_fresh else group.line.row
    name, draws, clean = group.head
    size = len(group.body)
    head = (
        Cell(name, "name", wording.one_line(row.get("network") or ""), size, True),
        Cell(draws, rows=size),
        Cell(clean, "accuracy", rows=size),
    )
    for number, (suite, *attacks, robustness, share) in enumerate(group.body):
        accuracies = (Cell(text, "accuracy") for text in attacks)
        body = (Cell(suite, "name"), *accuracies, Cell(robustness), Cell(share))
        yield body if number else (*head, *body)


def _body(results: Results, line: Line, suite: str, attacks: Sequence[str]) -> tuple[str, ...]:
    shown = fields.list_attacks(results, suite)
    numbers = line.suites[suite]
    # Both belong to the attack, not to who predicts its images.
    robustness = wording.format_fraction(numbers.get("softmax_robustness"))
    share = wording.format_percent(numbers.get("zero_gradient_share"))
    return (
        wording.one_line(suite),
        *(str(line.attack(suite, name)) if name in shown else NOT_PART for name in attacks),
        *((NOT_PART, NOT_PART) if line.is_fresh else (robustness, share)),
    )
