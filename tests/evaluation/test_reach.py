"""Images that are out of reach are set aside, and an evaluation says where that was wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import pgd
from bnn_adv.attacks.threat import LInf
from bnn_adv.evaluation.cascade import (
    BROKEN,
    NOT_RUN,
    WITHSTOOD,
    RunContext,
    Subject,
    is_within_reach,
    predict,
    run_cascade,
)
from bnn_adv.evaluation.suites import Entry, Suite, get_suite
from bnn_adv.posteriors.posterior import Posterior
from tests import flat

KEY, EPSILON = jax.random.key(0), 0.05
SLOPE = 200.0


def apply_fn(params, x):
    """One input, two classes: their difference is linear in it."""
    return jnp.concatenate([params * (x - 0.5), jnp.zeros_like(x)], axis=-1)


POSTERIOR = Posterior(apply_fn, jnp.full((1, 1), SLOPE))


def attack(share):
    """One step of a share of the radius towards the other class."""
    return pgd.build(num_steps=1, step_size=share * EPSILON, random_start=False)


def subject(*gaps):
    """Images of the first class that have to move by so many radii to be of the other one."""
    x = np.array([[0.5 + gap * EPSILON] for gap in gaps], np.float32)
    return Subject(POSTERIOR, x, np.zeros(len(x), np.int32), LInf(EPSILON))


def weak_then_far(reach):
    return (
        Entry("weak", attack(0.3), "mean_logit_margin"),
        Entry("far", attack(1.0), "mean_logit_margin", reach=reach),
    )


def test_the_rule_is_the_share_of_the_gap_that_was_closed():
    entry, nan = weak_then_far(0.5)[1], float("nan")
    # Half closed, not quite; next to nothing, none, less than none; little left; unknown.
    before = np.array([20, 20, 20, 20, 20, 3.9, 20])
    now = np.array([9.9, 10.1, 18.1, 20, 21, 1.99, nan])
    found = is_within_reach(entry, before, now)
    np.testing.assert_array_equal(found, [True, False, True, True, True, True, True])
    assert is_within_reach(weak_then_far(0.0)[1], before, now).all()


def test_only_what_is_within_reach_is_attacked_and_the_rest_is_counted():
    # A step of 0.3 radii closes these shares: all, 0.6, 0.33, 0.25, 0.03.
    case = subject(0.25, 0.5, 0.9, 1.2, 9.0)
    clean = predict(POSTERIOR, case.x, RunContext(KEY).settings)
    found = run_cascade(weak_then_far(0.5), 1, case, clean, RunContext(KEY))
    np.testing.assert_array_equal(
        found.outcomes,
        [
            [BROKEN, WITHSTOOD, WITHSTOOD, WITHSTOOD, WITHSTOOD],
            # The third would break; of the last nothing was closed, as where gradients vanish.
            [NOT_RUN, BROKEN, NOT_RUN, NOT_RUN, WITHSTOOD],
        ],
    )
    np.testing.assert_array_equal(found.tried, [5, 2])
    np.testing.assert_array_equal(found.set_aside, [0, 2])
    np.testing.assert_array_equal(found.standing, [False, False, True, True, True])
    all_of_them = run_cascade(weak_then_far(0.0), 1, case, clean, RunContext(KEY))
    np.testing.assert_array_equal(all_of_them.standing, [False, False, False, True, True])


@pytest.mark.parametrize(("reach", "raised"), [(0.5, True), (0.2, False)])
def test_a_sign_is_raised_where_an_attack_would_have_broken_what_was_set_aside(reach, raised):
    case = subject(*np.linspace(0.7, 0.95, 8))
    found = flat.evaluate(
        *case[:3],
        threat=case.threat,
        rng_key=KEY,
        suite=Suite(weak_then_far(reach), "two", worst_case=True),
        num_probe=8,
        num_curve=0,
        batch_size=8,
        progress=None,
    )
    (sign,) = [check for check in found.checks if check.name == "set_aside"]
    assert sign.raised == raised
    assert ("set_aside" in found.flags) == raised
    record = found.per_attack[1]
    assert (record.tried, record.set_aside) == ((0, 8) if raised else (8, 0))
    # By itself the second attack was run on all probe images.
    assert record.alone == 8
    assert ("closed little of the gap" in " ".join(str(found).split())) == raised
    if raised:
        assert sign.evidence == {"set_aside": 8, "broken": 8}
    else:
        assert sign.value is None


def test_how_little_is_left_of_the_gap_is_the_entrys():
    before, now = np.array([4.0, 4.0]), np.array([0.3, 0.2])
    entry = Entry("late", attack(1.0), "mean_logit_margin", reach=0.97, near=0.25)
    np.testing.assert_array_equal(is_within_reach(entry, before, now), [False, True])


def test_long_attacks_follow_short_ones_where_those_came_closer():
    """By gradients; a search without them is run also where those got stuck before."""
    entries = [entry for entry in get_suite("strong").entries if entry.reach]
    found = [(entry.reach, -entry.near) for entry in entries if entry.attack.uses_gradient]
    assert found == sorted(found)
    assert len(set(found)) > 1
    blind = [entry.reach for entry in entries if not entry.attack.uses_gradient]
    assert blind
    assert max(blind) < found[-1][0]


@pytest.mark.parametrize("near", [-0.1, float("nan")])
def test_a_lead_out_of_range_is_refused(near):
    with pytest.raises(ValueError, match="near of late must be at least 0"):
        Entry("late", attack(1.0), "mean_logit_margin", near=near)


@pytest.mark.parametrize("reach", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range_is_refused(reach):
    with pytest.raises(ValueError, match=r"reach of far must be in \[0, 1\)"):
        weak_then_far(reach)


@pytest.mark.parametrize("given", [{"near": "2"}, {"reach": None}, {"near": True}])
def test_what_is_no_number_is_refused(given):
    (name,) = given
    with pytest.raises(TypeError, match=f"{name} of far must be a number"):
        Entry("far", pgd.build(), "mean_logit_margin", **given)
