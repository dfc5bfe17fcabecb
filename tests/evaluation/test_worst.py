"""The worst of several attacks."""

import numpy as np
import pytest

from bnn_adv.evaluation.worst import worst_log_probs


def test_what_fools_comes_before_what_makes_the_label_improbable():
    y = np.array([0, 0, 0])
    # Image 0: only the second fools, at which the label is more probable than at the first.
    # Image 1: none fools, the first is worse. Image 2: both fool, the second is worse.
    first = np.log([[0.40, 0.30, 0.30], [0.50, 0.25, 0.25], [0.4, 0.5, 0.1]])
    second = np.log([[0.45, 0.54, 0.01], [0.60, 0.20, 0.20], [0.1, 0.8, 0.1]])
    worst = worst_log_probs([first, second], y)
    np.testing.assert_array_equal(worst, [second[0], first[1], second[2]])


def test_an_image_stands_only_where_it_withstands_all():
    rng = np.random.default_rng(0)
    candidates, y = list(rng.normal(size=(4, 50, 3))), rng.integers(0, 3, 50)
    standing = worst_log_probs(candidates, y).argmax(axis=-1) == y
    np.testing.assert_array_equal(standing, np.all([c.argmax(-1) == y for c in candidates], axis=0))
    with pytest.raises(ValueError, match="worst of no attacks"):
        worst_log_probs([], y)
