from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_adv.report import format_table, markdown_table
from bnn_adv.report.fields import list_lines
from bnn_adv.report.run_table import table_groups


@pytest.mark.parametrize("render", [format_table, markdown_table])
def test_every_accuracy_stands_in_the_table_with_its_interval(
    render: Any, make_results: Any, shown_accuracies: Any
) -> None:
    results = make_results()
    text = render(results)
    expected = shown_accuracies(results)
    assert len(expected) == 36
    for accuracy in expected:
        assert text.count(accuracy) >= expected.count(accuracy), accuracy


def test_a_number_stands_in_the_line_and_column_of_its_attack(make_results: Any) -> None:
    header, groups = table_groups(make_results())
    cells = {
        (group.line.label, line[0], name): cell
        for group in groups
        for line in group.body
        for name, cell in zip(header[3:], line, strict=True)
    }
    assert cells["vi", "published", "PGD"].startswith("92.0 [")
    assert cells["vi", "corrected", "PGD"].startswith("67.0 [")
    assert cells["vi", "published", "worst"] == "-"
    assert cells["vi", "strong", "worst"].startswith("0.0 [0.0, ")
    assert cells["vi", "strong", "FGSM"] == "-"
    assert cells["vi, fresh draws", "strong", "worst"].startswith("2.2 [")
    assert cells["vi", "published", "zero grad. %"] == "84.0"
    assert cells["vi", "corrected", "softmax rob."] == "0.702"
    assert cells["vi, fresh draws", "published", "zero grad. %"] == "-"


def test_values_of_a_column_line_up_and_lines_fit_a_terminal(make_results: Any) -> None:
    lines = format_table(make_results()).splitlines()
    assert max(map(len, lines)) <= 150
    body = [line for line in lines if " published " in line and "[" in line]
    assert len(body) == 6
    points = {line.index(".", line.index("published")) for line in body}
    assert len(points) == 1


def test_warnings_name_their_model_and_the_legend_explains_worst(make_results: Any) -> None:
    text = format_table(make_results())
    flat = " ".join(text.split())
    assert "WARNING (vi): 84 % of the published attack's gradients are exactly zero" in flat
    assert "WARNING (hmc): max R-hat" in flat
    assert "withstands every attack" in flat
    assert "upper bound" in flat


def test_the_terminal_table_of_ascii_names_is_ascii(make_results: Any) -> None:
    assert format_table(make_results()).isascii()


def test_a_subset_of_suites_and_models_is_shown(make_results: Any) -> None:
    results = make_results()
    results["rows"] = results["rows"][1:3]
    for row in results["rows"]:
        del row["protocols"]["strong"], row["protocols"]["published"]
        row["fresh"] = None
    text = format_table(results)
    assert " published  " not in text
    assert "worst" not in text
    assert "deterministic" not in text
    assert "67.0 [" in text


def test_a_model_without_any_suite_still_shows_its_accuracy(make_results: Any) -> None:
    results = make_results()
    results["rows"][0]["protocols"] = {}
    line = next(line for line in format_table(results).splitlines() if "deterministic" in line)
    assert "98.6 [" in line
    assert line.split()[-1] == "-"


def test_missing_numbers_are_not_available_and_not_zero(make_results: Any) -> None:
    results = make_results()
    results["rows"] = results["rows"][:1]
    numbers = results["rows"][0]["protocols"]["published"]
    numbers |= {"pgd": math.nan, "softmax_robustness": None, "zero_gradient_share": None}
    line = next(line for line in format_table(results).splitlines() if "published" in line)
    assert line.count("n/a") == 3


def test_a_run_without_models_has_a_table() -> None:
    assert "model" in format_table({"schema_version": 1, "rows": []})
    assert "model" in format_table({})


def test_another_schema_version_is_refused(make_results: Any) -> None:
    with pytest.raises(ValueError, match="schema version 2"):
        format_table(make_results() | {"schema_version": 2})


def test_names_cannot_break_the_layout(make_results: Any) -> None:
    results = make_results()
    results["rows"][0]["model"] = "a|b\nc"
    markdown = markdown_table(results)
    assert "a\\|b c" in markdown
    assert len({line.replace("\\|", "").count("|") for line in markdown.splitlines()}) == 1
    assert "a|b c" in format_table(results)


number = st.one_of(st.floats(0, 1), st.none(), st.just(math.nan))
ends = st.one_of(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(list), st.none())


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_combination_of_numbers_and_gaps_breaks_a_table(
    data: st.DataObject, make_results: Any
) -> None:
    results = copy.deepcopy(make_results())
    for row in results["rows"]:
        row["accuracy"], row["accuracy_interval"] = data.draw(number), data.draw(ends)
        for name in list(row["protocols"]):
            if data.draw(st.booleans()):
                del row["protocols"][name]
                continue
            numbers = row["protocols"][name]
            for key in set(numbers) - {"intervals"}:
                numbers[key] = data.draw(number)
            numbers["intervals"] = {key: data.draw(ends) for key in numbers["intervals"]}
        if data.draw(st.booleans()):
            row["fresh"] = None
    lines = format_table(results).splitlines()
    assert sum(line.startswith(("determ", "ensem", "vi", "hmc")) for line in lines) == len(
        list_lines(results)
    )
    widths = {line.count("|") for line in markdown_table(results).splitlines()}
    assert len(widths) == 1
