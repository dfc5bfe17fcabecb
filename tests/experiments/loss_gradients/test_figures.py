"""Figures and sentences about expected loss gradients."""

import copy

import numpy as np
import pytest
from matplotlib.text import Text

from bnn_adv.theory.expected_norm import estimate_square, mean_products
from experiments.launch.tables import Study, to_record
from experiments.loss_gradients import report as gradient_study
from experiments.loss_gradients.figures import (
    Curve,
    Strip,
    gradient_maps,
    gradient_strips,
    norm_curves,
)
from tests.report.test_figures import clashes

COUNTS = np.array([1, 10, 100])


def shown(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_maps_share_a_scale_along_a_row_and_state_norms():
    images = np.random.default_rng(0).uniform(size=(2, 4, 4, 1))
    gradients = np.stack([np.full((2, 4, 4, 1), 8.0), np.full((2, 4, 4, 1), -0.5)])
    gradients[1, 1] = 0
    figure = gradient_maps(images, gradients, (1, 100), ("image 3", "image 7"))
    maps = [ax.images[0] for ax in figure.axes]
    assert [im.get_clim() for im in maps] == 2 * [(0, 1), (-8, 8), (-8, 8)]
    np.testing.assert_array_equal(maps[2].get_array(), -0.5)
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert labels[:3:2] == ["image 3", r"$\|\cdot\|_\infty$ = 0.5"]
    assert labels[5].endswith("0 (exact)")
    assert [ax.get_title() for ax in figure.axes[:3]] == ["image x", "S = 1", "S = 100"]
    assert not clashes(figure)


def test_maps_of_points_are_refused():
    with pytest.raises(ValueError, match=r"grey images of shape"):
        gradient_maps(np.zeros((2, 6)), np.zeros((1, 2, 6)), (1,), ("a", "b"))


def test_strips_keep_the_extremes_and_count_zeros():
    values = np.zeros(1000)
    values[:300] = np.linspace(-1, 1, 300)
    values[0], values[1] = -7.0, np.nan
    panels = {"MNIST, VI": [Strip(1, values), Strip(50, values / 10)]}
    figure = gradient_strips(panels, most=100)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 100]
    assert [line.get_ydata().min() for line in lines] == pytest.approx([-7, -0.7])
    assert all(abs(line.get_xdata() - place).max() < 0.3 for place, line in enumerate(lines))
    assert shown(figure).count("70 % zero") == 2
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "50"]
    assert not clashes(figure)


@pytest.mark.slow
def test_curves_have_the_monte_carlo_line_and_leave_out_zeros():
    law = 4 * COUNTS**-0.5
    posterior = Curve(COUNTS, np.zeros(3), np.array([0.0, 2, 1]), np.array([3.0, 3, 2]))
    curves = {"posterior": posterior, "prior": Curve(COUNTS, law / 2, law, law * 2)}
    figure = norm_curves({"MNIST, HMC": curves, "MNIST, VI": curves, "digits, VI": curves})
    assert [ax.get_visible() for ax in figure.axes] == [True, True, True, False]
    ax = figure.axes[0]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    ours, prior, ours_law, prior_law = (np.asarray(line.get_ydata()) for line in ax.lines)
    np.testing.assert_array_equal(ours, [np.nan, 2, 1])
    np.testing.assert_allclose(prior, prior_law)
    # From the first S at which there is a norm.
    np.testing.assert_allclose(ours_law, [2, 2 * 10**-0.5])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["posterior", "prior", "$S^{-1/2}$"]
    assert not clashes(figure)


def summary(square):
    found = {
        "counts": COUNTS.tolist(),
        "num_inputs": 200,
        "median_linf": [4.0, 1.0, 0.25],
        "zero_means": [0.5, 0.25, 0.125],
        "exponent_linf": [-0.5, -0.52, -0.48],
        "exponent_l2": [-0.5, -0.51, -0.49],
        "zero_draws": [0.6, 0.5, 0.7],
        "ratio": [0.1, 0.09, 0.11],
        "chance": [0.1, 0.1, 0.1],
    }
    return found if square is None else found | {"square": list(square)}


def make_record(square, prior=(0.0, -0.01, 0.01), **changes):
    conditions = {name: summary(square) for name in gradient_study.CONDITIONS}
    conditions[gradient_study.PRIOR] = summary(prior)
    conditions[gradient_study.PUBLISHED_LOSS]["median_linf"] = [0.4, 0.1, 0.0]
    common = {"title": "MNIST, VI", "note": "a note", "diagnostics": {}, "falling_share": 0.3}
    return common | {"conditions": conditions} | changes


@pytest.fixture
def record():
    return make_record((0.25, 0.16, 0.36))


MIXED = {"num_chains": 2, "rhat": "rank-normalised split", "max_rhat": 1.01, "min_ess": 400.0} | {
    "log_density_rhat": 1.01,
    "log_density_ess": 400.0,
}


@pytest.mark.parametrize(
    ("square", "holds", "words"),
    [
        ((0.25, 0.16, 0.36), False, "norm: 50 [40, 60] %; untrained prior"),
        ((0.001, -0.01, 0.0144), None, "norm: not told from zero (below 12 %); untrained prior"),
        ((-0.03, -0.05, -0.01), None, "norm: not told from zero; untrained prior"),
        ((None, None, None), None, "not judged (no interval over draws)"),
    ],
)
def test_an_expectation_is_told_from_zero_or_bounded(square, holds, words):
    """Zero is never concluded."""
    verdict = gradient_study.verdicts([make_record(square)])[0]
    assert verdict.holds is holds
    assert words in verdict.measured
    assert "untrained prior: not told from zero (below 10 %)." in verdict.measured


