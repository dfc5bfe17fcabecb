"""Figures, tables and verdicts of the theory, from made-up measurements whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from bnn_adv.report.style import to_png
from experiments.geometry import figures as geometry
from experiments.geometry import report as geometry_study
from experiments.launch.tables import to_record

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
        "square": share * abs(share),
        "typical": 1.0,
        "zeros": 0.0,
    }


MIXED = {
    **{"num_chains": 4, "rhat": "rank-normalised split", "max_rhat": 1.02, "min_ess": 200.0},
    **{"log_density_rhat": 1.01, "log_density_ess": 300.0},
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
            **{"seed": seed, "accuracy": 1.0, "diagnostics": MIXED if method == "hmc" else {}},
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

    for change in ("width", "data", "training"):
        assert holds("Section 9", f"every step of {change}") is True
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
    assert "0.951 [0.944, 0.957]" in within.measured
    assert "prior, which saw no data: 0.000707 [-0.00242" in within.measured
    assert "not told from zero; one hidden layer of 8 to 16 units, 50 points, prior" in (
        within.measured
    )


def test_undecided_where_seeds_disagree():
    data = make_data()
    for row in data["posteriors"]:
        row["score_within"] = _means(0.02 if row["seed"] else 0.3)
    verdicts = geometry_study.judge_means(data["posteriors"])
    assert [v.holds for v in verdicts if "in the subspace" in v.claim] == [None]


def test_a_loss_that_is_smaller_at_the_ends_alone_does_not_fall_with_every_step():
    rows = [
        {"width": w, "num_data": 8, **_trace(0.5, 0.1, scale=scale)}
        for w, scale in ((4, 3.0), (8, 5.0), (16, 1.0))
    ]
    width, training = geometry_study.judge_convergence(rows)
    assert (width.holds, training.holds) == (False, True)
    assert (
        "4, 8, 16 hidden units: held-out loss 0.0031, 0.0052, 0.001 (steps: 10^" in width.measured
    )


def test_settings_whose_chains_have_not_mixed_are_left_out():
    data = make_data()["posteriors"]
    chains = [row for row in data if row["method"] == "hmc"]
    chains[0]["diagnostics"] = MIXED | {"max_rhat": 1.4}
    # What is left out says the opposite.
    for row in chains[:2]:
        row["score_within"] = _means(0.0)
    verdicts = {v.claim: v for v in geometry_study.judge_means(data)}
    (within,) = [v for claim, v in verdicts.items() if "in the subspace" in claim]
    assert within.holds is False
    assert within.measured.endswith(
        "16 units, 50 points, prior N(0, 1); chains: mixed (maximum R-hat 1.02, smallest ESS 200); "
        "1 of 2 settings left out: the chains of 1 of 4 posteriors have not mixed"
    )
    for row in chains:
        row["diagnostics"] = MIXED | {"min_ess": 12.0}
    for verdict in geometry_study.judge_means(data):
        assert verdict.holds is None
        assert verdict.measured.startswith("unmixed: not judged (2 of 2 settings left out")


def test_the_study_is_complete(study):
    record = to_record(study)
    names = [plot.name for plot in study.plots]
    assert names == ["convergence", "dimension", "mirror", "field", "means", "sweep"]
    assert [len(t["rows"]) for t in record["tables"]] == [4, 1, 4]
    assert all(len(plot.caption) > 100 for plot in study.plots)
    (row,) = study.tables[1].rows
    assert row[:4] == ("moons", 2, 20, 95.0)


@pytest.mark.slow
def test_figures_draw(study):
    for plot in study.plots:
        assert to_png(plot.figure, dpi=40).startswith(b"\x89PNG")


def test_curves_are_the_numbers(study):
    (figure,) = [plot.figure for plot in study.plots if plot.name == "means"]
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert set(lines) == {"HMC", "prior", "$S^{-1/2}$"}
    np.testing.assert_allclose(lines["prior"].get_ydata(), [1, 10**-0.5, 0.1], rtol=1e-6)
    assert min(lines["HMC"].get_ydata()) > 0.9


def test_shares_below_zero_are_drawn_below_zero():
    rows = make_data()["posteriors"]
    for row in rows:
        row["score_across"] = _means(-0.1 if row["width"] == 8 else 0.1)
    figure = geometry.sweep_figure(rows)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    np.testing.assert_allclose(lines["HMC, across"].get_ydata(), [-0.1, 0.1])
    mean = np.sqrt(np.mean([0.95**2, 0.951**2]))
    np.testing.assert_allclose(lines["HMC, within"].get_ydata(), [mean, mean])
    assert figure.axes[0].get_ylim()[0] < -0.1


def test_no_picture_of_a_manifold_outside_the_plane():
    field = make_data()["mirror"]["field"]
    field["x"] = np.ones((8, 3)).tolist()
    assert geometry.field_figure(field) is None
