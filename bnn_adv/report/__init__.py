"""Present the results of one experiment: tables, figures, one self-contained page."""

from __future__ import annotations

from bnn_adv.report.captions import figure_captions
from bnn_adv.report.examples import Example
from bnn_adv.report.figures import accuracy_figure
from bnn_adv.report.findings import Finding, list_findings
from bnn_adv.report.gallery import examples_figure
from bnn_adv.report.run_page import render_html
from bnn_adv.report.run_table import format_table, markdown_table
from bnn_adv.report.summary import summarise
from bnn_adv.report.training import training_figure
from bnn_adv.report.write import write_report

__all__ = [
    "Example",
    "Finding",
    "accuracy_figure",
    "examples_figure",
    "figure_captions",
    "format_table",
    "list_findings",
    "markdown_table",
    "render_html",
    "summarise",
    "training_figure",
    "write_report",
]
