"""Shapley values against closed forms."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.protocol_ablation.shapley import shapley_values
from experiments.protocol_ablation.switches import combinations

NAMES = ("a", "b", "c", "d")


@given(st.lists(st.floats(-1, 1), min_size=16, max_size=16))
def test_shapley_values_add_up(numbers):
    value = dict(zip(combinations(NAMES), numbers, strict=True))
    shares = shapley_values(value, NAMES)
    total = value[frozenset(NAMES)] - value[frozenset()]
    assert math.fsum(shares.values()) == pytest.approx(total, abs=1e-9)


def test_shapley_values_of_known_games():
    """An additive part goes to its cause, a joint one is halved, an idle cause gets nothing."""
    value = {on: 0.1 + 0.5 * ("a" in on) + 0.2 * ({"b", "c"} <= on) for on in combinations(NAMES)}
    assert shapley_values(value, NAMES) == pytest.approx({"a": 0.5, "b": 0.1, "c": 0.1, "d": 0.0})


def test_shapley_values_need_every_subset():
    with pytest.raises(ValueError, match=r"all 4 subsets, 1 are missing: \['a', 'b'\]"):
        shapley_values({frozenset(): 0, frozenset("a"): 1, frozenset("b"): 1}, ("a", "b"))
