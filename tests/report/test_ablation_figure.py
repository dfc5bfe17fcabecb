"""Tables, figures and sentences of the ablation, from rows that are written down here."""

import copy

import pytest

from bnn_adv.ablation import SWITCHES, list_rows
from bnn_adv.report.ablation_study import build_study
from bnn_adv.report.study import format_study, to_record


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
        "attacker_draws": 1,
        "defender_draws": 10,
        "training": "vi",
        "change_from_base": change,
        "change_from_all": change,
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
        "rows": rows,
        "hmc": hmc,
        "shares": {
            "num_images": 100,
            "combinations": [],
            "shapley": {
                name: dict.fromkeys(SWITCHES, 0.1) for name in ("fgsm", "pgd", "softmax_robustness")
            },
        },
    }


def test_the_answer_names_the_cause(data):
    record = to_record(build_study(data))
    assert "exactly zero in float32 at 88.0 %" in record["summary"]
    assert "mean size of 3,700" in record["summary"]
    table = record["tables"][0]
    assert table["rows"][4][0].endswith("469 times too much")
    assert table["rows"][0][3] == "5.0 [2.0, 8.0]"
    holds = [verdict["holds"] for verdict in record["verdicts"]]
    # No network is robust; no switch alone hides it; putting one right shows it.
    assert holds[:4] == [False, False, True, False]
    assert "double_softmax (40.0 %), vi_init (5.0 %)" in record["verdicts"][2]["measured"]
    assert "below 0.853" in record["verdicts"][3]["measured"]
    assert record["claims"][1]["published"] == pytest.approx(90.0)
    assert record["claims"][1]["paper"] == 90.0
    assert record["tables"][2]["rows"][-1][1:] == ["+70.0", "+70.0", "+0.700"]
    assert "What is as published" in format_study(record)


def test_the_published_number_says_how_many_draws_its_attacker_knew(data):
    data["rows"][-1].update(attacker_draws=10, fgsm=0.915, pgd=0.895)
    assert data["rows"][-1]["switch"] == "seeds"
    for claim in build_study(data).claims:
        assert "knows 1 of the draws (with all 10 that predict" in claim.note
        assert "leave 91.5 and 89.5 %" in claim.note


def test_without_masking_nothing_is_called_hidden(data):
    plain = copy.deepcopy(data)
    for row in plain["rows"]:
        row["pgd"] = 0.04
    plain["shares"], plain["dataset"] = None, "digits"
    study = build_study(plain)
    assert "nothing is hidden" in study.summary
    assert study.verdicts[2].holds is None
    assert [plot.name for plot in study.plots] == ["departures"]
    assert study.claims == ()


def test_figures_draw_every_row_and_share(data):
    departures, shares = (plot.figure for plot in build_study(data).plots)
    (ax,) = departures.axes
    assert len(ax.get_yticklabels()) == len(data["rows"])
    marks = [line for line in ax.lines if line.get_marker() == "o" and line.get_markersize() < 5]
    assert [float(mark.get_xdata()[0]) for mark in marks] == [100 * r["pgd"] for r in data["rows"]]
    (ax,) = shares.axes
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([10.0] * len(SWITCHES))
    for figure in (departures, shares):
        figure.draw_without_rendering()
