"""One self-contained HTML page of a run: no script, no link, pictures inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from bnn_adv.report import elements, fields, sections, summary
from bnn_adv.report.diagnostics import describe_settings
from bnn_adv.report.fields import Results
from bnn_adv.report.stylesheet import CSS


def render_html(
    results: Results,
    figures: Mapping[str, bytes],
    captions: Mapping[str, str] | None = None,
) -> str:
    """Render a run as one HTML file that needs nothing else.

    Args:
      results: What the run found.
      figures: PNG by name. ``accuracy`` stands with the results, ``training`` with the
        diagnostics, all others between them, in order.
      captions: Plain text by name; a figure without one is captioned by its name.

    Returns:
      The page. Every text in it is escaped.

    Raises:
      ValueError: The results have another schema version, or a figure is not a PNG.
    """
    fields.check_schema(results)
    captions = captions or {}
    shown = {name: elements.figure(png, captions.get(name, name)) for name, png in figures.items()}
    accuracy, training = shown.pop("accuracy", ""), shown.pop("training", "")
    title = f"Adversarial robustness: {fields.describe_setting(results) or 'one run'}"
    settings, environment = (describe_settings(results.get(k)) for k in ("config", "environment"))
    parts = (
        sections.subtitle(results),
        sections.warnings_box(results),
        elements.paragraph(summary.summarise(results), style="summary"),
        elements.section(
            "Accuracy under attack",
            sections.accuracy_table(results),
            accuracy,
            sections.protocol_list(results),
        ),
        elements.section("Beside the paper", sections.paper_table(results)),
        elements.section("What stands after each attack", sections.stages_table(results)),
        elements.section("Attacked inputs", *shown.values()),
        elements.section("Training and diagnostics", training, sections.diagnostics(results)),
        elements.section("Settings", elements.pairs(settings)),
        elements.section("Environment", elements.pairs(environment)),
        elements.section("Command", sections.command(results)),
    )
    return render_page(title, parts)


def render_page(title: str, parts: Iterable[str]) -> str:
    """Return a page of the given parts, which are HTML; empty ones are left out.

    Args:
      title: Plain text, also the heading.
      parts: Sections, in order.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join([f"<h1>{escape(title)}</h1>", *(part for part in parts if part)])
        + "\n</main>\n</body>\n</html>\n"
    )
