"""What is certified and what was attacked, side by side: same problem, no contradiction."""

import dataclasses
import json

import numpy as np
import pytest

import bnn_adv
from bnn_adv.certification import Certificate, ContradictionError
from bnn_adv.evaluation.curve import Curve
from bnn_adv.evaluation.metrics import wilson_interval
from bnn_adv.evaluation.records import Confirmed, ProblemRecord, Provenance

X = np.linspace(0, 1, 10, dtype=np.float32).reshape(5, 2)
Y = np.array([0, 1, 0, 1, 0])
# Of five inputs: two certified, one neither, one broken, one wrong from the start.
CORRECT = np.array([True, True, True, True, False])
BROKEN = np.array([False, False, False, True, False])
CERTIFIED = np.array([True, True, False, False, False])
RADIUS = np.array([0.1, 0.3, 0.05, 0.02, 0.0])
CURVE_ROWS = [0, 2, 3, 4]
SMALLEST = np.array([0.2, np.inf, 0.04, 0.0])

CERTIFICATE = Certificate(
    x=X,
    y=Y,
    norm="linf",
    epsilon=np.full(5, 0.1, np.float32),
    box=(0.0, 1.0),
    clean_correct=CORRECT,
    certified=CERTIFIED,
    margin=np.where(CERTIFIED, 0.3, -0.2),
    rounding=np.full(5, 1e-5),
    alone=np.full(5, -0.3),
    cancellation=np.array([0.5, 0.4, 0.6, 0.7, 1.0]),
    nearest=1 - Y,
    least=np.full(5, -1.0),
    radius=RADIUS,
    draws_hash="abc",
    decision_rule="mean_probabilities",
    num_samples=7,
    settings=bnn_adv.CertificationSettings(num_halvings=4).to_json(),
    rounds=np.zeros(5, np.int32),
    points=np.zeros((0, 0, 0), np.float16),
    radius_rounds=np.zeros(5, np.int32),
    radius_points=np.zeros((0, 0, 0), np.float16),
    seconds=2.0,
)
EVALUATION = bnn_adv.Evaluation(
    suite="fast",
    suite_description="",
    problem=ProblemRecord("linf", 0.1, None, (0.0, 1.0), 5, 7, 2, "highest", "mean_probabilities"),
    accuracy=0.8,
    accuracy_interval=wilson_interval(0.8, 5),
    adversarial_accuracy=0.6,
    adversarial_accuracy_interval=wilson_interval(0.6, 5),
    num_not_finite=0,
    softmax_robustness=0.5,
    per_attack=(),
    fresh=None,
    num_probe=0,
    checks=(),
    curve=Curve(np.array([0.1]), np.array([0.5]), [[0.1, 0.9]], SMALLEST, 0.12),
    uncertainty=None,
    confirmed=Confirmed(1, True),
    provenance=Provenance([0, 0], "abc", "0", [], CURVE_ROWS),
    seconds=1.0,
    arrays={
        "x": X,
        "y": Y,
        "epsilon": np.array(0.1),
        "clean_correct": CORRECT,
        "broken": BROKEN,
    },
)


def test_both_sides_are_told():
    both = bnn_adv.bracket(EVALUATION, CERTIFICATE)
    low, high = wilson_interval(0.4, 5), wilson_interval(0.6, 5)
    assert repr(both) == (
        f"certified 0.400 [{low[0]:.3f}, {low[1]:.3f}] <= true <= "
        f"attacked 0.600 [{high[0]:.3f}, {high[1]:.3f}]"
    )
    assert both.counts == {"certified": 2, "neither": 1, "broken": 1, "wrong": 1}
    record = json.loads(both.to_json())
    assert (record["certified_accuracy"], record["adversarial_accuracy"]) == (0.4, 0.6)
    assert record["certified_accuracy_interval"] == list(low)
    assert record["smallest_epsilon"] == [0.2, None, 0.04, 0.0]
    # The median of the same inputs as the attacks': 0.1, 0.05, 0.02 and 0.
    assert record["median_certified_radius"] == 0.02
    text = " ".join(str(both).split())
    assert "certified 40.0" in text
    assert "<= true <= attacked 60.0" in text
    assert "median: 0.02; smallest radius that an attack found: 0.12 (4 inputs)" in text
    assert "as float32 evaluates it" in text
    page = both.to_html()
    assert "neither certified nor broken" in page
    assert "data:image/png" in page


def test_the_figure_has_both_curves_and_the_gap():
    ax = bnn_adv.bracket(EVALUATION, CERTIFICATE).plot().axes[0]
    certified, attacked = ax.get_lines()[:2]

    # Both of the four inputs of the curve; a certified radius counts itself, a smallest one ends.
    for radius, share in ((0.01, 75), (0.02, 75), (0.021, 50), (0.05, 50), (0.1, 25), (0.11, 0)):
        steps, shares = certified.get_data()
        assert shares[np.searchsorted(steps, radius)] == share, radius
    for radius, share in ((0.0, 75), (0.03, 75), (0.04, 50), (0.19, 50), (0.2, 25)):
        steps, shares = attacked.get_data()
        assert shares[np.searchsorted(steps, radius, side="right") - 1] == share, radius
    assert len(ax.collections) == 1
    without = dataclasses.replace(
        CERTIFICATE, settings=bnn_adv.CertificationSettings().to_json(), radius=0.1 * CERTIFIED
    )
    assert bnn_adv.bracket(EVALUATION, without).plot() is None
    alone = bnn_adv.bracket(dataclasses.replace(EVALUATION, curve=None), CERTIFICATE).plot()
    assert len(alone.axes[0].collections) == 0
    assert alone.axes[0].get_lines()[0].get_data()[1][0] == 80


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws_hash": "abd"}, "differ in draws:"),
        ({"decision_rule": "mean_logits"}, "differ in decision rule:"),
        ({"norm": "l2"}, "differ in norm:"),
        ({"box": (-1.0, 1.0)}, "differ in box:"),
        ({"x": X + 1e-6, "y": Y[::-1]}, "differ in inputs"),
        ({"y": 1 - Y}, "differ in labels:"),
        ({"epsilon": np.full(5, 0.2, np.float32)}, "differ in radii:"),
        ({"x": X[:3], "y": Y[:3], "epsilon": np.full(3, 0.1)}, "differ in inputs, labels, radii:"),
    ],
)
def test_other_problems_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        bnn_adv.bracket(EVALUATION, dataclasses.replace(CERTIFICATE, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"certified": np.array([True, True, False, True, False])},
        {"certified": np.array([True, True, False, False, True])},
        # Certified within a radius at which an attack has broken it, off the asked one.
        {"radius": np.array([0.21, 0.3, 0.05, 0.02, 0.0])},
        {"radius": np.array([0.1, 0.3, 0.05, 0.041, 0.0])},
    ],
)
def test_certified_and_broken_is_a_bug(change):
    wrong = dataclasses.replace(CERTIFICATE, **change)
    with pytest.raises(ContradictionError, match=r"1 of 5 .* number \d\. This is a bug of bnn_adv"):
        bnn_adv.bracket(EVALUATION, wrong)
    real = bnn_adv.CertificationSettings(arithmetic="real", num_halvings=4).to_json()
    with pytest.raises(ContradictionError, match="real arithmetic; certify with arithmetic="):
        bnn_adv.bracket(EVALUATION, dataclasses.replace(wrong, settings=real))


def test_order_and_types_are_checked():
    with pytest.raises(TypeError, match=r"got Certificate. The order is"):
        bnn_adv.bracket(CERTIFICATE, EVALUATION)
