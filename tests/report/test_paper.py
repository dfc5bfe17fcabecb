from __future__ import annotations

from typing import Any

import pytest

from experiments.launch.paper import PAPER_TABLES, as_printed, list_paper_tables, paper_rows


def test_the_papers_numbers_are_those_of_table_2() -> None:
    models = PAPER_TABLES["table2_mnist"].models
    printed = {
        name: [as_printed(model.accuracy), *map(as_printed, model.attacks.values())]
        for name, model in models.items()
    }
    assert printed == {
        "deterministic": ["97.69", "21.19", "1.45"],
        "ensemble": ["99.4", "20.6", "0.3"],
        "vi": ["96.1", "90.0", "89.8"],
    }


def test_ours_stands_beside_the_papers(make_results: Any) -> None:
    rows = {row.model: row for row in paper_rows(make_results())}
    assert list(rows) == ["deterministic", "ensemble", "vi"]
    paper, ours = rows["vi"].pairs["pgd"]
    assert paper == 0.898
    assert ours.value == 0.92
    assert rows["vi"].strong.value == 0.0
    assert rows["ensemble"].num_samples == 100
    (table,) = list_paper_tables(make_results())
    assert [cell.text for cell in table.rows[2][5:]] == ["89.8", str(ours), str(rows["vi"].strong)]


def test_what_was_not_run_is_missing(make_results: Any) -> None:
    results = make_results()
    for name in ("published", "strong"):
        del results["rows"][0]["protocols"][name]
    row = paper_rows(results)[0]
    assert row.pairs["fgsm"][1].value is None
    assert row.strong.value is None


@pytest.mark.parametrize("preset", [None, "other", 3])
def test_other_presets_have_no_paper(preset: object, make_results: Any) -> None:
    results = make_results() | {"preset": preset}
    assert paper_rows(results) == list_paper_tables(results) == ()
