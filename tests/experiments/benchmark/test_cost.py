from __future__ import annotations

import pytest
from matplotlib.text import Text

from bnn_adv.report.style import to_png
from experiments.benchmark.cost import cost_figure


def sweep(network: str, variable: str, exponent: float = 1.0) -> dict[str, object]:
    counts = [10, 20, 50, 100]
    seconds = [0.01 * count**exponent for count in counts]
    return {
        "case": "scaling",
        "value": exponent,
        "details": {
            "network": network,
            "variable": variable,
            "fixed": "32 images" if variable == "draws" else "10 draws",
            "counts": counts,
            "seconds": seconds,
            "low": [s * 0.9 for s in seconds],
            "high": [s * 1.3 for s in seconds],
        },
    }


def results(*rows: dict[str, object]) -> dict[str, object]:
    other = {"case": "hmc", "value": 0.8, "details": {}}
    return {"schema_version": 1, "rows": [other, *rows]}


@pytest.mark.slow
def test_one_panel_a_variable_with_the_exponents():
    names, variables = ("ConvNet 512", "MLP 1024"), ("draws", "images")
    rows = [sweep(name, variable) for name in names for variable in variables]
    figure = cost_figure(results(*rows))
    assert figure is not None
    assert [ax.get_xlabel() for ax in figure.axes] == ["draws", "images"]
    assert [ax.get_title() for ax in figure.axes] == ["32 images", "10 draws"]
    assert all(ax.get_xscale() == ax.get_yscale() == "log" for ax in figure.axes)
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert texts.count("MLP 1024: exponent 1.00") == 2
    assert to_png(figure) == to_png(cost_figure(results(*rows)))


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.7])
def test_the_line_goes_through_exact_data(exponent):
    figure = cost_figure(results(sweep("MLP", "draws", exponent)))
    assert figure is not None
    (ax,) = figure.axes
    points, line = ax.get_lines()[0], ax.get_lines()[-1]
    assert line.get_ydata() == pytest.approx(points.get_ydata())


def test_nothing_swept_gives_no_figure():
    assert cost_figure(results()) is None


def test_other_schemas_are_refused():
    with pytest.raises(ValueError, match="schema"):
        cost_figure({"schema_version": 99, "rows": []})


def test_all_points_of_all_panels_are_within_the_axes():
    def row(variable, seconds):
        details = {
            **{"network": "MLP 2", "variable": variable, "fixed": "4", "counts": [1, 10]},
            **{"seconds": seconds, "low": seconds, "high": seconds},
        }
        return {"value": 1.0, "details": details}

    figure = cost_figure(
        {"schema_version": 1, "rows": [row("draws", [1, 10]), row("images", [0.001, 1e5])]}
    )
    for ax in figure.axes:
        low, high = ax.get_ylim()
        assert low < 0.001
        assert high > 1e5
