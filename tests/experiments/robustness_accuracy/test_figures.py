"""Figures and findings of the clouds, from rows whose every number is known."""

import copy

import pytest

from experiments.launch.tables import list_tables, to_record
from experiments.robustness_accuracy import figures as robustness_accuracy
from experiments.robustness_accuracy.report import build_study


def row(method, number, accuracy, robustness, *, dataset="mnist", starred=False):
    """Return a network that loses nothing under the published suite."""

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


MIXED = {
    **{"rhat": "rank-normalised split", "num_chains": 2, "num_undefined_rhats": 0},
    **{"max_rhat": 1.01, "log_density_rhat": 1.02, "min_ess": 200.0, "log_density_ess": 180.0},
}
UNMIXED = {**MIXED, "max_rhat": 2.31, "min_ess": 3.0}


def with_chains(rows, *diagnostics):
    """Return the rows with these diagnostics of the first ones."""
    rows = copy.deepcopy(list(rows))
    for each, found in zip(rows, diagnostics, strict=False):
        each["diagnostics"] |= found
    return rows


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
        [*with_chains(ROWS, *[MIXED] * 6), FAILED, LATE],
        **{"epsilon": 0.1, "suite": "fast", "least_accuracy": 0.8, "seed": 0},
    )
    return to_record(study)


def verdicts(rows):
    study = build_study(rows, epsilon=0.1, suite="fast", least_accuracy=0.8, seed=0)
    return {(v.claim.split(":")[0], v.measured.split(":")[0]): v for v in study.verdicts}


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


def test_verdicts_need_chains_that_have_mixed():
    """Six HMC networks in perfect order; what they say depends on their chains alone."""
    name = ("HMC, mnist", "corrected metric")
    mixed = verdicts(with_chains(ROWS, *[MIXED] * 6))
    assert (mixed[name].holds, "rho +1.00" in mixed[name].measured) == (True, True)
    unmixed = verdicts(with_chains(ROWS, *[UNMIXED] * 6))
    text = "unmixed: not judged (0 of 6 have chains that mixed)"
    assert unmixed[name].measured == f"corrected metric: {text}"
    assert {v.holds for key, v in unmixed.items() if key[0] == "HMC, mnist"} == {None}
    # One chain, or a record of an older run, cannot show that it has mixed.
    unknown = verdicts(with_chains(ROWS, *[{**MIXED, "num_chains": 1}] * 6))
    assert unknown[name].measured == f"corrected metric: {text.removeprefix('unmixed: ')}"
    # Five of six: the sixth takes no part.
    some = verdicts(with_chains(ROWS, UNMIXED, *[MIXED] * 5))
    assert some[name].measured.endswith(
        "n = 5; p adjusted for 5 tests; of 6 networks those whose chains have mixed"
    )
    # What the metric is worth is asked of all networks, and says how many those are.
    over_all = ("mnist", "over all methods (1 by HMC, chains not shown to have mixed)")
    assert "n = 12" in some[over_all].measured


def test_p_values_are_adjusted_for_all_verdicts(record):
    """Six pairs in order have p = 2 / 6!; five tests are asked, four of which are like this."""
    measured = {v["claim"][:3] + v["measured"][:9]: v["measured"] for v in record["verdicts"]}
    assert f"p = {5 * 2 / 720:.2g}, n = 6; p adjusted for 5 tests" in measured["SGDcorrected"]
    table = next(t for t in list_tables(record) if t.title.startswith("Rank correlation"))
    assert f"p = {2 / 720:.2g}, n = 6" in table.rows[0][4]


def test_a_sign_of_one_test_can_vanish_among_many():
    # Five pairs in full order have p = 2 / 5! = 0.017; six such tests leave 0.1.
    five = [r for r in ROWS if r["method"] != "vi" and not r["starred"]]
    found = verdicts(with_chains(five, *[MIXED] * 5))
    assert found["SGD, mnist", "corrected metric"].holds is None


def test_chains_that_have_not_mixed_are_counted(record):
    assert "Chains have mixed for 6 of 6 HMC networks (maximum R-hat at most" in record["summary"]
    old = {"median_rhat": 1.02, "log_density_rhat": 1.0}
    rows = with_chains(ROWS, MIXED, UNMIXED, {**old, "log_density_rhat": 3.1}, old)
    study = build_study(rows, epsilon=0.1, suite="fast", least_accuracy=0.8, seed=0)
    text = "Chains have mixed for 1 of 6 HMC networks (maximum R-hat at most 1.05, smallest"
    assert text in study.summary
    assert study.summary.endswith("; 3 could not be judged.")
    networks = next(table for table in study.tables if table.title == "Networks")
    assert [line[-2] for line in networks.rows[:4]] == [
        "mixed (maximum R-hat 1.02, smallest ESS 180)",
        "unmixed: not judged (maximum R-hat 2.31, smallest ESS 3)",
        "unmixed: not judged (maximum R-hat 3.10)",
        "not judged (R-hat and effective sample size of this rule were not recorded)",
    ]
    assert networks.rows[6][-2] is None
    assert study.claims[0].note.endswith("Chains: mixed (maximum R-hat 1.02, smallest ESS 180).")


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
