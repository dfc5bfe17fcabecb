"""What a report says of predictors that draw anew."""

from __future__ import annotations

from typing import Any

import pytest

from bnn_adv.report import fresh
from bnn_adv.report.evaluation_page import render_evaluation
from bnn_adv.report.table import Table


@pytest.fixture
def record() -> dict[str, Any]:
    return {
        "num_samples": 20,
        "fresh": {
            "clean": 0.9,
            "clean_interval": [0.85, 0.93],
            "accuracy": 0.125,
            "interval": [0.1, 0.2],
            "mostly_fooled": 1.0,
            "num_predictions": 100,
            "attacker_samples": 20,
            "held_out_samples": 50,
            "defender_samples": 20,
            "per_entry": [
                {
                    "name": "pgd_loss_of_mean",
                    "accuracy": 0.13,
                    "interval": [0.1, 0.2],
                    "chosen": 0.75,
                },
                {"name": "<b>frozen</b>", "accuracy": None, "interval": None, "chosen": 0.25},
            ],
            "table": {
                "attacker_samples": [1, 20],
                "defender_samples": [1, 20],
                "accuracies": [[0.5, 0.6], [0.3, 0.4]],
                "intervals": [[[0.4, 0.6], [0.5, 0.7]], [[0.2, 0.4], [0.3, 0.5]]],
                "clean": [0.8, 0.9],
                "clean_intervals": [[0.7, 0.9], [0.8, 1.0]],
                "num_images": 40,
                "num_predictions": 100,
            },
        },
    }


def texts(table: Table) -> list[tuple[str, ...]]:
    return [tuple(cell.text for cell in row) for row in table.rows]


def test_numbers_are_those_of_the_record(record: dict[str, Any]) -> None:
    assert fresh.list_numbers(record) == [
        ("accuracy, fresh", "90.0 [85.0, 93.0] %"),
        ("adversarial accuracy, fresh", "12.5 [10.0, 20.0] %"),
    ]
    assert texts(fresh.attack_table(record)) == [
        ("PGD, loss of mean", "13.0 [10.0, 20.0]", "75.0"),
        ("<b>frozen</b>", "n/a", "25.0"),
    ]
    table = fresh.pair_table(record["fresh"]["table"])
    lines = texts(table)
    assert table.header == ("attacker", "defender S = 1", "defender S = 20")
    assert [line[0] for line in lines] == ["clean", "S = 1", "S = 20"]
    assert lines[2] == ("S = 20", "30.0 [20.0, 40.0]", "40.0 [30.0, 50.0]")
    said = fresh.describe(record)
    assert "100.0 % of the inputs fool more than half of 100 new predictions" in said
    assert "mean of 20 new draws" in said


def test_the_page_holds_all_of_it_and_escapes_it(record: dict[str, Any]) -> None:
    page = render_evaluation(record)
    assert "Random predictors" in page
    assert "<b>frozen" not in page
    assert "&lt;b&gt;frozen" in page
    for text in ("12.5 [10.0, 20.0] %", "40.0 [30.0, 50.0]", "on 40 inputs", fresh.FRESH):
        assert text in page


@pytest.mark.parametrize(
    ("part", "models"), [({}, []), ({"fresh": None}, [fresh.FROZEN]), ("all", None)]
)
def test_threat_models_are_those_that_were_evaluated(
    part: Any, models: Any, record: dict[str, Any]
) -> None:
    if part == "all":
        assert fresh.list_threat_models(record) == [fresh.FROZEN, fresh.FRESH]
        return
    # Records of older versions did not say, and posteriors have no next draws.
    assert fresh.list_threat_models(part) == models
    assert fresh.list_numbers(part) == []
    assert fresh.attack_table(part).rows == fresh.pair_table({}).rows == ()
    assert "Random predictors" not in render_evaluation(part | {"num_samples": 20})
    assert fresh.describe(part) == ""


def test_a_table_that_was_left_out_leaves_no_gap(record: dict[str, Any]) -> None:
    record["fresh"]["table"] = None
    page = render_evaluation(record)
    assert "defender S" not in page
    assert "chosen %" in page
