"""Verdicts on samplers, from records whose answers are known."""

import math
import re

import pytest

from experiments.launch.tables import to_record
from experiments.samplers.report import build_study
from experiments.samplers.verdicts import (
    compare,
    ess_per_gradient,
    ess_per_second,
    find_reference,
    judge,
    mixed_from,
    recommend,
)

MIXED = {
    "rhat": "rank-normalised split",
    "num_chains": 4,
    "num_draws": 100,
    "gradients": 1000.0,
    "num_still_chains": 0,
    "num_equal_chains": 0,
    "num_undefined_rhats": 0,
    "max_rhat": 1.02,
    "upper_rhat": 1.01,
    "median_rhat": 1.0,
    "log_density_rhat": 1.01,
    "min_ess": 200.0,
    "median_ess": 380.0,
    "min_tail_ess": 150.0,
    "log_density_ess": 400.0,
    "log_density_tail_ess": 300.0,
    "density": -100.0,
    "density_spread": 10.0,
    "density_error": 3.0,
    "log_likelihood": -0.1,
    "accuracy": 0.95,
}


def record(method, *points, seconds=0.001, error=""):
    """Return a record; points are what differs from ``MIXED``."""
    return {
        "target": "digits",
        "method": method,
        "error": error,
        "points": [MIXED | point for point in points],
        "seconds_per_gradient": seconds,
    }


UNMIXED = {"max_rhat": 1.4, "min_ess": 12.0}


def test_the_reference_is_the_first_adjusted_method_that_has_mixed():
    hmc, nuts, mclmc = record("hmc", UNMIXED), record("nuts", {}), record("mclmc", {})
    assert find_reference([mclmc, nuts, hmc]) is nuts
    assert find_reference([mclmc, record("hmc", {}), nuts])["method"] == "hmc"
    assert find_reference([mclmc, hmc]) is None
    assert find_reference([record("hmc", error="diverged"), record("hmc_published", {})]) is None


def test_the_interval_of_a_difference_is_that_of_both_errors():
    reference = record("hmc", {"density_error": 3.0})
    found = compare(record("mclmc", {"density": -112.0, "density_error": 4.0}), reference)
    assert found[:3] == pytest.approx((-12, -12 - 2.576 * 5, -12 + 2.576 * 5))
    assert not found.is_told
    assert compare(record("mclmc", {"density": -113.0, "density_error": 4.0}), reference).is_told
    assert compare(record("mclmc", {"density": -87.0, "density_error": 4.0}), reference).is_told
    assert compare(reference, reference) is None
    assert compare(record("mclmc"), reference) is None


def test_verdicts_are_mixed_unmixed_and_biased():
    rows = judge(
        [
            record("hmc_published", {"max_rhat": 2.3, "min_ess": 3.0}),
            record("hmc", {}),
            record("mclmc", {"density": -95.0}),
            record("sgld", {"density": -130.0, "density_error": 4.0}),
            record("sghmc", error="The log density is not finite."),
            record("csgmcmc"),
        ]
    )
    assert [row.words for row in rows] == [
        "unmixed: not judged (maximum R-hat 2.30, smallest ESS 3)",
        "mixed",
        "mixed",
        "mixed but biased (log density off by -30.0 [-42.9, -17.1] nats)",
        "failed: The log density is not finite.",
        "not judged (too few draws)",
    ]
    assert [row.is_usable for row in rows] == [False, True, True, False, False, False]


def test_a_method_with_a_metropolis_test_is_at_odds_with_the_reference_not_biased():
    rows = judge([record("hmc", {}), record("nuts", {"density": -130.0, "density_error": 4.0})])
    assert rows[1].words == (
        "mixed but at odds with hmc (log density off by -30.0 [-42.9, -17.1] nats)"
    )
    assert not rows[1].is_usable


