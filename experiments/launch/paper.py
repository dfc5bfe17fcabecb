"""The paper's numbers, as data, for the presets that repeat one of its experiments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bnn_adv.report.fields import WORST, Line, Results, is_worst_case, list_lines
from bnn_adv.report.table import Cell, Table
from bnn_adv.report.wording import Measured, format_attack


class PaperModel(NamedTuple):
    """A line of the paper's table; accuracies in [0, 1].

    name: As the paper calls it.
    accuracy: On clean test images.
    attacks: Accuracy by name of the attack.
    """

    name: str
    accuracy: float
    attacks: Mapping[str, float]


class PaperTable(NamedTuple):
    """A table of the paper.

    source: Where it stands.
    num_test: Number of test images that were attacked.
    suite: The suite of this codebase that repeats it.
    models: Lines by name of the model in this codebase.
    """

    source: str
    num_test: int
    suite: str
    models: Mapping[str, PaperModel]


class PaperRow(NamedTuple):
    """The paper's numbers of one model beside those of a run.

    model: Name in the run.
    paper_model: Name in the paper.
    num_samples: Draws in the run.
    pairs: (paper, ours) by quantity: ``"accuracy"`` and the names of the attacks.
    strong: The run's worst case over the strongest suite that it ran; without a value where it
      ran none.
    """

    model: str
    paper_model: str
    num_samples: int | None
    pairs: Mapping[str, tuple[float, Measured]]
    strong: Measured


PAPER_TABLES: Mapping[str, PaperTable] = {
    # Carbone et al. 2020, arXiv 2002.04359, supplement, section 11, table 2; epsilon 0.3, l_inf.
    "table2_mnist": PaperTable(
        source="Carbone et al. 2020, supplement, Table 2",
        num_test=1000,
        suite="published",
        models={
            "deterministic": PaperModel(
                "Deterministic NN", 0.9769, {"fgsm": 0.2119, "pgd": 0.0145}
            ),
            "ensemble": PaperModel("Ensemble NN (100)", 0.994, {"fgsm": 0.206, "pgd": 0.003}),
            "vi": PaperModel("Bayesian NN (VI)", 0.961, {"fgsm": 0.900, "pgd": 0.898}),
        },
    ),
}


def paper_table(results: Results) -> PaperTable | None:
    """Return the table of the paper that a run repeats, None where it repeats none."""
    preset = results.get("preset")
    return PAPER_TABLES.get(preset) if isinstance(preset, str) else None


def paper_rows(results: Results) -> tuple[PaperRow, ...]:
    """Return the paper's numbers beside the run's, for the models that both have.

    Args:
      results: What the run found.

    Returns:
      One row a model; none where the run's preset repeats no table of the paper.
    """
    table = paper_table(results)
    if table is None:
        return ()
    return tuple(
        _row(line, table.models[line.model], table, results)
        for line in list_lines(results)
        if line.model in table.models and not line.is_fresh
    )


def list_paper_tables(results: Results) -> tuple[Table, ...]:
    """Return the paper's numbers beside the run's as a table, none where it repeats none."""
    source, rows = paper_table(results), paper_rows(results)
    if source is None or not rows:
        return ()
    names = list(rows[0].pairs)
    heads = ["clean" if name == "accuracy" else format_attack(name) for name in names]
    lines = []
    for row in rows:
        cells = [Cell(row.model, "name", note=row.paper_model, is_heading=True)]
        for name in names:
            published, ours = row.pairs[name]
            cells += [Cell(as_printed(published)), Cell(str(ours), "accuracy")]
        lines.append((*cells, Cell(str(row.strong), "accuracy")))
    table = Table(
        "Beside the paper",
        ("model", *(f"{h}, {who}" for h in heads for who in ("paper", "ours")), "worst, ours"),
        tuple(lines),
        f"Paper: {source.source}, {source.num_test:,} test points. Ours: the {source.suite} "
        "suite, and in the last column the worst case over the strong suite, which the paper "
        "does not report. In per cent.",
    )
    return (table,)


def as_printed(value: float) -> str:
    """Return a number of the paper in per cent, with the paper's one or two decimals."""
    return f"{100 * value:.2f}".removesuffix("0")


def _row(line: Line, model: PaperModel, table: PaperTable, results: Results) -> PaperRow:
    pairs = {"accuracy": (model.accuracy, line.accuracy)} | {
        name: (value, line.attack(table.suite, name)) for name, value in model.attacks.items()
    }
    strong = [line.attack(p, WORST) for p in line.suites if is_worst_case(results, p)]
    return PaperRow(
        line.model,
        model.name,
        line.num_samples,
        pairs,
        min(
            (measured for measured in strong if measured.value is not None),
            key=lambda measured: measured.value or 0.0,
            default=Measured(None),
        ),
    )
