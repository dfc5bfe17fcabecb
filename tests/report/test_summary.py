from __future__ import annotations

from typing import Any

import pytest

from bnn_adv.report import list_findings, summarise


@pytest.fixture
def with_numbers(make_results: Any, make_suite: Any) -> Any:
    def make(published: float | None, worst: float | None, zeros: float = 0.0) -> Any:
        results = make_results()
        row = results["rows"][0]
        row["protocols"] = {}
        if published is not None:
            row["protocols"]["published"] = make_suite(0.9, zeros, fgsm=1.0, pgd=published)
        if worst is not None:
            row["protocols"]["strong"] = make_suite(0.1, 0.0, worst=worst)
        return results | {"rows": [row]}

    return make


@pytest.mark.parametrize(
    ("published", "worst", "verdict"),
    [
        (0.92, 0.0, "artefact"),
        (0.014, 0.0, "holds"),
        (0.09, 0.0, "holds"),
        (0.0, 0.5, "weak suite"),
        (0.92, None, "not tested"),
        (None, 0.1, "not tested"),
        (None, None, "not tested"),
    ],
)
def test_the_verdict_compares_published_and_worst(
    published: float | None, worst: float | None, verdict: str, with_numbers: Any
) -> None:
    (finding,) = list_findings(with_numbers(published, worst))
    assert finding.verdict == verdict
    assert finding.model in summarise(with_numbers(published, worst))


def test_overlapping_intervals_decide_nothing(with_numbers: Any) -> None:
    results = with_numbers(0.5, 0.38)
    numbers = results["rows"][0]["protocols"]
    numbers["published"]["intervals"]["pgd"] = [0.3, 0.7]
    numbers["strong"]["intervals"]["worst"] = [0.2, 0.6]
    assert list_findings(results)[0].verdict == "unclear"
    assert "overlap" in summarise(results)


def test_the_claim_is_the_suites_strongest_attack(make_results: Any) -> None:
    finding = list_findings(make_results())[2]
    assert finding.model == "vi"
    assert (finding.claim.suite, finding.claim.attack) == ("published", "fgsm")


def test_without_published_the_corrected_suite_is_compared(make_results: Any) -> None:
    results = make_results()
    for row in results["rows"]:
        del row["protocols"]["published"]
    finding = list_findings(results)[2]
    assert finding.claim.suite == "corrected"
    assert finding.verdict == "artefact"


def test_an_artefact_leads_the_summary_with_numbers_and_cause(make_results: Any) -> None:
    text = summarise(make_results())
    assert text.startswith("vi: the published robustness is an artefact of the attack: 90.0 %")
    assert "84.0 % of them the published attack's gradient is exactly zero" in text
    assert "deterministic (1.4 % published, 0.0 % strong)" in text
    assert "2.2 % (vi), 4.6 % (hmc)" in text


def test_a_cause_is_not_claimed_without_zero_gradients(with_numbers: Any) -> None:
    assert "exactly zero" not in summarise(with_numbers(0.92, 0.0, zeros=0.02))
    assert "exactly zero" in summarise(with_numbers(0.92, 0.0, zeros=0.5))


def test_a_robust_network_on_mnist_is_suspicious(with_numbers: Any) -> None:
    results = with_numbers(0.92, 0.9)
    assert "attacks that still fail" in summarise(results)
    assert "attacks that still fail" not in summarise(results | {"epsilon": 0.1})


def test_an_empty_run_says_so() -> None:
    assert summarise({"rows": []}) == "The run holds no model."
