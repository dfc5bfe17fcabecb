"""Figures and findings of the half moons, from records whose every number is known."""

import dataclasses

import numpy as np
import pytest

from experiments.half_moons import figures as half_moons
from experiments.half_moons.figures import Attacked, Gradients, Network
from experiments.half_moons.report import build_study, judge_trends
from experiments.half_moons.truth import Search, compare
from experiments.launch.tables import list_tables, to_record

MIXED = {
    **{"num_chains": 4, "rhat": "rank-normalised split", "held_out_accuracy": 0.99},
    **{"max_rhat": 1.02, "log_density_rhat": 1.01, "min_ess": 200.0, "log_density_ess": 300.0},
}
CHAINS = np.array([0.98, 0.99, 1.0, 1.03])
DISTANCES = np.array([0.0, 0.02, 0.08, 0.2, 0.3])


def attacked(suite, attack, standing):
    found = Search(DISTANCES, np.zeros((5, 2)), 0.01)
    return Attacked("linf", 0.1, suite, attack, compare(found, standing, 0.1))


def network(hidden, num_train, size, diagnostics=MIXED):
    """Return a network whose gradients are all ``size`` (prior: ten times the width)."""
    ones = np.ones((5, 2)) * [1, -1]
    gradients = Gradients(
        size * ones,
        size * CHAINS[:, None, None] * ones,
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
WIDTH = (
    "Components of the expected loss gradient fall with every step of width (a fall, which need "
    "not end at zero)"
)
LEFT_OUT = Network(512, 100, 200, {"held_out_accuracy": 0.6}, "accuracy below 80 %", None, {}, ())


@pytest.fixture(scope="module")
def record():
    return to_record(build_study([*GRID, LEFT_OUT], least_accuracy=0.8))


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
    # Geometric means over the networks of a width: 1000 / (8 sqrt(100 200)), and a quarter of it.
    assert holds[WIDTH]
    assert (
        "at 8, 32: 0.88, 0.22 for the posterior, 1.8, 0.44 for one draw, 80, 3.2e+02"
        in (measured[WIDTH])
    )
    assert "over chains 0.88, 0.22 (steps: 10^-0.602 [-0.602, -0.602])" in measured[WIDTH]
    assert holds[WIDTH.replace("width", "training points")]
    by_attack = [
        (holds[claim], measured[claim])
        for name in ("published", "corrected", "strong")
        if (claim := f"The {name} attack finds every point that the grid proves not to be robust")
    ]
    assert [found for found, _ in by_attack] == [False, False, True]
    # Two of three such points a network, and four networks; FGSM is not counted beside PGD.
    assert by_attack[0][1].startswith("it missed 8 of 12")


def test_long_trajectories_are_judged_and_the_published_stay_as_rows():
    """A claim about the posterior is one of chains that have mixed, with their numbers."""
    unmixed = MIXED | {"max_rhat": 2.2}
    published = [network(h, n, 1.0, unmixed) for h in (8, 32) for n in (100, 200)]
    mixed = [n._replace(kind="mixed") for n in GRID]
    found = build_study([*published, *mixed], least_accuracy=0.8)
    verdicts = {verdict.claim: verdict for verdict in found.verdicts}
    chains = "The draws of {} are a sample of the posterior".format
    assert verdicts[chains("the published chain lengths")].holds is False
    own = verdicts[chains("long trajectories")]
    assert own.holds is True
    assert (
        "4 of 4 networks have mixed; mixed (maximum R-hat 1.02, smallest ESS 200)" in own.measured
    )
    assert verdicts[WIDTH].holds is True
    assert verdicts[WIDTH].measured.endswith("; mixed (maximum R-hat 1.02, smallest ESS 200)")
    # Attacks are held against the grid on every network.
    attack = "The published attack finds every point that the grid proves not to be robust"
    assert verdicts[attack].measured.startswith("it missed 16 of 24")
    tables = {table.title: table for table in found.tables}
    assert [row[0] for row in tables["Networks of the grid"].rows] == (
        ["published"] * 4 + ["long trajectories"] * 4
    )
    for title in ("Attacks against the truth", "Attacks against the truth, long trajectories"):
        assert tables[title].rows[0][6] == 20
    names = [plot.name for plot in found.plots]
    assert names == [
        f"{n}{k}" for k in ("", "_mixed") for n in ("components", "decay", "truth_linf")
    ]
    quantities = [claim.quantity for claim in found.claims]
    assert "adversarial accuracy, linf 0.1, long trajectories" in quantities
    assert "0 of 4 networks have mixed; long trajectories: the chains of 4 of 4" in found.summary
    # Chains that were meant to mix and have not are not judged.
    late = [n._replace(kind="mixed", diagnostics=unmixed) for n in GRID]
    assert trend([*GRID, *late]).holds is None
    to_record(found)


def trend(networks):
    return next(verdict for verdict in judge_trends(networks) if verdict.claim == WIDTH)


def test_a_fall_is_every_step_over_chains():
    """A component at the last width below that at the first is no trend."""
    sizes = [3.0, 4.0, 1.0]
    grid = [network(h, 100, size) for h, size in zip((8, 16, 32), sizes, strict=True)]
    assert trend(grid).holds is False
    # Chains that differ more than widths tell nothing.
    narrow, wide = network(8, 100, 1.0), network(16, 100, 0.99)
    turned = wide.gradients._replace(chains=wide.gradients.chains[::-1])
    noisy = [narrow, wide._replace(gradients=turned)]
    assert trend(noisy).holds is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_rhat": 1.6}, "unmixed: not judged (the chains of 2 of 4 networks have mixed)"),
        (
            {"num_chains": 1},
            "not judged (the chains of 2 of 4 networks have mixed, 2 are not judged)",
        ),
    ],
)
def test_trends_need_chains_that_have_mixed(changes, words):
    grid = [*GRID[:2], *(n._replace(diagnostics=MIXED | changes) for n in GRID[2:])]
    verdict = trend(grid)
    assert verdict.holds is None
    assert verdict.measured.endswith(words)


