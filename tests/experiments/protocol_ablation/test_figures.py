"""Tables, figures and sentences of the ablation, from rows that are written down here."""

import copy

import pytest

from experiments.launch.tables import format_study, to_record
from experiments.protocol_ablation.published_versions import list_settings, miss
from experiments.protocol_ablation.report import build_study
from experiments.protocol_ablation.switches import IN_2020, SWITCHES, list_rows, relevant


def make_row(row):
    """Accuracy stays where training starts as published and the attack is blind, else not."""
    hidden = "vi_init" in row.on
    pgd = 0.9 if hidden and "double_softmax" in row.on else (0.4 if hidden else 0.05)
    shares = {"accuracy": 0.96, "fgsm": pgd, "pgd": pgd, "strong": 0.0}
    change = {name: [0.1, -0.05, 0.25] for name in shares}
    return {
        "group": row.group,
        "switch": row.switch,
        "on": sorted(row.on),
        **shares,
        "strong_fresh": 0.02,
        "softmax_robustness": 0.99 if "metric_softmax" in row.on else 0.3,
        "intervals": {
            name: [max(0, share - 0.03), min(1, share + 0.03)] for name, share in shares.items()
        },
        "zero_gradient_share": 0.88 if hidden else 0.0,
        "mean_magnitude": 3700.0 if hidden else 9.5,
        "median_gap": 1200.0,
        "one_hot_share": 0.9,
        "num_draws": 10,
        "num_predictions": 10 if "draws" in row.on else 1,
        "training": "vi",
        "change_from_base": change,
        "change_from_2020": change,
    }


def make_line(setting):
    """Fixed draws keep what the paper says; new draws and small steps lose it."""
    fixed = setting.version == "2020"
    fgsm, pgd = (0.895, 0.902) if fixed else (0.7, 0.5)
    if setting.constants.name == "defaults":
        pgd -= 0.2
    shares = {"accuracy": 0.955, "fgsm": fgsm, "pgd": pgd}
    return {
        "version": setting.version,
        "constants": setting.constants._asdict(),
        "attacker_draws": setting.attacker_samples,
        "defender_draws": setting.defender_samples,
        "num_predictions": 1,
        **shares,
        "intervals": {name: [share - 0.02, share + 0.02] for name, share in shares.items()},
        "miss": miss(fgsm, pgd),
    }


@pytest.fixture
def data():
    rows = [make_row(row) for row in list_rows()]
    hmc = [
        {
            **rows[0],
            "training": training,
            "attack": attack,
            "diagnostics": {"num_train": 5000, "num_distinct_draws": 31, "median_ess": 4.0},
        }
        for training in ("hmc-full", "hmc-minibatch")
        for attack in ("corrected", "published")
    ]
    return {
        "dataset": "mnist",
        "epsilon": 0.3,
        "num_test": 500,
        "num_train": 60000,
        "num_classes": 10,
        "network": "conv, 32, leaky_relu",
        "minibatches": 469,
        "suite": "strong",
        "num_version_images": 1000,
        "versions": [make_line(setting) for setting in list_settings((1, 10), (10, 50))],
        "rows": rows,
        "hmc": hmc,
        "shares": {
            "num_images": 100,
            "combinations": [],
            "shapley": {
                name: {switch: [0.1, -0.05, 0.2] for switch in SWITCHES if switch in IN_2020}
                for name in ("fgsm", "pgd", "softmax_robustness")
            },
        },
    }


def test_the_answer_names_the_cause(data):
    record = to_record(build_study(data))
    assert "exactly zero in float32 at 88.0 %" in record["summary"]
    assert "mean size of 3,700" in record["summary"]
    table = record["tables"][1]
    assert table["rows"][4][0].endswith("469 times too much")
    assert table["rows"][0][3] == "5.0 [2.0, 8.0]"
    holds = [verdict["holds"] for verdict in record["verdicts"]]
    # No network is robust; no switch alone hides it; putting one right shows it.
    assert holds[:8] == [False, True, False, False, False, False, True, False]
    assert "double_softmax (40.0 %), vi_init (5.0 %)" in record["verdicts"][6]["measured"]
    assert "below 0.853" in record["verdicts"][7]["measured"]
    assert record["claims"][1]["published"] == pytest.approx(89.5)
    assert record["claims"][1]["paper"] == 90.0
    shares = {row[0]: row[1:] for row in record["tables"][3]["rows"]}
    assert shares["all together"] == ["+60.0", "+60.0", "+0.600"]
    # An interval stands where something was measured, none where nothing can change.
    assert shares[SWITCHES["metric_softmax"].published][1] == "0 (changes no image)"
    assert shares[SWITCHES["pgd_step"].published][:2] == [
        "0 (changes no image)",
        "+10.0 [-5.0, +20.0]",
    ]
    assert "What is as published" in format_study(record)


