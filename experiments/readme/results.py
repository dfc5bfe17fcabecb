"""One committed result as Markdown: its command, what it took, tables, figures, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_adv.compute import files
from bnn_adv.report import captions, fields, markdown_table
from bnn_adv.report.certification import format_certificate
from bnn_adv.report.certified_curve import certified_caption
from bnn_adv.report.evaluation import format_evaluation
from bnn_adv.report.table import Table, to_markdown
from experiments.autoattack.report import build_overview, build_table
from experiments.benchmark.table import describe_peers, format_markdown, summarise_targets
from experiments.launch.mixed import describe_chains
from experiments.launch.tables import claims_table, list_tables, verdicts_table

Record = Mapping[str, Any]

_FEW = 12
"""Tables of more rows are folded."""

_CURVE = (
    "Line: share of inputs whose smallest radius found is larger. Points: accuracy under the suite "
    "at a radius, with 95 % intervals. Dashed: the radius of the evaluation."
)


def describe_result(folder: Path, path: Path) -> str:
    """Return what a README says of a result.

    Args:
      folder: Where the README lies.
      path: The result's folder, relative to it.

    Raises:
      FileNotFoundError: There is no ``results.json``.
    """
    results = files.read_json(folder / path / "results.json")
    describe = _KINDS.get(results["experiment"], _describe_study)
    parts = [
        f"```sh\n{results['command']}\n```",
        f"{describe_cost(results)} ([results]({path.as_posix()}/results.json)).",
        *describe(results, folder / path, path.as_posix()),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part)


def describe_cost(results: Record) -> str:
    """Return time, machine, versions and seed as a sentence without its full stop."""
    origin = _find_origin(results)
    found = origin["environment"]
    versions = f"Python {found['python']}, JAX {found['jax']}"
    seed = results.get("seed")
    machine = describe_machine(results)
    if "runs" in origin:
        # Each has a seed of its own.
        time = f"{describe_time(results)}, {origin['runs']} runs together; the longest on"
        return f"{time} {machine}, {versions}"
    text = f"{describe_time(results)} on {machine}, {versions}"
    return text if seed is None else f"{text}; seed {seed}"


def describe_time(results: Record) -> str:
    """Return how long the work took."""
    seconds = _find_origin(results)["seconds"]
    if seconds >= 10_000:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"


def _find_origin(results: Record) -> Record:
    """Return seconds and environment of the work: of runs that were joined, theirs."""
    data = results.get("data")
    joined: Record | None = data.get("joined") if isinstance(data, Mapping) else None
    return results if joined is None else joined


def describe_machine(results: Record) -> str:
    """Return what the work ran on."""
    found = _find_origin(results)["environment"]
    count, _, device = found["device"].partition(" x ")
    if device != "cpu":
        return f"{count} {device}"
    cores = found["cpu_count"]
    return f"{cores} CPU {'core' if cores == 1 else 'cores'} ({found['cpu']})"


def _describe_comparison(results: Record, folder: Path, path: str) -> list[str]:
    warnings = [f"- {model}: {text}" for model, text in fields.list_warnings(results)]
    chains = [
        f"Chains of {row['model']}: {describe_chains(row['diagnostics'])}."
        for row in results["rows"]
        if "num_chains" in row["diagnostics"]
    ]
    return [
        markdown_table(results),
        captions.legend(results),
        " ".join(chains),
        "\n".join(["Warnings of this run:", "", *warnings]) if warnings else "",
        _picture("Accuracy under attack", path, "figures/accuracy.png"),
    ]


def _describe_evaluation(results: Record, folder: Path, path: str) -> list[str]:
    parts = [f"```\n{format_evaluation(results).strip()}\n```"]
    if (folder / "figures" / "curve.png").exists():
        picture = _picture("Accuracy against the radius", path, "figures/curve.png")
        parts += [picture, _CURVE]
    return parts


def _describe_certificate(results: Record, folder: Path, path: str) -> list[str]:
    parts = [f"```\n{format_certificate(results).strip()}\n```"]
    if (folder / "figures" / "certified.png").exists():
        picture = _picture("Certified and attacked accuracy", path, "figures/certified.png")
        parts += [picture, certified_caption(results)]
    return parts


def _describe_autoattack(results: Record, folder: Path, path: str) -> list[str]:
    rows = results["rows"]
    overview = build_overview(rows)
    errors = "\n".join(f"- {error}" for error in results["errors"])
    return [
        to_markdown(overview),
        overview.caption,
        results["summary"],
        _fold(build_table(rows, results["config"]["autoattack_version"])),
        f"<details><summary>Images that were not counted</summary>\n\n{errors}\n\n</details>"
        if errors
        else "",
    ]


def _describe_benchmark(results: Record, folder: Path, path: str) -> list[str]:
    return [
        summarise_targets(results["rows"]),
        format_markdown(results["rows"]),
        describe_peers(results["rows"]),
        # A run of some cases has no such figure.
        _picture("Cost against draws and against images", path, "figures/cost.png")
        if (folder / "figures" / "cost.png").exists()
        else "",
    ]


def _describe_study(results: Record, folder: Path, path: str) -> list[str]:
    verdicts = verdicts_table(results["verdicts"])
    judged = [] if verdicts is None else ["### Claims, tested", to_markdown(verdicts)]
    pictures = [
        f"{_picture(Path(figure['file']).stem, path, figure['file'])}\n\n{figure['caption']}"
        for figure in results["figures"]
    ]
    if pictures:
        pictures.insert(0, "### Figures")
    shown = [table for table in (claims_table(results["claims"]),) if table is not None]
    own = list_tables(dict(results))[len(shown) + (verdicts is not None) :]
    tables = [*shown, *own]
    return [
        results["summary"],
        *pictures,
        *judged,
        *(["### Tables"] if tables else []),
        *_unfold_short(tables),
    ]


def _unfold_short(tables: Sequence[Table]) -> list[str]:
    return [_show(table) if len(table.rows) <= _FEW else _fold(table) for table in tables]


def _show(table: Table) -> str:
    return f"**{table.title}**\n\n{to_markdown(table)}\n{table.caption}"


def _fold(table: Table) -> str:
    body = f"{to_markdown(table)}\n{table.caption}".strip()
    return f"<details><summary>{table.title}</summary>\n\n{body}\n\n</details>"


def _picture(text: str, path: str, file: str) -> str:
    return f"![{text.replace('_', ' ')}]({path}/{file})"


_KINDS: Mapping[str, Callable[[Record, Path, str], list[str]]] = {
    "evaluate": _describe_comparison,
    "attack": _describe_evaluation,
    "certify": _describe_certificate,
    "autoattack": _describe_autoattack,
    "benchmark": _describe_benchmark,
}