def test_rows_say_why_a_network_is_left_out_and_whether_chains_mixed(record):
    tables = {table.title: table for table in list_tables(record)}
    rows = tables["Networks of the grid"].rows
    assert rows[-1][1] == 512
    assert rows[-1][-1] == "accuracy below 80 %"
    columns = tables["Networks of the grid"].header
    mixed = columns.index("mixed")
    assert [row[mixed] for row in rows] == ["yes"] * 4 + ["not judged"]
    assert rows[0][columns.index("largest R-hat, predictions")] == 1.02
    assert rows[0][columns.index("smallest ESS, predictions")] == 200
    assert len(tables["Median magnitude of a gradient's component"].rows) == 4
    assert len(tables["Attacks against the truth"].rows) == 4


def test_an_unmixed_chain_is_said_to_be_so():
    """Chains whose median point agrees and whose worst one does not, as the committed ones."""
    older = {"num_chains": 1, "median_rhat": 1.04, "max_rhat": 1.66, "min_ess": 5.8}
    unmixed = network(8, 100, 1.0, {**older, "log_density_rhat": 1.02})
    found = build_study([unmixed], least_accuracy=0.8)
    assert found.verdicts[0].holds is False
    assert "the chains of 0 of 1 networks have mixed" in found.summary
    assert "not rank-normalised" in found.tables[0].caption
    alone = network(8, 100, 1.0, {**MIXED, "num_chains": 1})
    assert build_study([alone], least_accuracy=0.8).verdicts[0].holds is None


def test_a_grid_of_failures_is_a_study_without_figures():
    failed = LEFT_OUT._replace(diagnostics={}, reason="The energy is not finite.")
    found = build_study([failed], least_accuracy=0.8)
    assert dataclasses.asdict(found)["plots"] == ()
    assert found.tables[0].rows[0][-1] == "The energy is not finite."
    assert found.verdicts[0].holds is None
    with pytest.raises(ValueError, match="nothing to draw"):
        half_moons.components_figure([failed])
