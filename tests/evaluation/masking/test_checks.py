"""Every check at its threshold, on evidence that is made up."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import ATTACKS
from bnn_adv.attacks.threat import L1, L2, LInf
from bnn_adv.evaluation import masking
from bnn_adv.evaluation.masking import CHECKS, arithmetic
from bnn_adv.evaluation.masking.arithmetic import measure_arithmetic
from bnn_adv.evaluation.masking.base import (
    Arithmetic,
    Budget,
    Case,
    Draws,
    Evidence,
    Gradients,
    Precision,
    Probe,
    Spared,
    Strength,
    Walk,
)
from bnn_adv.evaluation.masking.strength import choose_black_box
from bnn_adv.posteriors.posterior import Posterior
from tests.flat import gather as gather_evidence

N, STEPS = 100, 20


def rows(count):
    return np.arange(N) < count


def a_walk(*, values=None, success=0, fooled=20):
    """Rises to the end of half the steps; ``success`` images are fooled at step 3 alone."""
    if values is None:
        values = np.minimum(np.arange(STEPS + 1), STEPS // 2)[:, None] * np.ones(N)
    succeeds = np.zeros((STEPS + 1, N), bool)
    succeeds[-1] = rows(fooled)
    succeeds[3, N - success :] = True
    return Walk("pgd", "dlr", values, succeeds, rows(fooled))


HEALTHY = Evidence(
    Probe(np.ones(N, bool), ~rows(20), num_classes=10, num_draws=50),
    Gradients(("dlr",), {"dlr": 0.0, "published": 0.9}, {"dlr": 0.0, "published": 0.9}),
    Arithmetic(0.0, Precision(rows(0), {"dlr": rows(0)}, 32), 0.0, 0.0),
    Strength({"dlr": 40}, {"dlr": 20}, 20, "square", 300, 0, {"mean_weights": 0}, 0),
    Budget((0.5, 1.0, 2.0), (60, 20, 0), "dlr", 0, 10),
    (a_walk(),),
    Draws(50, None),
)


def change(record, **values):
    return HEALTHY._replace(**{record: getattr(HEALTHY, record)._replace(**values)})


def with_walk(**options):
    return HEALTHY._replace(walks=(a_walk(), a_walk(**options)))


def late(share):
    """A rise to 1 - share, and the rest of it in the last two of twenty steps."""
    path = np.concatenate([np.linspace(0, 1 - share, STEPS - 1), [1 - share / 2, 1]])
    return with_walk(values=path[:, None] * np.ones(N))


def falling(count):
    """Of the 80 standing images, which are the last, ``count`` end a thousandth below."""
    values = a_walk().values.copy()
    values[:, N - count :] = -np.linspace(1, 1.001, STEPS + 1)[:, None]
    return with_walk(values=values)


def precision(changed, misled):
    return change("arithmetic", precision=Precision(rows(changed), {"dlr": rows(misled)}, 32))


def accuracy(correct, classes):
    probe = Probe(rows(correct), rows(0), num_classes=classes, num_draws=50)
    return HEALTHY._replace(probe=probe)


# By check: evidence that is just not enough, and evidence that just is.
CASES = [
    (
        "zero_gradients",
        change("gradients", zero_clean={"dlr": 0.05, "published": 1.0}),
        change("gradients", zero_clean={"dlr": 0.06, "published": 1.0}),
    ),
    (
        "zero_gradients",
        change("gradients", zero_random={"dlr": 0.05, "published": 1.0}),
        change("gradients", used=("dlr", "published")),
    ),
    (
        "saturated_probabilities",
        change("arithmetic", saturated=0.05),
        change("arithmetic", saturated=0.051),
    ),
    ("float_precision", precision(5, 0), precision(6, 0)),
    ("float_precision", precision(0, 5), precision(0, 6)),
    (
        "weak_iteration",
        change("strength", pgd={"dlr": 42}),
        change("strength", pgd={"dlr": 43}),
    ),
    (
        "black_box_stronger",
        change("strength", black_box_broke=2),
        change("strength", black_box_broke=3),
    ),
    (
        "transfer_stronger",
        change("strength", transfer_any=2),
        change("strength", transfer_any=3),
    ),
    ("whole_box", change("budget", whole_box_left=2), change("budget", whole_box_left=3)),
    (
        "rises_with_epsilon",
        change("budget", left=(60, 20, 23)),
        change("budget", left=(60, 20, 24)),
    ),
    (
        "rises_with_epsilon",
        change("budget", left=(50, 52, 53)),
        change("budget", left=(50, 52, 54)),
    ),
    ("lost_iterate", with_walk(success=1), with_walk(success=2)),
    ("still_rising", late(0.049), late(0.051)),
    ("falls", falling(4), falling(5)),
    (
        "non_deterministic",
        change("arithmetic", prediction_change=1e-6, gradient_change=1e-6),
        change("arithmetic", gradient_change=2e-6),
    ),
    (
        "non_deterministic",
        change("arithmetic", prediction_change=9e-7),
        change("arithmetic", prediction_change=float("nan")),
    ),
    ("duplicate_draws", change("draws", distinct=26), change("draws", distinct=25)),
    ("low_ess", change("draws", min_ess=10.0), change("draws", min_ess=9.9)),
    ("low_ess", change("draws", min_ess=None), change("draws", min_ess=float("nan"))),
    # Ten classes: chance 10 %, two standard errors 6 %. Two classes: 75 % is one and a half times.
    ("low_accuracy", accuracy(16, 10), accuracy(15, 10)),
    ("low_accuracy", accuracy(75, 2), accuracy(74, 2)),
    ("set_aside", HEALTHY._replace(spared=Spared(40, 1)), HEALTHY._replace(spared=Spared(40, 2))),
]


@pytest.mark.parametrize(("name", "below", "above"), CASES, ids=[case[0] for case in CASES])
def test_is_raised_beyond_its_threshold_alone(name, below, above):
    if name == "falls":  # 4 and 5 of 80 standing images lie around 5 %.
        assert (4 / 80, 5 / 80) == (0.05, 0.0625)
    assert {check.name for check in masking.judge(below) if check.raised} == set()
    found = [check for check in masking.judge(above) if check.raised]
    assert [check.name for check in found] == [name]
    json.dumps(found[0].to_dict(), allow_nan=False)
    assert found[0].sentence.endswith(".")
    # What is raised says what follows.
    quiet = CHECKS[name](below).sentence
    assert len(found[0].sentence) > len(quiet) or "Not measured" in quiet


def test_every_check_has_a_case_and_its_own_name():
    assert {case[0] for case in CASES} == set(CHECKS)
    assert [check.name for check in masking.judge(HEALTHY)] == list(CHECKS)


def test_what_could_not_be_measured_has_no_value_and_is_not_raised():
    nothing = HEALTHY._replace(
        probe=HEALTHY.probe._replace(standing=rows(0)),
        arithmetic=HEALTHY.arithmetic._replace(precision=None),
        strength=HEALTHY.strength._replace(black_box=None, transfer_broke=None),
    )
    found = {check.name: check for check in masking.judge(nothing) if check.value is None}
    assert set(found) == {
        "float_precision",
        "black_box_stronger",
        "transfer_stronger",
        "still_rising",
        "falls",
        "low_ess",
        "set_aside",
    }
    assert all("Not measured" in check.sentence for check in found.values())
    assert not any(check.raised for check in found.values())


def test_walks_that_aim_at_classes_say_nothing_of_their_rise():
    evidence = HEALTHY._replace(walks=(a_walk(values=np.full((STEPS + 1, N), np.nan)),))
    assert CHECKS["still_rising"](evidence).value is None
    assert CHECKS["falls"](evidence).value is None


def test_the_whole_box_tells_a_constant_classifier_from_a_blind_attack():
    constant = CHECKS["whole_box"](change("budget", whole_box_left=50, whole_box_classes=1))
    blind = CHECKS["whole_box"](change("budget", whole_box_left=50, whole_box_classes=3))
    assert "constant" in constant.sentence
    assert "constant" not in blind.sentence


def test_the_black_box_fits_the_norm():
    assert choose_black_box(LInf(0.1), 7).name == "square"
    assert choose_black_box(L2(0.1), 7).num_steps == 7
    found = choose_black_box(L1(0.1), 7)
    if {"corner", "noise"} & set(ATTACKS):
        assert not found.uses_gradient
    else:
        assert found is None


def single_apply(params, x):
    return (x @ params["w"]).astype(jnp.float32)


@pytest.mark.slow
def test_a_network_that_stays_in_float32_is_not_compared_with_float64():
    posterior = Posterior(single_apply, {"w": jnp.ones((2, 3, 4))})
    x, y = np.ones((3, 3), np.float32), np.zeros(3, np.int32)
    case = Case(posterior, x, y, LInf(np.full(3, 0.1, np.float32)), 3, None)
    found = measure_arithmetic(case, ("dlr",))
    assert found.precision is None
    assert (found.saturated, found.prediction_change, found.gradient_change) == (0, 0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": ()}, "one objective"),
        ({"objectives": ("loss",)}, "Unknown objective"),
        ({"main_objective": "loss"}, "Unknown objective"),
        ({"standing": np.ones(2, bool)}, "standing"),
        ({"x": np.full((3, 4), 2.0, np.float32)}, "box"),
    ],
)
def test_bad_arguments_are_named(change, message):
    options = {
        "x": np.zeros((3, 4), np.float32),
        "y": np.zeros(3, int),
        "threat": LInf(0.1),
        "objectives": ("dlr",),
        "standing": np.ones(3, bool),
    } | change
    posterior = Posterior(lambda params, x: x, {"w": np.zeros((2, 1))})
    with pytest.raises(ValueError, match=message):
        gather_evidence(jax.random.key(0), posterior, **options)


def flawed_apply(params, x):
    """NaN for images whose first value is above one half, always the same."""
    return jnp.where(x[:, :1] > 0.5, jnp.nan, x @ params["w"])


@pytest.mark.slow
def test_a_prediction_that_is_nan_every_time_is_not_random():
    rng = np.random.default_rng(0)
    posterior = Posterior(flawed_apply, {"w": rng.normal(size=(2, 3, 4)).astype(np.float32)})
    x = rng.uniform(0.1, 0.4, size=(4, 3)).astype(np.float32)
    x[2, 0] = 0.9
    case = Case(posterior, x, np.zeros(4, np.int32), LInf(np.full(4, 0.1, np.float32)), 4, None)
    found = measure_arithmetic(case, ("dlr", "expected_loss"))
    assert found[2:] == (0.0, 0.0, 0.25)
    assert not found.precision.changed.any()
    assert not any(misled.any() for misled in found.precision.misled.values())
    check = CHECKS["non_deterministic"](HEALTHY._replace(arithmetic=found))
    assert not check.raised
    assert check.evidence["not_finite"] == 0.25
    assert "for 25.0 % of the images the prediction is NaN or infinite" in check.sentence
    assert "random" not in check.sentence


@pytest.mark.parametrize(
    ("first", "second", "change"),
    [
        ([1.0, np.nan, -np.inf], [1.0, np.nan, -np.inf], 0),
        ([2.0, np.nan], [1.0, np.nan], 0.5),
        ([np.nan], [np.nan], 0),
        ([1.0, np.nan], [1.0, 1.0], np.inf),
        ([1.0, np.inf], [1.0, -np.inf], np.inf),
        ([1.0, np.inf], [1.0, np.nan], np.inf),
    ],
)
def test_changes_between_answers_that_are_not_all_numbers(first, second, change):
    assert arithmetic._change(np.array(first), np.array(second)) == change
