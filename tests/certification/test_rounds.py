"""Rounds of alpha-CROWN: of several bounds all hold."""

import jax
import numpy as np
import pytest

from bnn_adv.certification.predictive import Margin
from bnn_adv.certification.rounds import _choose_better


def _margin(margin, rounding, nearest=0):
    values = np.asarray(margin, float), np.asarray(rounding, float)
    return Margin(*values, values[0] - 1, np.ones(()), np.asarray(nearest), values[0])


@pytest.mark.parametrize(
    ("first", "second", "margin", "left"),
    [
        ((0.30, 0.01), (0.40, 0.20), 0.40, 0.29),
        ((0.40, 0.20), (0.30, 0.01), 0.40, 0.29),
        ((0.40, 0.01), (0.30, 0.01), 0.40, 0.39),
        # Where float32 may lose everything, another bound still says what it leaves.
        ((0.40, np.inf), (0.30, 0.01), 0.40, 0.29),
        ((0.40, np.inf), (0.30, np.inf), 0.40, -np.inf),
        # A bound that says nothing must not lend its small rounding to another.
        ((0.40, np.inf), (-np.inf, 0.01), 0.40, -np.inf),
        ((-np.inf, 0.01), (0.40, np.inf), 0.40, -np.inf),
        ((-np.inf, np.inf), (-np.inf, 0.01), -np.inf, -np.inf),
    ],
)
def test_both_the_margin_and_what_float32_leaves_of_it_are_the_largest(first, second, margin, left):
    with jax.enable_x64(True):
        chosen = _choose_better(_margin(*first, 1), _margin(*second, 2))
    found = Margin(*map(np.asarray, chosen))
    assert found.margin == margin
    assert not np.isnan(found.rounding)
    if np.isfinite(left):
        np.testing.assert_allclose(found.margin - found.rounding, left, rtol=1e-14)
    else:
        assert not found.margin > found.rounding
    assert found.nearest == (1 if first[0] >= second[0] else 2)
    assert found.alone == max(first[0], second[0]) - 1
