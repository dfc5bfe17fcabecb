from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn_adv.report.wording import (
    Measured,
    format_attack,
    format_fraction,
    format_percent,
    to_interval,
    to_number,
)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0.0"),
        (1, "100.0"),
        (0.9, "90.0"),
        # Ties of the printed decimal go up, although the binary 0.9765 lies below the tie.
        (0.9765, "97.7"),
        (0.0725, "7.3"),
        (0.0005, "0.1"),
        # Neither none nor all.
        (0.0004, "<0.1"),
        (0.9996, ">99.9"),
        (0.9994, "99.9"),
        (np.float32(0.976), "97.6"),
    ],
)
def test_percentages_are_rounded_half_up_and_never_to_none_or_all(share: float, text: str) -> None:
    assert format_percent(share) == text


@given(st.floats(0, 1))
def test_a_percentage_is_within_half_a_unit_of_the_share(share: float) -> None:
    text = format_percent(share)
    if text[0] in "<>":
        assert 0 < share < 1
    else:
        assert abs(float(text) - 100 * share) <= 0.05 + 1e-9


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "0.5", True, [0.5], {}])
def test_what_is_not_a_number_is_not_available(value: object) -> None:
    assert to_number(value) is None
    assert format_percent(value) == format_fraction(value) == "n/a"


@pytest.mark.parametrize("value", [None, "ab", [0.1], [0.1, None], [0.1, math.nan], {1: 2, 3: 4}])
def test_what_is_not_a_pair_is_no_interval(value: object) -> None:
    assert to_interval(value) is None


def test_an_interval_follows_its_value() -> None:
    assert str(Measured(0.9, (0.871, 0.924))) == "90.0 [87.1, 92.4]"
    assert str(Measured(0.9)) == "90.0"
    assert str(Measured(None, (0.1, 0.2))) == "n/a"


def test_names_of_attacks_are_spelled_out() -> None:
    assert format_attack("fgsm") == "FGSM"
    assert format_attack("pgd_mean_logit_margin") == "PGD, mean logit margin"
    assert format_attack("apgd_ce") == "APGD, CE"
    assert format_attack("pgd_mean_logit_margin_100") == "PGD, mean logit margin, 100"
    assert format_attack("apgd_t_dlr") == "APGD-T, DLR"
    assert format_attack("fab_t_log_predictive_margin_30") == "FAB-T, log predictive margin, 30"
    assert format_attack("worst") == "worst"
