"""One self-contained HTML page of a run: no script, no link, pictures inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bnn_adv.report import fields, page, run_table, summary, wording
from bnn_adv.report.diagnostics import describe_settings, list_diagnostics
from bnn_adv.report.fields import Results
from bnn_adv.report.table import Table, named_lines, to_html


def render_html(
    results: Results,
    figures: Mapping[str, bytes],
    captions: Mapping[str, str] | None = None,
    *,
    extra: Sequence[Table] = (),
) -> str:
    """Render a run as one HTML file that needs nothing else.

    Args:
      results: What the run found.
      figures: PNG by name. ``accuracy`` stands with the results, ``training`` with the
        diagnostics, all others between them, in order.
      captions: Plain text by name; a figure without one is captioned by its name.
      extra: Tables that follow that of the accuracies.

    Returns:
      The page. Every text in it is escaped.

    Raises:
      ValueError: The results have another schema version, or a figure is not a PNG.
    """
    fields.check_schema(results)
    captions = captions or {}
    return page.render(
        "run.html",
        title=f"Adversarial robustness: {fields.describe_setting(results) or 'one run'}",
        subtitle=_subtitle(results),
        raised=fields.list_warnings(results),
        summary=summary.summarise(results),
        accuracy=to_html(run_table.results_table(results)),
        suites=[
            (wording.one_line(name), wording.one_line(text))
            for name, text in wording.to_dict(results.get("protocols")).items()
        ],
        tables=[(table.title, to_html(table)) for table in extra],
        stages=[to_html(table) for table in _stages_tables(results)],
        pictures={
            name: page.picture(png, captions.get(name, name)) for name, png in figures.items()
        },
        diagnostics=[(model, items) for model, items in list_diagnostics(results) if items],
        settings=describe_settings(results.get("config")),
        environment=describe_settings(results.get("environment")),
        command_line=results.get("command"),
    )


def _subtitle(results: Results) -> str:
    train, seconds = results.get("num_train"), wording.to_number(results.get("seconds"))
    parts = (
        f"preset {wording.one_line(results['preset'])}" if results.get("preset") else "",
        f"{train:,} training inputs" if isinstance(train, int) else "",
        f"seed {results['seed']}" if results.get("seed") is not None else "",
        "" if seconds is None else f"{seconds:,.0f} s in all",
    )
    return " · ".join(part for part in parts if part)


def _stages_tables(results: Results) -> Iterator[Table]:
    """Yield, for every worst-case suite, what stands after each of its attacks."""
    for suite in fields.list_suites(results):
        names = fields.list_attacks(results, suite, stages=True)
        if not fields.is_worst_case(results, suite) or len(names) < 2:
            continue
        lines = [
            (line.model, *(str(line.attack(suite, name)) for name in names))
            for line in fields.list_lines(results)
            if suite in line.suites and not line.is_fresh
        ]
        yield Table(
            f"The {suite} suite",
            ("model", *map(wording.format_attack, names)),
            named_lines(lines, "accuracy"),
            f"The {suite} suite, in the order in which its attacks ran, each on the inputs "
            "that withstood those to its left; worst is after all restarts. In per cent.",
        )
