"""Tests over the same images: closed forms, and adjustments for their number."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.launch.significance import holm, sign_test


def test_signs_are_told_by_the_images_that_differ():
    kept = np.array([1] * 15 + [0] * 5)
    fewer = np.array([1] * 2 + [0] * 18)
    # Thirteen images on which the first keeps more, none on which it keeps less.
    assert sign_test(kept, fewer) == pytest.approx(2 / 2**13)
    assert sign_test(fewer, kept) == sign_test(kept, fewer)
    assert sign_test(kept, kept) == 1
    # One against one, whatever the others share; means over repetitions count by their order.
    assert sign_test(np.array([1, 0, 0.5]), np.array([0, 1, 0.5])) == 1
    assert sign_test(np.array([1, 0.6]), np.array([0.9, 0.5])) == pytest.approx(0.5)


def test_holm_is_the_textbooks():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    with pytest.raises(ValueError, match="p-values lie in"):
        holm([0.5, np.nan])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_none_and_bonferroni(p_values):
    found = holm(p_values)
    for (p, adjusted), (q, other) in itertools.combinations(zip(p_values, found, strict=True), 2):
        assert (adjusted <= other) if p < q else (adjusted >= other)
    for p, adjusted in zip(p_values, found, strict=True):
        assert p <= adjusted <= min(1.0, len(found) * p) + 1e-12
    assert min(found) == pytest.approx(min(1.0, len(found) * min(p_values)))
