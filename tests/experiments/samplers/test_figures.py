"""Figures of the samplers: lines, limits, and what has no place on a logarithmic axis."""

import numpy as np
import pytest
from matplotlib.text import Text

from experiments.readme.tables import one_number
from experiments.samplers.config import METHODS
from experiments.samplers.figures import mixing_curves
from tests.experiments.samplers.test_verdicts import UNMIXED, record
from tests.report.test_figures import clashes


@pytest.mark.slow
def test_every_method_has_a_line_in_each_of_three_panels():
    steps = [{"gradients": 100.0} | UNMIXED, {"gradients": 1000.0}]
    records = [record(method, *steps) for method in METHODS]
    figure = mixing_curves({"digits": records, "half moons": records[:2]})
    rhat, size, likelihood, *_ = figure.axes
    np.testing.assert_allclose(rhat.lines[0].get_ydata(), [0.4, 0.02])
    np.testing.assert_allclose(size.lines[0].get_ydata(), [12, 200])
    np.testing.assert_allclose(likelihood.lines[0].get_ydata(), [0.1, 0.1])
    assert [len(ax.lines) for ax in figure.axes] == [10, 10, 9, 3, 3, 2]
    looks = {(line.get_color(), line.get_marker()) for line in likelihood.lines}
    assert len(looks) == len(METHODS)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == list(METHODS)
    figure.canvas.draw()
    ticks = [label.get_text() for label in rhat.get_yticklabels()]
    assert {"1.05", "1.2"} <= set(ticks)
    assert not clashes(figure)
    assert [text.get_text() for text in figure.findobj(Text)].count("smallest ESS") == 2


@pytest.mark.parametrize(
    "gradients", [(20_000.0, 40_000.0, 60_000.0), (41_000.0, 50_000.0), (40.0, 160.0), (160.0,)]
)
def test_ticks_of_less_than_a_decade_do_not_overlap(gradients):
    steps = [{"gradients": each} for each in gradients]
    figure = mixing_curves({"digits": [record("hmc", *steps)]})
    assert not clashes(figure)
    low, high = figure.axes[0].get_xlim()
    ticks = figure.axes[0].get_xticks()
    assert 2 <= np.sum((low <= ticks) & (ticks <= high)) <= 6


def test_numbers_that_are_not_known_or_perfect_are_left_out_or_at_the_edge():
    perfect = {"max_rhat": 0.99, "log_density_rhat": 0.98, "log_likelihood": 0.0}
    figure = mixing_curves({"digits": [record("hmc", perfect), record("sgld", error="failed")]})
    rhat, _, likelihood = figure.axes
    np.testing.assert_allclose(rhat.lines[0].get_ydata(), [1e-3])
    assert np.isnan(likelihood.lines[0].get_ydata()).all()
    figure.canvas.draw()


def test_one_number_is_of_the_first_posterior():
    summary = (
        "digits: of 3 of 8 methods that have mixed, a has the most effective draws per gradient "
        "(2.91 per 1,000), b the most per second (50). half moons: c."
    )
    config = {"methods": ["a", "b"]}
    found = one_number({"experiment": "samplers", "summary": summary, "config": config})
    assert found == "digits: a has the most effective draws per gradient, 2.91 per 1,000"


def test_one_method_is_not_said_to_have_mixed_alone():
    """Where no other was run, none is known not to have mixed."""
    summary = (
        "MNIST, 64 units: none is shown to have mixed without bias within the budget; mixed: a."
    )
    record = {"experiment": "samplers", "summary": summary}
    two, one = (one_number(record | {"config": {"methods": m}}) for m in (["a", "b"], ["a"]))
    assert two == "MNIST, 64 units: within the budget a alone has mixed"
    assert one == "MNIST, 64 units: a has mixed, its bias is not judged"
