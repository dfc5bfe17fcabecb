"""A study as JSON, as text, as Markdown and as a page."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure

from bnn_adv.report.style import to_png
from bnn_adv.report.table import Table
from experiments.launch.pages import render_studies, render_study
from experiments.launch.tables import (
    Claim,
    Plot,
    Study,
    Verdict,
    format_study,
    list_tables,
    to_record,
)

TABLE = Table("Numbers", ("what", "value"), (("a|b <i>", 0.123456), ("none", None)), "Read it.")
CLAIM = Claim("Table 2", "accuracy", 90.0, 88.2, None, 0.0, note="ten draws")
RUN = {
    "config": {"seed": 0},
    "environment": {"cpu_count": 2, "cpu": "cpu", "device": "d", "jax": "0", "commit": "abc"},
    "command": "python -m x",
    "seconds": 3.0,
    "seed": 0,
}


def _study(**changes):
    values = {
        "title": "A <title>",
        "summary": "What was found.",
        "tables": (TABLE,),
        "plots": (Plot("one", Figure(figsize=(1, 1)), "A figure. More."),),
        "claims": (CLAIM,),
        "verdicts": (Verdict("it vanishes", "it does not", False),),
        "data": {"array": np.array([1.0, np.nan]), "count": np.int64(3)},
    }
    return Study(**values | changes)


def test_a_record_is_json_and_what_is_not_finite_is_none():
    record = to_record(_study())
    assert record["data"] == {"array": [1.0, None], "count": 3}
    assert record["figures"] == [{"file": "figures/one.png", "caption": "A figure. More."}]


def test_claims_and_verdicts_become_the_first_tables():
    tables = list_tables(to_record(_study()))
    assert [table.title for table in tables] == ["Beside the paper", "Claims, tested", "Numbers"]
    assert tables[0].rows == (("Table 2", "accuracy (%)", 90.0, 88.2, None, 0.0, "ten draws"),)
    assert tables[1].rows == (("it vanishes", "it does not", "no"),)
    assert [t.title for t in list_tables(to_record(_study(claims=(), verdicts=())))] == ["Numbers"]


def test_text_holds_every_number():
    text = format_study(to_record(_study()))
    for part in ("A <title>", "What was found.", "88.2", "0.1235", "it does not"):
        assert part in text


def test_long_sentences_go_on_in_the_next_line():
    """What tells rows apart may stand at their end."""
    rows = tuple((f"{'claim ' * 12}at radius 0.{i}", "yes") for i in (1, 3))
    record = to_record(
        dataclasses.replace(_study(), tables=(Table("T", ("claim", "holds"), rows, ""),))
    )
    text = format_study(record)
    for end in ("0.1", "0.3"):
        assert any(line.endswith(f"at radius {end}") for line in text.splitlines())
    assert max(map(len, text.split("\nT\n")[1].splitlines()[:8])) < 60
    assert "..." not in text


def test_the_page_escapes_and_shows_everything():
    study = _study()
    record = to_record(study) | RUN
    figures = {"figures/one.png": to_png(study.plots[0].figure)}
    page = render_study(record, figures)
    assert "A &lt;title&gt;" in page
    assert "<i>" not in page
    for part in ("A figure. More.", "88.2", "data:image/png", "python -m x", "Read it."):
        assert part in page
    several = render_studies("All", "Two.", (TABLE,), ((record, figures), (record, figures)))
    assert several.count("data:image/png") == 2
    assert "it does not" not in several  # verdicts stand in the overview alone


def test_a_row_of_another_length_is_refused():
    bad = Table("Bad", ("one", "two"), (("only",),))
    with pytest.raises(ValueError, match="'Bad' has 2 columns, and a row of 1"):
        to_record(_study(tables=(bad,)))


def test_figures_need_different_names():
    plot = Plot("same", Figure(), "")
    with pytest.raises(ValueError, match="a name of its own"):
        to_record(_study(plots=(plot, plot)))
