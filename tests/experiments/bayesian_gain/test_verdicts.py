"""Verdicts of rows whose numbers are known: yes, no, undecided, not judged."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from experiments.bayesian_gain.intervals import Difference
from experiments.bayesian_gain.report import build_study
from experiments.bayesian_gain.rows import list_settings
from experiments.bayesian_gain.verdicts import confidence, find_end, is_more, is_same, list_verdicts
from experiments.launch.tables import to_record
from experiments.readme.one_number import one_number
from tests.experiments.bayesian_gain.rows import CONFIG, MIXED, all_rows, known


def verdicts(rows):
    """Return answers and sentences by claim."""
    found = list_verdicts(list_settings(rows), CONFIG)
    return {v.claim.removeprefix("digits, fc 32: "): (v.holds, v.measured) for v in found}


def test_every_question_is_answered_with_its_numbers():
    found = verdicts(all_rows())
    holds = {claim: answer for claim, (answer, _) in found.items()}
    assert holds == {
        "HMC leaves more than one network, radii 0.05, 0.1": True,
        "HMC leaves more than ensemble of 4, radii 0.05, 0.1": True,
        "HMC leaves more than ensemble of 20, radii 0.05, 0.1": True,
        "What HMC gains over one network ends within 0.1": False,
        "HMC, 40 draws leaves more than HMC, 1 draw, radius 0.1": True,
        "HMC, 40 draws leaves more than HMC, 20 draws, radius 0.1": False,
        "ensemble of 20 leaves more than one network, radius 0.1": False,
        "ensemble of 20 leaves more than ensemble of 4, radius 0.1": False,
        "HMC, 1 draw leaves the same as one network (within 5 points), radius 0.1": None,
        "HMC, 4 draws leaves the same as ensemble of 4 (within 5 points), radius 0.1": False,
        "HMC, 20 draws leaves the same as ensemble of 20 (within 5 points), radius 0.1": False,
        "MAP leaves more than one network, radius 0.1": True,
        "MAP ensemble of 4 leaves more than ensemble of 4, radius 0.1": True,
        "HMC leaves more than MAP ensemble of 4, radius 0.1": True,
        "HMC leaves more than VI, radius 0.1": True,
        "VI leaves more than MAP, radius 0.1": False,
        "HMC at T = 1 leaves more than HMC at T = 0.1, radius 0.1": None,
        "HMC at T = 0.1 leaves more than ensemble of 20, radius 0.1": True,
        "VI, 4 draws: draws that the attacker does not know leave more than known ones, radius "
        "0.1": True,
        "HMC, 4 draws: draws that the attacker does not know leave more than known ones, radius "
        "0.1": False,
        "ensemble of 4: draws that the attacker does not know leave more than known ones, radius "
        "0.1": False,
    }
    text = found["HMC leaves more than one network, radii 0.05, 0.1"][1]
    # Two radii share the 5 %. 28 of 100 images change, the same ones in both repetitions: the
    # interval is the wider one of Agresti's and Min's and of Student's, over images.
    quantile = stats.t.ppf(0.9875, 99)
    half = quantile * np.sqrt(0.28 * 0.72 / 99)
    other = 2.2414 * np.sqrt((29 / 102 - (28 / 102) ** 2) / 102)
    ends = min(0.28 - half, 28 / 102 - other), max(0.28 + half, 28 / 102 + other)
    low, high = (f"{100 * end:+.1f}" for end in ends)
    assert text.startswith("0.05: 70.0 against 40.0 %: +30.0 [")
    assert text.endswith(f"0.1: 30.0 against 2.0 %: +28.0 [{low}, {high}] points")


def test_chains_that_have_not_mixed_are_not_judged():
    found = verdicts(all_rows(hmc={"mixed": False}))
    for claim, (holds, text) in found.items():
        is_about_them = "HMC" in claim and "T = 0.1 leaves" not in claim
        assert text.startswith("not judged (") == is_about_them, claim
        assert not is_about_them or (holds is None and "maximum R-hat 2.30" in text)
    # Numbers are said all the same.
    text = found["HMC leaves more than ensemble of 4, radii 0.05, 0.1"][1]
    assert "0.1: 30.0 against 2.0 %: +28.0" in text


def test_signs_of_masking_and_nobody_looking_are_not_judged():
    found = verdicts(all_rows(map={"raised": ("zero_gradients",)}, vi={"looked": False}))
    holds, text = found["MAP leaves more than one network, radius 0.1"]
    assert holds is None
    assert text.startswith("not judged (MAP: signs of masking raised (zero_gradients))")
    (fresh,) = (text for claim, (_, text) in found.items() if claim.startswith("VI, 4 draws"))
    assert "VI, 4 draws: signs of masking were not looked for" in fresh
    assert found["HMC leaves more than one network, radii 0.05, 0.1"][0] is True


def as_mclmc(rows, *, variances=(1e-5, 1e-5), **others):
    """Return rows of HMC as those of MCLMC, with energy errors by repetition; no others of HMC."""
    found = []
    for row in rows:
        if row["training"] == "hmc":
            own = {"energy_error_variance": variances[row["repeat"]], "num_divergent": 0, **others}
            row = row | {"training": "mclmc", "diagnostics": row["diagnostics"] | own}
        if row["training"] != "hmc_cold" and row["kind"] == "known":
            found.append(row)
    return found


@pytest.mark.parametrize(
    ("given", "doubt"),
    [
        ({}, None),
        ({"variances": (1e-5, 4e-4)}, None),
        ({"variances": (1e-5, 6e-4)}, "steps are too long (variance of energy errors 6.0e-04 "),
        ({"variances": (6e-4, 1e-5)}, "steps are too long (variance of energy errors 6.0e-04 "),
        ({"variances": (1e-5, None)}, "energy errors were not recorded"),
        ({"num_divergent": 3}, "6 steps were undone, as numbers were not finite"),
    ],
)
def test_a_sampler_without_a_metropolis_test_is_judged_where_its_steps_are_short(given, doubt):
    config = dataclasses.replace(
        CONFIG, sampler="mclmc", methods=("sgd", "map", "vi", "mclmc"), num_fresh=0
    )
    study = build_study(as_mclmc(all_rows(), **given), config)
    found = {v.claim: v for v in study.verdicts}
    more = found["digits, fc 32: MCLMC leaves more than one network, radii 0.05, 0.1"]
    assert more.holds is (True if doubt is None else None)
    assert (f"not judged (MCLMC: {doubt}" in more.measured) == (doubt is not None)
    assert "20 draws of MCLMC leave 30.0 %" in study.summary
    assert ("points, not judged. " in study.summary) == (doubt is not None)
    assert not any("HMC" in claim for claim in found)
    largest = max(given.get("variances", (1e-5,)), key=lambda one: one or 1)
    told = f"mixed, energy errors of variance {largest or 0:.1e} a parameter"
    assert to_record(study)["tables"][0]["rows"][-1][-1] == (told if largest else "mixed")
    (curves, draws) = (plot.figure.axes[0] for plot in study.plots[:2])
    for ax in (curves, draws):
        assert "MCLMC" in {line.get_label() for line in ax.lines}


def test_two_samplers_are_set_beside_each_other():
    rows = all_rows()
    config = dataclasses.replace(CONFIG, methods=(*CONFIG.methods, "mclmc"))
    claim = "digits, fc 32: HMC leaves the same as MCLMC (within 5 points), radius 0.1"
    for left, variance, holds in (
        ((69, 29), 1e-5, True),
        ((69, 2), 1e-5, False),
        ((69, 29), 1e-3, None),
    ):
        others = [known("mclmc", 20, left, repeat=repeat) for repeat in range(2)]
        short = {"energy_error_variance": variance}
        others = [row | {"diagnostics": row["diagnostics"] | MIXED | short} for row in others]
        found = {v.claim: v.holds for v in list_verdicts(list_settings([*rows, *others]), config)}
        assert found[claim] is holds
        # What is said of HMC itself does not depend on it.
        assert found["digits, fc 32: HMC leaves more than one network, radii 0.05, 0.1"] is True


def test_a_cold_posterior_is_compared_without_a_warm_one_of_its_kind():
    config = dataclasses.replace(CONFIG, sampler="mclmc", methods=("sgd", "mclmc", "hmc_cold"))
    cold = [row for row in all_rows() if row["training"] == "hmc_cold"]
    rows = [*as_mclmc(all_rows()), *cold]
    claims = [v.claim for v in list_verdicts(list_settings(rows), config)]
    assert any("HMC at T = 0.1 leaves more than ensemble of 20" in claim for claim in claims)
    assert not any("HMC at T = 1 " in claim for claim in claims)


def test_radii_of_different_answers_have_lines_of_their_own():
    rows = [row for row in all_rows() if (row["training"], row["draws"]) != ("hmc", 20)]
    rows += [known("hmc", 20, (70, 2), repeat=repeat) for repeat in range(2)]
    found = verdicts(rows)
    assert found["HMC leaves more than one network, radius 0.05"][0] is True
    assert found["HMC leaves more than one network, radius 0.1"][0] is False
    holds, text = found["What HMC gains over one network ends within 0.1"]
    assert holds is True
    assert text.startswith("it ends at 0.1: the gain is below 5 points")


@pytest.mark.parametrize(
    ("low", "high", "more", "same"),
    [
        (0.01, 0.2, True, None),
        (0.01, 0.04, True, True),
        (-0.04, 0.04, False, True),
        (-0.2, -0.1, False, False),
        (-0.1, 0.1, None, None),
        (0.06, 0.2, True, False),
    ],
)
def test_answers_follow_from_intervals(low, high, more, same):
    change = Difference((low + high) / 2, low, high)
    assert (is_more(change), is_same(change)) == (more, same)


def test_where_the_gain_ends():
    up, flat, open_ = (
        Difference(*ends) for ends in ((0.2, 0.1, 0.3), (0, -0.04, 0.04), (0, -1, 1))
    )
    radii = (0.02, 0.1, 0.2, 0.3)

    def end(changes, left):
        return find_end(list(zip(radii, changes, strict=True)), left, "HMC")[0]

    # Where too little is lost to tell, it has not begun yet.
    assert end((flat, up, flat, flat), (0.9, 0.5, 0.2, 0.1)) == 0.2
    assert end((flat, up, up, up), (0.9, 0.5, 0.2, 0.1)) is None
    assert end((flat, flat, flat, flat), (0.9, 0.5, 0.2, 0.1)) is None
    assert end((up, up, up, flat), (0.9, 0.5, 0.009, 0.0)) == 0.2
    # An interval that holds zero and 50 points says neither.
    assert end((up, up, open_, open_), (0.9, 0.5, 0.2, 0.1)) is None
    assert end((up, open_, flat, flat), (0.9, 0.5, 0.2, 0.1)) == 0.2
    assert end((up, flat, flat, open_), (0.9, 0.5, 0.2, 0.1)) is None
    assert confidence(1) == 0.95
    assert confidence(5) == pytest.approx(0.99)


def test_tables_show_both_intervals_signs_and_chains_and_all_is_drawn():
    study = build_study(all_rows(hmc={"mixed": False}), CONFIG)
    record = to_record(study)
    main, draws, fresh = record["tables"]
    assert [row[0] for row in main["rows"]] == [
        *("one network", "ensemble of 4", "ensemble of 20", "MAP", "MAP ensemble of 4"),
        *("VI", "HMC", "HMC, cold"),
    ]
    hmc = main["rows"][6]
    assert hmc[2].startswith("95.0 [")
    assert hmc[3].endswith("(70.0, 70.0)")
    assert hmc[-2:] == ["none", "unmixed: not judged (maximum R-hat 2.30)"]
    assert [row[2] for row in draws["rows"] if row[1] == "HMC"] == [1, 4, 20, 40]
    assert [row[1] for row in fresh["rows"]] == ["VI", "HMC", "ensemble"]
    assert [plot.name for plot in study.plots] == ["curve", "draws", "fresh"]
    assert "have mixed in 0 of 2 runs" in study.summary
    number = one_number({"experiment": "bayesian_gain", **record})
    assert number.startswith(
        "within 0.1, digits, fc 32: 20 draws of HMC against one network: +28.0"
    )
    assert number.endswith("] points, not judged")
    for ax in study.plots[0].figure.axes:
        values = {line.get_label(): line.get_ydata() for line in ax.lines}
        np.testing.assert_allclose(values["HMC"], [95, 70, 30])
        np.testing.assert_allclose(values["one network"], [95, 40, 2])


def test_the_summary_says_what_the_claim_says():
    """Its interval covers all radii of the claim; at the radius alone it would be narrower."""
    rows = all_rows()
    study = build_study(rows, CONFIG)
    (text,) = (
        verdict.measured
        for verdict in study.verdicts
        if verdict.claim == "digits, fc 32: HMC leaves more than one network, radii 0.05, 0.1"
    )
    change = text.partition("0.1: 30.0 against 2.0 %: ")[2]
    assert f"one network 2.0 %, {change}, more. Chains of HMC" in study.summary
    number = one_number({"experiment": "bayesian_gain", **to_record(study)})
    assert number.endswith(f"against one network: {change}, more")
    assert "2 repetitions, l_inf" in study.summary


def test_what_was_warned_of_is_told_once_a_repetition():
    rows = all_rows()
    assert all(table.title != "Warnings" for table in build_study(rows, CONFIG).tables)
    for row in rows:
        if row["training"] == "hmc":
            told = {"warnings": [f"Cut short in {row['repeat']}."]}
            row["diagnostics"] = row["diagnostics"] | told
    table = build_study(rows, CONFIG).tables[-1]
    assert table.title == "Warnings"
    assert [line[1:] for line in table.rows] == [
        ("HMC", 0, "Cut short in 0."),
        ("HMC", 1, "Cut short in 1."),
    ]