def test_bias_is_not_judged_without_adjusted_chains_that_mixed():
    rows = judge([record("hmc", UNMIXED), record("mclmc", {})])
    assert rows[1].words == "mixed; bias not judged (no adjusted chains mixed)"
    assert not rows[1].is_usable
    assert recommend("digits", rows) == (
        "digits: none is shown to have mixed without bias within the budget; mixed: mclmc."
    )


def test_effective_draws_cost_the_gradients_of_all_chains():
    (row,) = judge([record("hmc", {"gradients": 500.0}, {"gradients": 2000.0}, seconds=0.01)])
    assert ess_per_gradient(row) == pytest.approx(200 / (4 * 2000))
    assert ess_per_second(row) == pytest.approx(200 / (4 * 2000) / 0.01)
    (untimed,) = judge([record("hmc", {}, seconds=None)])
    assert ess_per_second(untimed) is None


def test_chains_have_mixed_from_where_on_they_stay_mixed():
    steps = [{"gradients": g} for g in (100.0, 200.0, 400.0, 800.0)]
    steps[1] |= UNMIXED
    assert mixed_from(judge([record("hmc", *steps)])[0]) == 400
    steps[3] |= UNMIXED
    assert mixed_from(judge([record("hmc", *steps)])[0]) is None


def test_one_method_alone_is_compared_with_none():
    rows = judge([record("hmc_curvature", {"gradients": 500.0}, {"gradients": 2000.0})])
    assert re.fullmatch(
        r"digits: hmc_curvature has mixed, with \S+ effective draws per 1,000 gradients\.",
        recommend("digits", rows),
    )


def test_the_recommended_methods_are_mixed_and_unbiased():
    rows = judge(
        [
            record("hmc", {}, seconds=0.001),
            record("mclmc", {"min_ess": 390.0}, seconds=0.004),
            # More of both, but biased.
            record("sgld", {"min_ess": 399.0, "density": -300.0}, seconds=0.0001),
        ]
    )
    assert recommend("digits", rows) == (
        "digits: of 2 of 3 methods that have mixed without a bias that was told from zero, mclmc "
        "has the most effective draws per gradient (97.5 per 1,000), hmc the most per second (50)."
    )
    none = judge([record("hmc", UNMIXED), record("sgld", UNMIXED)])
    assert recommend("digits", none) == "digits: none mixed within the budget."


def test_a_study_says_what_its_rows_say():
    records = [
        record("hmc_published", UNMIXED),
        record("hmc", {}),
        record("mclmc", {"density": -160.0}),
        record("sgld", {"density": -130.0, "density_error": 4.0}),
        record("sghmc", error="not finite"),
    ]
    study = to_record(build_study({"digits": records}, "2 x a CPU"))
    published, minibatch = study["verdicts"]
    assert published["holds"] is False
    # Wherever a method is called biased: nothing covers all pairs together.
    mixing, _, law = (table["caption"] for table in study["tables"])
    assert "The 99 % are per pair" in mixing
    assert "The 99 % are per pair" in law
    assert "1,000 gradients a chain" in published["measured"]
    assert minibatch["holds"] is False
    mixing, cost, law = study["tables"]
    assert [row[2] for row in mixing["rows"]][1:3] == [
        "mixed",
        "mixed but biased (log density off by -60.0 [-70.9, -49.1] nats)",
    ]
    assert cost["rows"][1][2:7] == [1000, 1000, 200.0, 50.0, pytest.approx(50.0)]
    assert [row[5] for row in law["rows"]] == [
        "+0.0 [-10.9, +10.9] nats",
        "reference",
        "-60.0 [-70.9, -49.1] nats",
        "-30.0 [-42.9, -17.1] nats",
        None,
    ]
    assert law["rows"][2][6] == pytest.approx(-6)
    assert math.isclose(law["rows"][0][3], 95)
    # One method of minibatches that is mixed and not told from the reference: it samples.
    records[3]["points"][0]["density"] = -105.0
    assert to_record(build_study({"digits": records}, ""))["verdicts"][1]["holds"] is True
