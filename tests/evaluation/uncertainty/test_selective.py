"""Selective accuracy against brute force over all orders of ties, and its worst case."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_adv.evaluation.uncertainty import describe_selective, selective_accuracy
from bnn_adv.evaluation.uncertainty.shift import _Seen, _worst

# Few distinct values: ties are the rule.
ITEMS = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6)


def by_brute_force(items):
    """Average over every order that keeps the certain before the uncertain."""
    orders = [
        order
        for order in itertools.permutations(items)
        if all(a[0] <= b[0] for a, b in itertools.pairwise(order))
    ]
    rows = np.array([[item[1] for item in order] for order in orders], float)
    return (np.cumsum(rows, axis=1) / np.arange(1, len(items) + 1)).mean(axis=0)


@settings(deadline=None, max_examples=40)
@given(items=ITEMS)
def test_ties_count_as_the_mean_of_their_orders(items):
    scores, correct = zip(*items, strict=True)
    found = selective_accuracy(scores, correct)
    np.testing.assert_allclose(found, by_brute_force(items), rtol=0, atol=1e-12)
    curve = describe_selective(scores, correct)
    assert math.isclose(curve.area, found.mean())
    # Nothing refused comes first; the last answers one input.
    assert (curve.answered[0], curve.answered[-1]) == (len(items), 1)
    assert curve.accuracy[0] == pytest.approx(np.mean(correct))
    np.testing.assert_allclose(curve.accuracy, found[np.array(curve.answered) - 1])
    assert all(
        low <= share <= high
        for share, (low, high) in zip(curve.accuracy, curve.intervals, strict=True)
    )


def test_perfect_and_useless_scores_have_known_areas():
    """Errors last: 1, 1, 2/3, 1/2; all scores equal: the accuracy whatever is refused."""
    perfect = describe_selective([1, 2, 3, 4], [1, 1, 0, 0])
    assert perfect.area == pytest.approx((2 + 2 / 3 + 0.5) / 4)
    assert describe_selective([7] * 4, [1, 0, 0, 0]).area == pytest.approx(0.25)
    curve = describe_selective(np.arange(1000), np.arange(1000) < 900)
    assert curve.at(0.1)[0] == 1.0
    assert curve.at(0.0)[0] == pytest.approx(0.9)
    assert curve.at(1.0)[0] == 1.0
    assert len(curve.rejection) <= 101


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        selective_accuracy([np.nan], [True])
    with pytest.raises(ValueError, match="one input at least"):
        selective_accuracy([], [])
    with pytest.raises(ValueError, match=r"\(2,\) and \(1,\)"):
        selective_accuracy([0.0, 1.0], [True])


POOL = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=3, max_size=3),
    min_size=3,
    max_size=3,
)


@settings(deadline=None, max_examples=40)
@given(pool=POOL)
def test_no_other_choice_leaves_less_at_any_number_of_answers(pool):
    """All choices of one candidate an input: 27."""
    y = np.zeros(3, int)
    seen = [
        _Seen(
            np.full((3, 1), float(number)),
            {"entropy": np.array([score for score, _ in row], float)},
            np.array([0 if right else 1 for _, right in row]),
        )
        for number, row in enumerate(pool)
    ]
    images, scores, classes = _worst(seen, "entropy", y)
    found = selective_accuracy(scores, classes == y)
    for choice in itertools.product(range(3), repeat=3):
        own = [pool[candidate][place] for place, candidate in enumerate(choice)]
        other = selective_accuracy(*zip(*own, strict=True))
        assert (found <= other + 1e-12).all()
    taken = images[:, 0].astype(int)
    assert [pool[k][i] for i, k in enumerate(taken)] == list(zip(scores, classes == 0, strict=True))
