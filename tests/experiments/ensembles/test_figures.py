"""The curve of ensembles, from accuracies that are known."""

import numpy as np
import pytest

from experiments.ensembles.report import ATTACKS, Size, build_study, curve_figure
from experiments.launch.tables import to_record


def size(count, correct, *, epsilon=0.3):
    """Return an ensemble with that many of 40 images correct under every attack."""
    shares = {"published": 0.9, "corrected": 0.4}
    return Size(
        epsilon,
        count,
        np.arange(40) < 38,
        {f"{suite}/{attack}": np.arange(40) < correct for suite, attack in ATTACKS},
        shares,
        dict.fromkeys(shares, 0.0),
    )


def study(sizes, **options):
    options = {"setting": "mnist, conv of 512", "is_paper_network": True} | options
    return to_record(build_study(sizes, **options))


def test_a_change_is_paired_and_its_interval_is_never_closed():
    record = study([size(1, 10), size(8, 20)])
    # Ten of 40 images change: d' = 10 / 42, var = (11 / 42 - d'^2) / 42 (Agresti and Min).
    half = 1.96 * np.sqrt((11 / 42 - (10 / 42) ** 2) / 42)
    low, high = (100 * (10 / 42 + sign * half) for sign in (-1, 1))
    assert record["verdicts"][0]["measured"] == (
        f"8 members against 1: +25.0 [{low:+.1f}, {high:+.1f}] points"
    )
    assert record["data"]["changes"][0] == {
        **{"epsilon": 0.3, "num_members": [1, 8], "attack": "published/fgsm"},
        **{"gained": 10, "lost": 0},
    }
    # Nothing changes: 40 images cannot tell that from 4.7 points, 196 sqrt(1 / 42^2).
    same = study([size(1, 20), size(8, 20)])["verdicts"][0]
    assert same["measured"] == "8 members against 1: +0.0 [-4.7, +4.7] points"


def test_curves_show_every_size_and_the_deterministic_band():
    figure = curve_figure([size(1, 4), size(2, 8), size(1, 20, epsilon=0.1)])
    assert len(figure.axes) == 6
    upper, lower = figure.axes[0], figure.axes[3]
    assert list(upper.lines[0].get_xdata()) == [1]
    assert "0.1" in upper.get_ylabel()
    (worst,) = [c for c in figure.axes[5].containers if c.get_label() == "worst case"]
    assert list(worst.lines[0].get_ydata()) == [10, 20]
    assert [t.get_text() for t in lower.get_xticklabels()] == ["1", "2"]
    with pytest.raises(ValueError, match="nothing to draw"):
        curve_figure([])


def test_claims_stand_beside_table_2():
    record = study([size(1, 4, epsilon=0.1), size(1, 4), size(100, 8)])
    claims = {(c["item"], c["quantity"]): c for c in record["claims"]}
    fgsm = claims["Table 2 by ensemble size, Ensemble NN (100)", "accuracy under FGSM"]
    assert [fgsm[name] for name in ("paper", "published", "corrected", "strong")] == [
        20.6,
        20,
        20,
        20,
    ]
    assert (
        claims["Table 2 by ensemble size, Deterministic NN", "accuracy under PGD"]["paper"] == 1.45
    )
    assert fgsm["note"] == "ours: 100 members, 40 images"
    other = study([size(1, 4, epsilon=0.1)], is_paper_network=False)["claims"]
    assert {c["item"] for c in other} == {"Table 2 by ensemble size, Deterministic NN"}
    assert {c["paper"] for c in other} == {None}
    assert "radius 0.1. The paper's ConvNet on MNIST, radius 0.3: 97.69 %" in other[0]["note"]


@pytest.mark.parametrize(("correct", "holds"), [(10, True), (11, None), (30, False)])
def test_comparable_is_within_five_points(correct, holds):
    verdicts = study([size(1, 10), size(8, correct)])["verdicts"]
    assert [v["holds"] for v in verdicts] == [holds] * len(ATTACKS)
    assert study([size(1, 10)])["verdicts"] == []
