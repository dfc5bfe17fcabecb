"""Write the figures and the page of a run into its directory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bnn_adv.compute.files import atomic_writer, write_text
from bnn_adv.report import style, wording
from bnn_adv.report.captions import figure_captions
from bnn_adv.report.examples import Example
from bnn_adv.report.fields import Results
from bnn_adv.report.figures import accuracy_figure
from bnn_adv.report.gallery import examples_figure
from bnn_adv.report.run_page import render_html
from bnn_adv.report.table import Table
from bnn_adv.report.training import training_figure


def write_report(
    run_dir: str | os.PathLike[str],
    results: Results,
    examples: Sequence[Example] = (),
    *,
    extra: Sequence[Table] = (),
) -> Path:
    """Write ``figures/*.png`` and ``report.html`` into a run directory, each atomically.

    Args:
      run_dir: Directory of the run; created where it is absent.
      results: The content of ``results.json``.
      examples: Attacked inputs to show; none leaves out their figure.
      extra: Tables that follow that of the accuracies.

    Returns:
      Path of ``report.html``.

    Raises:
      ValueError: The results have another schema version, or the examples have different shapes.
      OSError: The directory cannot be written to.
    """
    run_dir = Path(run_dir).expanduser()
    # Only in this norm is the radius also the largest change of a pixel.
    limit = wording.to_number(results.get("epsilon")) if results.get("norm") == "linf" else None
    drawn = {
        "accuracy": accuracy_figure(results),
        "examples": examples_figure(examples, epsilon=limit),
        "training": training_figure(results),
    }
    figures = {name: style.to_png(figure) for name, figure in drawn.items() if figure is not None}
    has_points = any(example.clean.ndim == 1 for example in examples)
    captions = figure_captions(results, has_points=has_points)
    page = render_html(results, figures, captions, extra=extra)
    for name, png in figures.items():
        with atomic_writer(run_dir / "figures" / f"{name}.png") as file:
            file.write(png)
    write_text(run_dir / "report.html", page)
    return run_dir / "report.html"
