"""Figures and findings of the half moons, from records whose every number is known."""

import dataclasses

import numpy as np
import pytest

from bnn_adv.report import half_moons
from bnn_adv.report.half_moons import Attacked, Gradients, Network
from bnn_adv.report.half_moons_study import build_study, ratio_of_medians
from bnn_adv.report.study import list_tables, to_record
from bnn_adv.truth import Search, compare

MIXED = {"median_rhat": 1.0, "log_density_rhat": 1.05, "held_out_accuracy": 0.99}
DISTANCES = np.array([0.0, 0.02, 0.08, 0.2, 0.3])


def attacked(protocol, attack, standing):
    found = Search(DISTANCES, np.zeros((5, 2)), 0.01)
    return Attacked("linf", 0.1, protocol, attack, compare(found, standing, 0.1))


def network(hidden, num_train, size, diagnostics=MIXED):
    """Return a network whose gradients are all ``size`` (prior: ten times the width)."""
    ones = np.ones((5, 2)) * [1, -1]
    gradients = Gradients(
        size * ones,
        2 * size * ones,
        10 * hidden * ones,
        np.array([1, 4]),
        np.array([2 * size, size]),
        np.array([2.0, 1.0]),
        0.25,
    )
    rows = (
        attacked("published", "pgd", [0, 1, 1, 1, 1]),
        attacked("published", "fgsm", [0, 1, 1, 1, 1]),
        attacked("corrected", "pgd", [0, 0, 1, 1, 1]),
        attacked("strong", "worst", [0, 0, 0, 1, 1]),
    )
    return Network(hidden, num_train, 200, diagnostics, "", gradients, {"linf": DISTANCES}, rows)


GRID = [network(h, n, size=1000 / (h * n)) for h in (8, 32) for n in (100, 200)]
LEFT_OUT = Network(512, 100, 200, {"held_out_accuracy": 0.6}, "accuracy below 80 %", None, {}, ())


@pytest.fixture(scope="module")
def record():
    return to_record(build_study([*GRID, LEFT_OUT], seed=0, least_accuracy=0.8))


def test_strips_hold_every_component_and_their_medians():
    figure = half_moons.components_figure(GRID)
    axes = figure.axes
    assert len(axes) == 4
    assert [t.get_text() for t in axes[2].get_xticklabels()] == ["8", "32"]
    assert [t.get_text() for t in axes[3].get_xticklabels()] == ["100", "200"]
    assert "x_1" in axes[0].get_ylabel()
    assert "x_2" in axes[2].get_ylabel()
    # Three kinds at each of two places: two networks of five points each.
    strips = [line for line in axes[0].lines if len(line.get_ydata()) == 10]
    assert len(strips) == 6
    np.testing.assert_allclose(sorted(set(strips[0].get_ydata())), [1000 / 1600, 1000 / 800])
    assert np.all(axes[2].lines[0].get_ydata() < 0)


def test_decay_has_the_line_of_a_monte_carlo_mean():
    figure = half_moons.decay_figure(GRID)
    curve, dotted = (line.get_ydata() for line in figure.axes[0].lines[:2])
    # Geometric mean over the two networks of width 8; four draws halve.
    np.testing.assert_allclose(curve[0], 2 * np.sqrt(1000 / 800 * 1000 / 1600))
    np.testing.assert_allclose(dotted, curve)
    assert len(figure.axes[1].lines) == 4


def test_norms_of_zero_are_left_out_of_a_logarithmic_figure():
    dead = network(8, 100, size=0.0)
    figure = half_moons.decay_figure([dead])
    assert not figure.axes[0].lines
    assert half_moons.components_figure([dead]).axes


def test_truth_is_a_falling_step_and_attacks_are_symbols():
    figure = half_moons.truth_figure(GRID, "linf")
    assert [ax.get_title() for ax in figure.axes] == ["8 hidden units", "32 hidden units"]
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    curve = lines["truth (grid)"]
    assert curve[0] == pytest.approx(80)
    assert np.all(np.diff(curve) <= 0)
    assert [float(lines[p][0]) for p in ("published", "corrected", "strong")] == [80, 60, 40]


def test_a_ratio_of_scaled_values_is_the_scale():
    values = np.random.default_rng(0).normal(size=(3, 40, 2))
    exact = ratio_of_medians(1, -0.25 * values, values)
    assert (exact.value, exact.low, exact.high) == (0.25, 0.25, 0.25)
    other = np.random.default_rng(1).normal(size=(3, 40, 2))
    found = ratio_of_medians(1, other, values)
    assert found.low < found.value < found.high
    assert found == ratio_of_medians(1, other, values)
    # Nothing to divide by.
    assert not ratio_of_medians(0, values, 0 * values).high < np.inf


def test_numbers_beside_the_paper(record):
    claims = {claim["quantity"]: claim for claim in record["claims"]}
    accuracy = claims["adversarial accuracy, linf 0.1"]
    assert [accuracy[name] for name in ("published", "corrected", "strong")] == [80, 60, 40]
    assert accuracy["note"].startswith("true: 40.0 %")
    assert claims["networks of at least 80 % accuracy"]["corrected"] == 80
    small, large = (claims[f"median |component|, {h} hidden units"] for h in (8, 32))
    assert small["corrected"] == pytest.approx(4 * large["corrected"])


def test_verdicts(record):
    holds = {v["claim"]: v["holds"] for v in record["verdicts"]}
    measured = {v["claim"]: v["measured"] for v in record["verdicts"]}
    assert holds["The draws of the published chain lengths are a sample of the posterior"]
    width = "Components of the expected loss gradient fall towards zero with width"
    assert holds[width]
    assert "at 32 over that at 8: 0.25 [0.25, 0.25]" in measured[width]
    assert "4 [4, 4] for untrained" in measured[width]
    data = "Components of the expected loss gradient fall towards zero with training points"
    assert "at 200 over that at 100: 0.5 [0.5, 0.5]" in measured[data]
    by_attack = [
        (holds[claim], measured[claim])
        for name in ("published", "corrected", "strong")
        if (claim := f"The {name} attack finds every point that the grid proves not to be robust")
    ]
    assert [found for found, _ in by_attack] == [False, False, True]
    # Two of three such points a network, and four networks; FGSM is not counted beside PGD.
    assert by_attack[0][1].startswith("it missed 8 of 12")


def test_rows_say_why_a_network_is_left_out_and_whether_chains_mixed(record):
    tables = {table.title: table for table in list_tables(record)}
    rows = tables["Networks of the grid"].rows
    assert rows[-1][0] == 512
    assert rows[-1][-1] == "accuracy below 80 %"
    assert [row[9] for row in rows] == ["yes"] * 4 + [None]
    assert len(tables["Median magnitude of a gradient's component"].rows) == 4
    assert len(tables["Attacks against the truth"].rows) == 4


def test_an_unmixed_chain_is_said_to_be_so():
    found = build_study(
        [network(8, 100, 1.0, {**MIXED, "log_density_rhat": 1.6})], seed=0, least_accuracy=0.8
    )
    assert found.verdicts[0].holds is False
    assert "0 of their chains have mixed" in found.summary


def test_a_grid_of_failures_is_a_study_without_figures():
    failed = LEFT_OUT._replace(diagnostics={}, reason="The energy is not finite.")
    found = build_study([failed], seed=0, least_accuracy=0.8)
    assert dataclasses.asdict(found)["plots"] == ()
    assert found.tables[0].rows[0][-1] == "The energy is not finite."
    assert found.verdicts[0].holds is None
    with pytest.raises(ValueError, match="nothing to draw"):
        half_moons.components_figure([failed])