def test_gradients_of_zero_mean_are_bounded_and_others_told():
    """End to end: of 40 sets of draws without a mean two or so are taken for one with a mean."""
    rng, holds = np.random.default_rng(0), []
    for norm in [0.0] * 40 + [0.5]:
        draws = (rng.normal(size=(100, 30)) + norm) / np.sqrt(30)
        means = draws.reshape(20, 5, 30).mean(axis=1)
        products = mean_products(
            (means @ means.T)[..., None], np.linalg.norm(draws, axis=1)[:, None]
        )
        square = estimate_square(products, 20)
        holds.append(gradient_study.verdicts([make_record(square)])[0].holds)
    assert holds[:40].count(None) >= 36
    assert True not in holds
    assert holds[40] is False


@pytest.mark.parametrize("square", [(0.25, 0.16, 0.36), (0.001, -0.01, 0.0144)])
def test_chains_decide_nothing_about_the_posterior_unless_they_have_mixed(square):
    wanted = False if square[1] > 0 else None
    judged, typical = gradient_study.verdicts([make_record(square, diagnostics=MIXED)])
    assert judged.holds is wanted
    mixed = " (chains: mixed (maximum R-hat 1.01, smallest ESS 400))"
    assert f"{mixed}; untrained prior" in judged.measured
    assert typical.measured.endswith(f"S = 100{mixed}.")
    for changes, words in (
        ({"max_rhat": 2.4}, "unmixed: not judged (maximum R-hat 2.40)"),
        ({"min_ess": 20.0}, "unmixed: not judged (smallest ESS 20)"),
        ({"num_chains": 1}, "not judged (one chain)"),
    ):
        record = make_record(square, diagnostics=MIXED | changes)
        verdict = gradient_study.verdicts([record])[0]
        assert verdict.holds is None
        assert f"norm: {words}; untrained prior: not told from zero" in verdict.measured
        assert words in gradient_study.summary([record])
        typical = gradient_study.verdicts([record])[1].measured
        assert typical.endswith("S = 100, of draws of chains not shown to have mixed.")
        cells = [row[-1] for row in gradient_study.cancellation_table([record]).rows]
        assert cells == [words, "not told from zero (below 10 %)", words, words]


def test_records_without_products_have_the_widest_interval_of_independent_draws():
    """1.96 sqrt(2) / S at zero: a common part below 0.0279 of 100 draws is no evidence."""
    record = make_record(None, None)
    for found in record["conditions"].values():
        found["common"] = [0.02, 0.0199, 0.0201]
    verdict = gradient_study.verdicts([record])[0]
    assert verdict.holds is None
    assert (
        "norm: not told from zero (below 44.2 %, the widest interval of 100 independent draws); "
        in verdict.measured
    )
    record["conditions"][gradient_study.POSTERIOR]["common"][0] = 0.04
    verdict = gradient_study.verdicts([record])[0]
    assert verdict.holds is False
    assert "norm: 20 [5.98, 48] %, the widest interval of 100" in verdict.measured
    # Chains have products within them: not judged, mixed or not.
    record["diagnostics"] = MIXED
    assert gradient_study.verdicts([record])[0].holds is None


@pytest.mark.parametrize(("share", "holds"), [(0.3, False), (0.6, True), (0.52, None)])
def test_images_are_typical_if_more_than_half_are_like_them(share, holds):
    verdict = gradient_study.verdicts([make_record((0.25, 0.16, 0.36), falling_share=share)])[1]
    assert verdict.holds is holds
    assert f"{100 * share:.0f} % [" in verdict.measured
    assert "of 200 test images" in verdict.measured


def test_tables_and_claims_hold_the_numbers(record):
    other = copy.deepcopy(record) | {"title": "MNIST, HMC", "falling_share": 0.6}
    norms = gradient_study.norms_table([record, other])
    assert norms.rows[0] == (
        "MNIST, VI",
        "posterior",
        4.0,
        1.0,
        0.25,
        "-0.5 [-0.52, -0.48]",
        "-0.5 [-0.51, -0.49]",
    )
    assert len(norms.rows) == 8
    zeros = gradient_study.cancellation_table([record])
    assert zeros.rows[0][2:5] == ("60 [50, 70]", 50.0, 12.5)
    first, last, share = gradient_study.claims([record])
    assert (first.published, first.corrected, last.published, last.corrected) == (0.4, 4, 0, 0.25)
    assert (share.published, share.corrected, share.unit) == (60, 60, "%")
    assert [verdict.holds for verdict in gradient_study.verdicts([record, other])[1::2]] == [
        False,
        True,
    ]
    assert zeros.rows[0][-1] == "50 [40, 60] %"
    summary = gradient_study.summary([record, other])
    assert "from 4 at S = 1 to 0.25 at S = 100, 60 % of single gradients are" in summary
    assert "root mean square norm: 50 [40, 60] %." in summary
    # The tables fit their headers.
    to_record(Study("title", summary, (norms, zeros), claims=(first, last, share)))
