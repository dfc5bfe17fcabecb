"""Figures, tables and verdicts of the theory, from made-up measurements whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from bnn_adv.report import geometry, geometry_study
from bnn_adv.report.study import to_record
from bnn_adv.report.style import to_png

STEPS = [10, 100, 1000]
LOSS = np.array([1e-1, 1e-2, 1e-3])


def _trace(tangent, normal, *, scale=1.0):
    """Norms as powers of the loss, for two seeds."""
    seeds = np.array([[1.0], [1.1]]) * scale
    return {
        "steps": STEPS,
        "train_loss": (seeds * LOSS).tolist(),
        "test_loss": (seeds * LOSS).tolist(),
        "test_error": np.zeros((2, 3)).tolist(),
        "loss_tangent": (seeds * LOSS).tolist(),
        "loss_normal": (seeds * LOSS**normal * LOSS**0.5).tolist(),
        "score_tangent": (seeds * LOSS**tangent).tolist(),
        "score_normal": (seeds * LOSS**normal).tolist(),
    }


def _means(share):
    counts = np.array([1, 10, 100])
    norms = np.maximum(counts**-0.5, share)
    return {
        "counts": counts.tolist(),
        "norms": norms.tolist(),
        "share": share,
        "typical": 1.0,
        "zeros": 0.0,
    }


def make_data():
    convergence = [
        {"width": w, "num_data": n, **_trace(0.5, 0.1, scale=100 / (w * n))}
        for w in (4, 16)
        for n in (8, 64)
    ]
    dimension = [
        {
            "support": "tube" if is_full else "moons",
            "dim": 2,
            "loss": loss,
            "has_full_dimension": is_full,
            "fall": [0.01, 0.02] if is_full else [0.4, 0.41],
            "broken": [0.0, 0.0],
            **_trace(0.5, 0.5 if is_full else 0.0),
        }
        for is_full in (True, False)
        for loss in ("squared", "cross_entropy")
    ]
    mirror = [
        {
            "manifold": "moons",
            "dim": 2,
            "success": [True] * 19 + [False],
            **{name: [value] * 20 for name, value in _MIRRORED.items()},
        }
    ]
    angle = np.linspace(0, 6, 8)
    x = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    field = {
        "x": x.tolist(),
        "labels": (angle > 3).astype(int)[:, None].tolist(),
        "tangent": x[:, ::-1].tolist(),
        "before": x.tolist(),
        "after": (-x).tolist(),
        "attacked": [[2]],
    }
    posteriors = [
        {
            **{"manifold": "moons-embedded", "method": method, "width": width, "num_data": 50},
            **{"seed": seed, "accuracy": 1.0, "max_rhat": None},
            **{
                f"{kind}_{part}": _means(share + 0.001 * seed)
                for kind in ("score", "loss")
                for part, share in (
                    ("tangent", 0.9),
                    ("within", 0.0 if method == "prior" else 0.95),
                    ("across", 0.01),
                )
            },
        }
        for method in ("hmc", "prior")
        for width in (8, 16)
        for seed in range(2)
    ]
    return {
        "convergence": convergence,
        "dimension": dimension,
        "mirror": {"rows": mirror, "field": field},
        "posteriors": posteriors,
    }


_MIRRORED = {
    "cosine": -1.0,
    "relative_error": 1e-3,
    "max_difference": 1e-4,
    "max_log_odds": 0.0,
    "weight_change": 0.1,
    "log_prior_change": -3.0,
}


@pytest.fixture(scope="module")
def study():
    return geometry_study.build_study(make_data())


def test_verdicts_say_what_was_put_in(study):
    found = {v.claim: v.holds for v in study.verdicts}

    def holds(*words):
        (answer,) = [h for claim, h in found.items() if all(word in claim for word in words)]
        return answer

    for change in ("wider", "more data", "more steps"):
        assert holds("Section 9", change) is True
    assert holds("Lemma 3", "vanishes") is True
    assert holds("Corollary 2", "tangent part vanishes") is True
    assert holds("Corollary 2", "function's gradient does not") is True
    # The loss gradient's normal part was made to follow the loss.
    assert holds("to the letter") is False
    assert holds("Lemma 3", "attacks inside a ball") is True
    assert holds("Lemma 4: other weights") is True
    assert holds("hmc", "in the subspace") is False
    assert holds("hmc", "across that subspace") is True


def test_verdicts_hold_the_numbers(study):
    (lemma,) = [v for v in study.verdicts if v.claim.startswith("Lemma 4: other")]
    assert "19 of 20" in lemma.measured
    (within,) = [v for v in study.verdicts if "in the subspace" in v.claim]
    assert "0.95 [0.944" in within.measured


def test_undecided_where_seeds_disagree():
    data = make_data()
    for row in data["posteriors"]:
        row["score_within"] = _means(0.02 if row["seed"] else 0.3)
    verdicts = geometry_study.judge_means(data["posteriors"])
    assert [v.holds for v in verdicts if "in the subspace" in v.claim] == [None]


def test_the_study_is_complete(study):
    record = to_record(study)
    names = [plot.name for plot in study.plots]
    assert names == ["convergence", "dimension", "mirror", "field", "means", "sweep"]
    assert [len(t["rows"]) for t in record["tables"]] == [4, 1, 4]
    assert all(len(plot.caption) > 100 for plot in study.plots)
    (row,) = study.tables[1].rows
    assert row[:4] == ("moons", 2, 20, 95.0)


def test_figures_draw(study):
    for plot in study.plots:
        assert to_png(plot.figure, dpi=40).startswith(b"\x89PNG")


def test_curves_are_the_numbers(study):
    (figure,) = [plot.figure for plot in study.plots if plot.name == "means"]
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert set(lines) == {"HMC", "prior", "$S^{-1/2}$"}
    np.testing.assert_allclose(lines["prior"].get_ydata(), [1, 10**-0.5, 0.1], rtol=1e-6)
    assert min(lines["HMC"].get_ydata()) > 0.9


def test_no_picture_of_a_manifold_outside_the_plane():
    field = make_data()["mirror"]["field"]
    field["x"] = np.ones((8, 3)).tolist()
    assert geometry.field_figure(field) is None
