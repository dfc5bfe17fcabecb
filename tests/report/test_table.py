"""One table as text, as Markdown and as HTML."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_adv.report.table import (
    Cell,
    Table,
    format_value,
    named_lines,
    to_html,
    to_markdown,
    to_text,
)

TABLE = Table("Numbers", ("what", "value"), (("a|b <i>", 0.123456), ("none", None)), "Read it.")
SPANS = Table(
    "Spans",
    ("model", "clean", "attack", "share"),
    (
        (
            *(Cell("vi", "name", "fc", 2, True), Cell("97.2 [95.0, 98.5]", "accuracy", rows=2)),
            *(Cell("PGD", "name"), Cell("5.0")),
        ),
        (Cell("FGSM", "name"), Cell("12.0")),
        (
            *(Cell("hmc", "name", is_heading=True), Cell("5.0 [1.0, 9.0]", "accuracy")),
            *(Cell("PGD", "name"), Cell("n/a")),
        ),
    ),
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"),
        (0.123456, "0.1235"),
        (12345.6, "12346"),
        (7, "7"),
        ("two\nlines", "two lines"),
    ],
)
def test_values_as_text(value: object, text: str) -> None:
    assert format_value(value) == text


def test_markdown_keeps_its_columns() -> None:
    lines = to_markdown(TABLE).splitlines()
    assert lines[1] == "| --- | ---: |"
    # A bar within a cell is written as one that ends no cell.
    assert {line.replace(r"\|", "").count("|") for line in lines} == {3}
    assert any(r"\|" in line for line in lines)
    assert lines[3] == "| none | n/a |"


def test_markdown_escapes_tags_and_leaves_signs_as_they_are() -> None:
    rows = (("<i>", "x"), ("<= 0.3", "y"), ("back\\slash", "z"))
    lines = to_markdown(Table("", ("a", "b"), rows)).splitlines()
    assert lines[2:] == ["| &lt;i> | x |", "| <= 0.3 | y |", r"| back\\slash | z |"]


def test_text_is_aligned_under_a_whole_rule() -> None:
    assert to_text(TABLE).splitlines() == [
        "what      value",
        "---------------",
        "a|b <i>  0.1235",
        "none        n/a",
    ]
    assert to_text(TABLE, least_width=20).splitlines()[1] == "-" * 20
    assert to_text(Table("", ("one", "two"), ())).splitlines() == ["one  two", "--------"]


def test_values_line_up_whether_or_not_an_interval_follows() -> None:
    rows = named_lines([("a", "100.0 [99.0, 100.0]"), ("b", "5.0")], "accuracy")
    lines = to_text(Table("", ("who", "clean"), rows)).splitlines()
    assert lines[2:] == ["a    100.0 [99.0, 100.0]", "b      5.0"]


@pytest.mark.parametrize("texts", [("0.1000", "1,024", "False"), ("1e3", "nan", "  x")])
def test_texts_are_not_read_as_numbers(texts: tuple[str, ...]) -> None:
    table = Table("", ("a", "b", "c"), (tuple(map(Cell, texts)),))
    assert to_text(table).splitlines()[2].split() == [text.strip() for text in texts]
    assert to_markdown(table).splitlines()[2] == f"| {' | '.join(texts)} |"


def test_a_cell_that_spans_lines_is_written_once() -> None:
    text = to_text(SPANS).splitlines()
    assert text[2] == "vi      97.2 [95.0, 98.5]  PGD       5.0"
    assert text[3] == "                           FGSM     12.0"
    assert to_markdown(SPANS).splitlines()[1:4] == [
        "| --- | ---: | --- | ---: |",
        "| vi | 97.2 [95.0, 98.5] | PGD | 5.0 |",
        "|  |  | FGSM | 12.0 |",
    ]
    html = to_html(SPANS)
    assert html.count("<tr") == 4
    assert html.count('rowspan="2"') == 2
    assert [len(re.findall("<t[hd]", row)) for row in html.split("<tr")[1:]] == [4, 4, 2, 4]


def test_html_is_escaped_and_sets_cells_by_their_kind() -> None:
    html = to_html(TABLE)
    assert "<i>" not in html
    assert '<th scope="row" class="name">a|b &lt;i&gt;</th>' in html
    assert '<td class="number">0.1235</td>' in html
    assert '<p class="quiet">Read it.</p>' in html
    spans = to_html(SPANS)
    assert '<span class="value">97.2</span> <small>[95.0, 98.5]</small>' in spans
    assert 'vi<small class="note">fc</small></th>' in spans
    assert to_html(None) == to_html(Table("", ("a",), ())) == ""


values = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=60))


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.tuples(values, values, values), min_size=1, max_size=4))
def test_no_cell_breaks_a_table(rows: list[tuple[object, ...]]) -> None:
    table = Table("", ("one", "two", "three"), tuple(rows))
    lines = to_markdown(table).splitlines()
    assert len(lines) == 2 + len(rows)
    bare = (line.replace(r"\\", "").replace(r"\|", "") for line in lines)
    assert {line.count("|") for line in bare} == {4}
    assert to_html(table).count("<tr") == 1 + len(rows)
    rule = to_text(table).splitlines()[1]
    assert max(map(len, to_text(table).splitlines())) == len(rule)
