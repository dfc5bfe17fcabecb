"""The sections of the HTML page; an empty string where a run has nothing to show there."""

from __future__ import annotations

from html import escape

from bnn_adv.report import captions, elements, fields, paper, tables, wording
from bnn_adv.report.diagnostics import list_diagnostics
from bnn_adv.report.elements import Cell
from bnn_adv.report.fields import Results


def subtitle(results: Results) -> str:
    """Return what was run, in small print."""
    train, seconds = results.get("num_train"), wording.to_number(results.get("seconds"))
    parts = (
        f"preset {wording.one_line(results['preset'])}" if results.get("preset") else "",
        f"{train:,} training inputs" if isinstance(train, int) else "",
        f"seed {results['seed']}" if results.get("seed") is not None else "",
        "" if seconds is None else f"{seconds:,.0f} s in all",
    )
    return elements.paragraph(" · ".join(part for part in parts if part), style="quiet")


def warnings_box(results: Results) -> str:
    """Return a box with every warning, or a line that says there is none."""
    found = fields.list_warnings(results)
    if not found:
        return elements.paragraph("The diagnostics raised no warning.", style="quiet")
    items = "".join(
        f"<li><strong>{escape(model)}</strong>: {escape(text)}</li>" for model, text in found
    )
    plural = "warning" if len(found) == 1 else "warnings"
    return f'<aside class="warnings"><h2>{len(found)} {plural}</h2><ul>{items}</ul></aside>'


def accuracy_table(results: Results) -> str:
    """Return the table of results with its legend."""
    header, groups = tables.table_groups(results)
    lines = []
    for group in groups:
        row = {} if group.line.is_fresh else group.line.row
        name, draws, clean = group.head
        size = len(group.body)
        head = [
            Cell(name, "name", wording.one_line(row.get("network") or ""), size, True),
            Cell(draws, rows=size),
            Cell(clean, "accuracy", rows=size),
        ]
        for number, (protocol, *attacks, robustness, share) in enumerate(group.body):
            body = [Cell(protocol, "name"), *(Cell(text, "accuracy") for text in attacks)]
            lines.append([*([] if number else head), *body, Cell(robustness), Cell(share)])
    note = "Accuracies are in per cent with 95 % Wilson intervals. " + captions.legend(results)
    return elements.table(header, lines) + elements.paragraph(note, style="quiet")


def protocol_list(results: Results) -> str:
    """Return what each protocol is."""
    items = "".join(
        f"<dt>{escape(wording.one_line(name))}</dt><dd>{escape(wording.one_line(text))}</dd>"
        for name, text in wording.to_dict(results.get("protocols")).items()
    )
    return f"<h3>Protocols</h3><dl>{items}</dl>" if items else ""


def paper_table(results: Results) -> str:
    """Return the paper's numbers beside the run's."""
    source, rows = paper.paper_table(results), paper.paper_rows(results)
    if source is None or not rows:
        return ""
    names = list(rows[0].pairs)
    heads = ["clean" if name == "accuracy" else wording.format_attack(name) for name in names]
    header = ["model", *(f"{h}, {who}" for h in heads for who in ("paper", "ours")), "worst, ours"]
    lines = []
    for row in rows:
        cells = [Cell(row.model, "name", note=row.paper_model, is_heading=True)]
        for name in names:
            published, ours = row.pairs[name]
            cells += [Cell(paper.as_printed(published)), Cell(str(ours), "accuracy")]
        lines.append([*cells, Cell(str(row.strong), "accuracy")])
    note = (
        f"Paper: {source.source}, {source.num_test:,} test points. Ours: the {source.protocol} "
        "protocol, and in the last column the worst case over the strong suite, which the paper "
        "does not report. In per cent."
    )
    return elements.table(header, lines) + elements.paragraph(note, style="quiet")


def stages_table(results: Results) -> str:
    """Return, for worst-case protocols, what stands after each attack."""
    parts = []
    for protocol in fields.list_protocols(results):
        names = fields.list_attacks(results, protocol, stages=True)
        if not fields.is_worst_case(results, protocol) or len(names) < 2:
            continue
        lines = [
            [
                Cell(line.model, "name", is_heading=True),
                *(Cell(str(line.attack(protocol, name)), "accuracy") for name in names),
            ]
            for line in fields.list_lines(results)
            if protocol in line.protocols and not line.is_fresh
        ]
        header = ["model", *map(wording.format_attack, names)]
        note = (
            f"The {protocol} protocol, in the order in which its attacks ran, each on the inputs "
            "that withstood those to its left; worst is after all restarts. In per cent."
        )
        parts += [elements.table(header, lines), elements.paragraph(note, style="quiet")]
    return "\n".join(parts)


def diagnostics(results: Results) -> str:
    """Return what was recorded of every model."""
    parts = [
        f"<div><h3>{escape(model)}</h3>{elements.pairs(items)}</div>"
        for model, items in list_diagnostics(results)
        if items
    ]
    return f'<div class="columns">{"".join(parts)}</div>' if parts else ""


def command(results: Results) -> str:
    """Return the command that made the run."""
    command = results.get("command")
    return f"<pre>{escape(str(command))}</pre>" if command else ""
