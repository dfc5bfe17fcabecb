"""Which attacks' walks are looked at."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from bnn_adv.attacks import apgd, apgd_t, fab_t, fgsm, pgd, square
from bnn_adv.attacks.threat import LInf
from bnn_adv.attacks.trace import Trace
from bnn_adv.evaluation.masking import strength, walk


@pytest.fixture
def walked(monkeypatch):
    """The attacks that are walked: objective and number of steps."""
    calls = []

    def record(rng_key, attack, objective, case):
        calls.append((attack.name, objective, attack.num_steps))
        return Trace(np.zeros((1, 2)), np.zeros((1, 2), bool), np.zeros((2, 1)), np.zeros(2, bool))

    monkeypatch.setattr(strength, "walk", record)

    def measure(*attacks):
        case = SimpleNamespace(threat=LInf(0.1))
        ignore = lambda done, total: None  # noqa: E731
        walk.measure_walks(jax.random.key(0), case, attacks, {}, pgd.build(num_steps=7), ignore)
        return calls

    return measure


def test_of_walks_that_differ_in_length_alone_the_longest_is_taken(walked):
    """Whether an attack stops at success is no matter: a walk is recorded to its end."""
    found = walked(
        (pgd.build(num_steps=20, stop_on_success=True), "dlr"),
        (pgd.build(num_steps=100), "dlr"),
        (pgd.build(num_steps=50), "dlr"),
        (pgd.build(num_steps=20), "expected_loss"),
        (pgd.build(num_steps=30, step_size=0.01), "dlr"),
        (apgd.build(num_steps=10), "dlr"),
        (apgd.build(num_steps=10, rho=0.5), "dlr"),
    )
    assert found == [
        ("pgd", "dlr", 100),
        ("pgd", "expected_loss", 20),
        ("pgd", "dlr", 30),
        ("apgd", "dlr", 10),
        ("apgd", "dlr", 10),
    ]


def test_what_climbs_no_one_objective_in_steps_has_no_walk(walked):
    attacks = (
        fgsm.build(),
        square.build(num_steps=5),
        apgd_t.build(num_steps=5),
        fab_t.build(num_steps=5),
        pgd.build(num_steps=3),
    )
    assert walked(*((attack, "dlr") for attack in attacks)) == [("pgd", "dlr", 3)]
