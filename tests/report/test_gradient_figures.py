"""Figures and sentences about expected loss gradients."""

import copy

import numpy as np
import pytest
from matplotlib.text import Text

from bnn_adv.report import gradient_study
from bnn_adv.report.gradients import Curve, Strip, gradient_maps, gradient_strips, norm_curves
from bnn_adv.report.study import Study, to_record
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


def summary(exponent, common=(0.0, -0.01, 0.01)):
    return {
        "counts": COUNTS.tolist(),
        "median_linf": [4.0, 1.0, 0.25],
        "zero_means": [0.5, 0.25, 0.125],
        "exponent_linf": list(exponent),
        "exponent_l2": [-0.5, -0.51, -0.49],
        "zero_draws": [0.6, 0.5, 0.7],
        "ratio": [0.1, 0.09, 0.11],
        "chance": [0.1, 0.1, 0.1],
        "common": list(common),
    }


@pytest.fixture
def record():
    conditions = {name: summary((-0.5, -0.52, -0.48)) for name in gradient_study.CONDITIONS}
    conditions[gradient_study.PUBLISHED_LOSS]["median_linf"] = [0.4, 0.1, 0.0]
    return {
        "title": "MNIST, VI",
        "note": "a note",
        "diagnostics": {},
        "falling_share": 0.3,
        "conditions": conditions,
    }


@pytest.mark.parametrize(
    ("exponent", "holds"),
    [
        # Faster than chance and than the prior's interval; as fast; slower; not known.
        ((-0.6, -0.9, -0.3), None),
        ((-0.9, -1.0, -0.8), True),
        ((-0.51, -0.55, -0.49), False),
        ((-0.51, -0.515, -0.505), False),
        ((-0.1, -0.2, 0.0), False),
        ((np.nan, np.nan, np.nan), None),
        ((-0.9, np.nan, np.nan), None),
    ],
)
def test_only_a_fall_beyond_chance_and_prior_is_vanishing(record, exponent, holds):
    ours = record["conditions"][gradient_study.POSTERIOR]
    ours["exponent_linf"] = list(exponent)
    assert gradient_study.verdicts([record])[0].holds is holds


@pytest.mark.parametrize(
    ("common", "holds"),
    [
        ((0.0, -0.01, 0.01), True),
        ((0.5, 0.4, 0.6), False),
        ((0.03, 0.02, 0.04), None),
        ((np.nan, np.nan, np.nan), None),
    ],
)
def test_a_common_part_beyond_chance_refutes_a_zero_expectation(record, common, holds):
    record["conditions"][gradient_study.POSTERIOR]["common"] = list(common)
    verdict = gradient_study.verdicts([record])[1]
    assert verdict.holds is holds
    assert "up to 0.0283 may be chance" in verdict.measured


def test_few_draws_never_show_a_zero_expectation(record):
    """Of eight independent gradients chance alone may make a third common: no evidence for zero."""
    ours = record["conditions"][gradient_study.POSTERIOR]
    ours["counts"], ours["common"], ours["chance"] = [1, 8], [0.1, 0.05, 0.2], [8**-0.5] * 3
    assert gradient_study.verdicts([record])[1].holds is None


def test_few_gradients_that_are_not_zero_never_show_a_zero_expectation(record):
    """Where one gradient in ten is not zero, those may agree and share a tenth at most."""
    ours = record["conditions"][gradient_study.POSTERIOR]
    ours["common"] = [0.016, 0.013, 0.019]
    assert gradient_study.verdicts([record])[1].holds is True
    ours["chance"] = [10**-0.5] * 3
    verdict = gradient_study.verdicts([record])[1]
    assert verdict.holds is None
    assert "0.1 if all pointed the same way; untrained prior 0 [-0.01, 0.01]" in verdict.measured


@pytest.mark.parametrize("exponent", [(-0.9, -1.0, -0.8), (-0.1, -0.2, 0.0)])
def test_chains_that_have_not_mixed_decide_nothing_about_the_posterior(record, exponent):
    ours = record["conditions"][gradient_study.POSTERIOR]
    ours["exponent_linf"], ours["common"] = list(exponent), [0.5, 0.4, 0.6]
    record["diagnostics"] = {"median_rhat": 1.02, "log_density_rhat": 1.1}
    assert [v.holds for v in gradient_study.verdicts([record])[:2]] == [exponent[0] < -0.5, False]
    record["diagnostics"]["log_density_rhat"] = 2.4
    vanishing, zero, _ = gradient_study.verdicts([record])
    assert vanishing.holds is zero.holds is None
    for verdict in (vanishing, zero):
        assert "not mixed (R-hat 1.02 of predictions, 2.4 of the log density" in verdict.measured


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
    assert [verdict.holds for verdict in gradient_study.verdicts([record, other])[2::3]] == [
        False,
        True,
    ]
    summary = gradient_study.summary([record, other])
    assert "from 4 at S = 1 to 0.25 at S = 100" in summary
    # The tables fit their headers.
    to_record(Study("title", summary, (norms, zeros), claims=(first, last, share)))
