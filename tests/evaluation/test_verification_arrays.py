"""How what was verified is said."""

import numpy as np
import pytest

from bnn_adv.evaluation.verification_arrays import describe_radius


@pytest.mark.parametrize(
    ("radius", "text"),
    [
        (0.1, "0.1"),
        (np.float32(0.001), "0.001"),
        (np.full(3, 0.001), "0.001"),
        (np.array([0.1, 0.02]), "0.02 to 0.1"),
        (np.array(["no number"])[0], "no number"),
    ],
)
def test_a_radius_is_one_number_where_it_is_one(radius, text):
    assert describe_radius(radius) == text