def test_every_way_that_agrees_with_the_paper_is_named(data):
    study = build_study(data)
    given = "the code of September 2020 with PGD of radius 0.3, 40 steps of 2"
    assert "Of 16 ways" in study.summary
    assert "4 have both numbers of the paper, 90.0 % under FGSM and 89.8 %" in study.summary
    assert f"{given} and 1 / 10, 1 / 50, 10 / 10, 10 / 50 draws of" in study.summary
    assert f"Closest is {given} and 1 / 10 draws" in study.summary
    # What today's code leaves by the same constants stands beside it.
    assert "The code of today with PGD of radius 0.3, 40 steps of 2 and 10 / 10" in study.summary
    assert (
        "leaves 70.0 [68.0, 72.0] % under FGSM and 50.0 [48.0, 52.0] % under PGD" in study.summary
    )
    table = to_record(study)["tables"][0]
    assert len(table["rows"]) == 17
    assert table["rows"][-1][4:7] == ["96.1", "90.0", "89.8"]
    assert table["rows"][4][3] == "radius 0.5, 40 steps of 2/225"
    assert table["rows"][0][7] == "0.5"
    assert [verdict.holds for verdict in study.verdicts[1:5]] == [True, False, False, False]
    assert "4 of 4 numbers of draws: 1 / 10" in study.verdicts[1].measured
    assert study.verdicts[2].measured.startswith("within the intervals of 0 of 4 numbers of draws;")


def test_more_than_one_way_can_agree(data):
    """Nothing is concluded about which one made the paper's table where several agree."""
    for row in data["versions"]:
        if row["version"] == "today" and row["constants"]["name"] == "defaults":
            row["intervals"] = {name: [0.8, 0.95] for name in row["intervals"]}
    study = build_study(data)
    assert "8 have both numbers" in study.summary
    assert (
        "; the code of today with PGD of radius 0.5, 40 steps of 2/225 and 1 / 10" in study.summary
    )
    assert [verdict.holds for verdict in study.verdicts[1:5]] == [True, False, False, True]


def test_the_published_number_says_which_draws_and_version(data):
    for claim in build_study(data).claims:
        assert "as published in 2020, 10 draws attack and 10 predict, 1000 images" in claim.note


def test_without_masking_nothing_is_called_hidden(data):
    plain = copy.deepcopy(data)
    for row in plain["rows"]:
        row["pgd"] = 0.04
    plain["shares"], plain["dataset"] = None, "digits"
    study = build_study(plain)
    assert "nothing is hidden" in study.summary
    assert study.verdicts[6].holds is None
    assert [plot.name for plot in study.plots] == ["departures"]
    assert study.claims == ()


MIXED = {
    **{"num_chains": 4, "rhat": "rank-normalised split", "max_rhat": 1.02, "min_ess": 182.0},
    **{"log_density_rhat": 1.01, "log_density_ess": 300.0},
}


@pytest.mark.parametrize(
    ("changes", "strong", "holds", "words"),
    [
        ({}, [0.1, 0.2], False, "chains: mixed (maximum R-hat 1.02, smallest ESS 182)"),
        # Intervals that overlap show no equality.
        ({}, [0.1, 0.9], None, "chains: mixed (maximum R-hat 1.02, smallest ESS 182)"),
        ({"max_rhat": 2.0}, [0.1, 0.2], None, "chains: unmixed: not judged (maximum R-hat 2.00)"),
    ],
)
def test_a_posterior_is_judged_where_its_chains_have_mixed(data, changes, strong, holds, words):
    assert "Of a posterior by HMC" not in str(build_study(data).verdicts)
    rows = [
        copy.deepcopy(row)
        | {
            "training": "hmc-mixed",
            "diagnostics": {"num_train": 6000, "num_distinct_draws": 50, **MIXED, **changes},
            "intervals": row["intervals"] | {"pgd": [0.3, 0.4], "strong": strong},
        }
        for row in data["hmc"][:2]
    ]
    study = build_study(data | {"hmc": data["hmc"] + rows})
    verdict = study.verdicts[-1]
    assert verdict.claim.startswith("Of a posterior by HMC the published PGD leaves no more")
    assert (verdict.holds, verdict.measured.endswith(words)) == (holds, True)
    (table,) = (t for t in study.tables if t.title.startswith("HMC on one minibatch"))
    assert table.rows[-1][0] == "HMC on a subset, long trajectories (6,000 images)"
    assert table.rows[-1][-1] == words.removeprefix("chains: ")


def test_figures_draw_every_row_and_share(data):
    departures, shares = (plot.figure for plot in build_study(data).plots)
    (ax,) = departures.axes
    assert len(ax.get_yticklabels()) == len(data["rows"])
    marks = [line for line in ax.lines if line.get_marker() == "o" and line.get_markersize() < 5]
    assert [float(mark.get_xdata()[0]) for mark in marks] == [100 * r["pgd"] for r in data["rows"]]
    (ax,) = shares.axes
    assert len(relevant("pgd", IN_2020)) == len(IN_2020) - 1
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([10.0] * (len(IN_2020) - 1))
    for figure in (departures, shares):
        figure.draw_without_rendering()
