"""Traces and ranks of chains."""

import numpy as np
import pytest

from bnn_adv.inference.mixing import measure_mixing
from bnn_adv.inference.records import MOST_POINTS, ChainRecord, record_chains
from bnn_adv.inference.sgmcmc import Info
from bnn_adv.report.captions import figure_captions
from bnn_adv.report.chains import choose_quantities, count_ranks, rank_figure, trace_figure
from bnn_adv.report.style import to_png
from bnn_adv.report.write import write_report


def make(chains=4, draws=200, points=7, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(chains, draws, points)).astype(np.float32)
    values[0, :, 3] += shift
    return ChainRecord({"lp": rng.normal(size=(chains, draws)) - 512}, values)


def test_ranks_of_independent_draws_are_uniform():
    """Pearson's statistic of each chain, near its expectation of 19."""
    counts = count_ranks(np.random.default_rng(0).normal(size=(4, 1000)), 20)
    assert (counts.sum(axis=1) == 1000).all()
    assert (counts.sum(axis=0) == 200).all()
    statistic = ((counts - 50) ** 2 / 50).sum(axis=1)
    assert (statistic < 19 + 5 * np.sqrt(2 * 19)).all()


def test_ranks_show_a_chain_that_is_elsewhere():
    values = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(count_ranks(values[[2, 0, 1]], 3), 4 * np.eye(3)[[2, 0, 1]])
    # Equal draws share their ranks, and what is not a number is lowest.
    np.testing.assert_array_equal(count_ranks(np.ones((2, 4)), 2), [[0, 4], [0, 4]])
    np.testing.assert_array_equal(count_ranks(np.array([[np.nan], [0.0]]), 2), np.eye(2))


def test_the_worst_prediction_is_shown():
    labels = [quantity.label for quantity in choose_quantities(make(shift=3.0))]
    assert labels[0] == "log density (nats)"
    assert labels[1].startswith("log p(y), point 3: largest R-hat of the first 7 points, 1.")
    assert "median R-hat of the first 7 points, 1.0" in labels[2]
    still = ChainRecord({"lp": np.zeros((2, 9))}, np.zeros((2, 9, 3), np.float32))
    assert len(choose_quantities(still)) == 1


@pytest.mark.slow
def test_figures_have_a_panel_a_quantity():
    models = {"hmc": make(), "sgld": ChainRecord({"lp": np.full((1, 3), np.nan)}, None)}
    traces, ranks = trace_figure(models), rank_figure(models)
    assert sum(ax.get_visible() for ax in traces.axes) == 4
    lines = traces.axes[0].get_lines()
    np.testing.assert_array_equal(lines[2].get_ydata(), models["hmc"].sample_stats["lp"][2])
    # One chain has no others to be ranked among.
    assert len(ranks.axes) == 3
    bars = ranks.axes[0].patches
    assert len(bars) == 4 * 20
    assert all(0 <= bar.get_height() < 1 for bar in bars)
    assert to_png(ranks) == to_png(rank_figure(models))
    assert trace_figure({}) is rank_figure({}) is None


@pytest.mark.slow
def test_the_page_shows_them(make_results, tmp_path):
    results = make_results()
    without = write_report(tmp_path / "without", results).read_text("utf-8")
    page = write_report(tmp_path, results, chains={"hmc": make()}).read_text("utf-8")
    assert page.count("data:image/png") == without.count("data:image/png") + 2
    assert page.index("Training and diagnostics") < page.index("Traces of Markov chains")
    assert {"traces.png", "ranks.png"} <= {path.name for path in (tmp_path / "figures").iterdir()}


def test_no_title_gives_its_r_hat_for_the_tables(make_results):
    """A point that is not kept can be the worst: diagnostics know it, the figure does not."""
    values = np.random.default_rng(0).normal(size=(4, 50, MOST_POINTS + 50))
    values[0, :, -1] += 3
    info = Info(np.zeros((50, 1, 4)))
    chains = record_chains(info, values)
    label = choose_quantities(chains)[1].label
    among, rhat = label.rsplit(", ", 1)
    assert among.endswith(f"largest R-hat of the first {MOST_POINTS} points")
    assert float(rhat) < measure_mixing(values).rhat.max() - 0.2
    caption = figure_captions(make_results())["traces"]
    assert f"first {MOST_POINTS}" in caption
    assert "over all held-out points" in caption


@pytest.mark.parametrize("draw", [trace_figure, rank_figure])
def test_many_chains_and_few_draws_can_be_drawn(draw):
    assert to_png(draw({"a_method_with_a_long_name": make(chains=9, draws=5)}), dpi=30)
