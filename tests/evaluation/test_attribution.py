"""Paired differences and Shapley values against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn_adv.evaluation.attribution import paired_difference, shapley_values
from experiments.protocol_ablation.switches import combinations


def test_paired_difference_by_hand():
    """N = 10: two images only the second has, one only the first has."""
    first = [True] * 4 + [False] * 6
    second = [True] * 3 + [False] + [True] * 2 + [False] * 4
    value, low, high = paired_difference(first, second)
    centre, half = 1 / 12, 1.959964 * math.sqrt((4 / 12 - (1 / 12) ** 2) / 12)
    assert value == pytest.approx(0.1)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-6)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_paired_difference_is_antisymmetric(pairs):
    first, second = np.asarray(pairs).T
    value, low, high = paired_difference(first, second)
    assert paired_difference(second, first) == pytest.approx((-value, -high, -low))
    assert -1 <= low < high <= 1
    assert value == pytest.approx(second.mean() - first.mean())


def test_paired_difference_refuses_other_images():
    with pytest.raises(ValueError, match=r"same images.*\(2,\) and \(3,\)"):
        paired_difference([True, False], [True, False, True])


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
