"""Figures and findings of the clouds, from rows whose every number is known."""

import copy

import pytest

from bnn_adv.report import robustness_accuracy
from bnn_adv.report.robustness_accuracy_study import build_study
from bnn_adv.report.study import list_tables, to_record


def row(method, number, accuracy, robustness, *, dataset="mnist", starred=False):
    """Return a network that loses nothing under the published protocol."""

    def attack(name, value):
        measures = {"accuracy": value, "published_metric": 0.9 + value / 10}
        return {name: {**measures, "corrected_metric": value}, "zero_gradient_share": 0.5}

    return {
        "name": f"{method}-{number}",
        "dataset": dataset,
        "method": method,
        "source": "table5",
        "starred": starred,
        "settings": {"hidden": 8, "step_size": 0.1},
        "status": "done",
        "reason": "",
        "num_test": 100,
        "num_params": 1000 + number,
        "accuracy": accuracy,
        "protocols": {
            "published": attack("pgd", accuracy),
            "corrected": attack("pgd", robustness),
            "strong": attack("worst", robustness / 2),
        },
        "diagnostics": {"training_seconds": 1.5},
    }


ROWS = [
    *(row("hmc", i, 0.8 + i / 50, 0.5 + i / 25, starred=i == 0) for i in range(6)),
    *(row("sgd", i, 0.8 + i / 50, 0.5 - i / 25, starred=i == 0) for i in range(6)),
    row("vi", 0, 0.3, 0.1),
]
FAILED = {**row("hmc", 9, 0, 0), "status": "failed", "reason": "The energy is not finite."}
LATE = {**row("sgd", 9, 0, 0), "status": "not run", "reason": "the time budget was spent"}


@pytest.fixture(scope="module")
def record():
    study = build_study(
        [*ROWS, FAILED, LATE], epsilon=0.1, suite="fast", least_accuracy=0.8, seed=0
    )
    return to_record(study)


def test_a_line_of_panels_for_every_data_set():
    more = [copy.deepcopy(r) | {"dataset": "fashion_mnist"} for r in ROWS]
    figure = robustness_accuracy.cloud_figure(ROWS + more)
    assert len(figure.axes) == 6
    published, corrected, strong = figure.axes[:3]
    assert [line.get_label() for line in published.lines[:2]] == ["HMC", "HMC, starred"]
    # Every network is a dot, the starred ones apart from the others; last, the bounds.
    for ax, bounds in ((published, 1), (corrected, 0), (strong, 1)):
        lines = ax.lines[: len(ax.lines) - bounds]
        assert sum(len(line.get_xdata()) for line in lines) == len(ROWS)
    assert published.lines[-1].get_ydata()[0] == robustness_accuracy.PUBLISHED_FLOOR
    assert list(strong.lines[0].get_ydata()) == [
        100 * robustness_accuracy.strong_accuracy(r) for r in ROWS[1:6]
    ]
    sizes = robustness_accuracy.size_figure(ROWS)
    assert list(sizes.axes[0].lines[1].get_xdata()) == [1.0]


def test_figures_need_a_network():
    with pytest.raises(ValueError, match="nothing to draw"):
        robustness_accuracy.cloud_figure([])


def test_correlations_and_verdicts_have_the_signs_of_the_rows(record):
    tables = {table.title: table for table in list_tables(record)}
    lines = {line[:3]: line for line in tables["Rank correlation with accuracy"].rows}
    assert lines["mnist", "hmc", "all (6)"][4].startswith("+1.00")
    assert lines["mnist", "sgd", "all (6)"][4].startswith("-1.00")
    assert lines["mnist", "vi", "accuracy >= 80 % (0)"][3] is None
    holds = {(v["claim"][:3], v["measured"][:9]): v["holds"] for v in record["verdicts"]}
    assert holds["HMC", "corrected"] is True
    assert holds["SGD", "corrected"] is True
    assert holds["VI,", "corrected"] is None


def test_the_published_metric_can_call_the_wrong_networks_robust():
    # Robustness by the published metric follows accuracy, strong accuracy falls with it.
    study = build_study(ROWS[6:12], epsilon=0.1, suite="fast", least_accuracy=0.0, seed=0)
    assert study.verdicts[-1].holds is False
    top = "the quarter with the highest metric (n = 1, 0.990 and more) keeps 15.0 to 15.0 %"
    assert study.verdicts[-1].measured.endswith(top)


def test_chains_that_have_not_mixed_are_counted(record):
    assert "chains have mixed" not in record["summary"]
    rows = copy.deepcopy(ROWS)
    for each, density in zip(rows[:6], (1.0, 1.1, 1.2, 2.0, 3.0, 3.1), strict=True):
        each["diagnostics"] |= {"median_rhat": 1.05, "log_density_rhat": density}
    study = build_study(rows, epsilon=0.1, suite="fast", least_accuracy=0.8, seed=0)
    assert study.summary.endswith(" 2 of 6 chains have mixed (both R-hat at most 1.1).")
    networks = next(table for table in study.tables if table.title == "Networks")
    assert networks.rows[5][-3:] == (1.05, 3.1, 1.5)


def test_starred_networks_are_claims(record):
    claims = {claim["quantity"]: claim for claim in record["claims"]}
    accuracy = claims["HMC, mnist: accuracy under PGD"]
    assert (accuracy["published"], accuracy["corrected"], accuracy["strong"]) == (80, 50, 25)
    assert accuracy["paper"] is None
    assert "step_size 0.1" in accuracy["note"]
    assert claims["SGD, mnist: softmax robustness"]["published"] == pytest.approx(0.98)
    assert len(claims) == 4


def test_networks_without_numbers_are_listed(record):
    assert record["summary"].startswith("13 of 15 networks are finished (1 failed, 1 not run)")
    missing = {table.title: table for table in list_tables(record)}["Networks without numbers"]
    assert ("mnist", "hmc", "failed", "The energy is not finite.", 1, "hmc-9") in missing.rows
    nothing = build_study([FAILED], epsilon=0.1, suite="fast", least_accuracy=0.8, seed=0)
    assert (len(nothing.tables), nothing.plots) == (1, ())


def test_hundreds_of_networks_are_listed_by_their_starred_ones():
    many = [row("sgd", i, 0.9, 0.5, starred=i == 0) for i in range(201)]
    study = build_study(many, epsilon=0.1, suite="fast", least_accuracy=0.8, seed=0)
    networks = next(table for table in study.tables if table.title == "Networks")
    assert [line[1] for line in networks.rows] == ["sgd-0 *"]
    assert "all 201 are in results.json" in networks.caption
