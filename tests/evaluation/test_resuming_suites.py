"""An interrupted suite of attacks ends with the images of an uninterrupted one."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import AttackSettings, driver, fgsm, objectives, pgd
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import LInf
from bnn_adv.compute import identity
from bnn_adv.compute.identity import OtherWorkError
from bnn_adv.compute.pacing import Pacer
from bnn_adv.evaluation import Settings, TableSettings, attacker_defender_table
from bnn_adv.evaluation.suites import Entry, Suite
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.posteriors.sampler import FreshDraws, Sampler
from tests.flat import run_attack, run_suite
from tests.unreliable import Unplugged, Unreliable

KEY = jax.random.key(0)
ATTACK = pgd.build(num_steps=17, stop_on_success=True)
ENTRIES = (
    Entry("fgsm", fgsm.build(), "expected_loss"),
    Entry("margin", ATTACK, "mean_logit_margin"),
    Entry("loss", ATTACK, "expected_loss"),
)
SUITES = {
    "each": Suite(ENTRIES, "each"),
    "worst": Suite(ENTRIES[1:], "worst", restarts=2, worst_case=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITES)
def test_a_suite_resumes_within_and_between_attacks(name, posterior, batch, tmp_path, monkeypatch):
    def run(checkpoints=None):
        return run_suite(
            KEY,
            SUITES[name],
            posterior,
            *map(np.asarray, batch),
            threat=LInf(0.03),
            settings=Settings(batch_size=4),
            checkpoints=checkpoints,
        )

    whole = run()
    random = np.random.default_rng(2)
    monkeypatch.setattr(Pacer, "next", lambda self, most: min(most, int(random.integers(5, 11))))
    resumed = []
    for ticks in range(1, 100):
        checkpoints = Unreliable(tmp_path, ticks=ticks, every_steps=1)
        with checkpoints.session("suite") as saved:
            resumed.append("start" if saved is None else saved.meta.get("part", "between"))
            try:
                result = run(checkpoints)
                break
            except Unplugged:
                continue
    # Some starts found an attack half way, others one that had just ended.
    assert "between" in resumed
    assert any("/" in part for part in resumed)
    assert result.accuracies == whole.accuracies
    assert result.softmax_robustness == whole.softmax_robustness
    for attack, images in whole.adversarial.items():
        np.testing.assert_array_equal(result.adversarial[attack], images)
    if whole.attack_of is not None:
        np.testing.assert_array_equal(result.attack_of, whole.attack_of)


@pytest.mark.slow
def test_a_single_attack_resumes_and_refuses_another(posterior, batch, tmp_path):
    x, y = map(np.asarray, batch)

    def run(checkpoints=None, epsilon=0.1):
        return run_attack(
            KEY,
            pgd.build(num_steps=30),
            OBJECTIVES["expected_loss"],
            posterior,
            x,
            y,
            threat=LInf(epsilon),
            settings=AttackSettings(checkpoints=checkpoints),
        )

    with pytest.raises(Unplugged):
        run(Unreliable(tmp_path, ticks=3, every_steps=1))
    with pytest.raises(ValueError, match=r"something else.*epsilon=0.1.*epsilon=0.2"):
        run(Unreliable(tmp_path, ticks=99), epsilon=0.2)
    np.testing.assert_array_equal(run(Unreliable(tmp_path, ticks=99)), run())


def times_two(params, x):
    """Not the conftest's network."""
    return 2.0 * _logits(params, x)


def _logits(params, x):
    return x @ params["w"]


def _draws(seed):
    return {"w": jnp.asarray(np.random.default_rng(seed).normal(size=(3, 6, 4)), jnp.float32)}


def _draw(params, rng_key):
    return {"w": params + jax.random.normal(rng_key, params.shape)}


def make_problem():
    random = np.random.default_rng(4)
    return {
        "rng_key": KEY,
        "attack": pgd.build(num_steps=2),
        "objective": OBJECTIVES["mean_logit_margin"],
        "posterior": Posterior(_logits, _draws(0)),
        "x": random.uniform(0.2, 0.8, (6, 6)).astype(np.float32),
        "y": np.arange(6) % 4,
        "threat": LInf(0.1),
        "indices": np.arange(6),
        "batch_size": 4,
        "sample_chunk": 3,
    }


PROBLEM = make_problem()
OTHER_X = np.array(PROBLEM["x"])
OTHER_X[5, 5] += 0.01
KNOWN = PROBLEM["posterior"]
FRESH = FreshDraws(Sampler(_logits, jax.tree_util.Partial(_draw, jnp.zeros((6, 4)))), 2, KNOWN)
CHANGES = {
    "key": {"rng_key": jax.random.key(1)},
    "key ": {"rng_key": jax.random.key(0, impl="rbg")},
    "attack": {"attack": pgd.build(num_steps=2, random_start=False)},
    "attack ": {"attack": dataclasses.replace(PROBLEM["attack"], step=lambda *a: a[1])},
    "objective": {"objective": OBJECTIVES["expected_loss"]},
    # The same name.
    "objective ": {"objective": dataclasses.replace(PROBLEM["objective"], head=objectives.dlr)},
    "draws": {"posterior": Posterior(_logits, _draws(1))},
    "apply_fn": {"posterior": Posterior(times_two, _draws(0))},
    "decision_rule": {"posterior": dataclasses.replace(KNOWN, decision_rule="mean_logits")},
    "precision": {"posterior": dataclasses.replace(KNOWN, precision="bfloat16")},
    "sampler": {"posterior": FRESH},
    "inputs": {"x": OTHER_X},
    "labels": {"y": (PROBLEM["y"] + 1) % 4},
    "threat": {"threat": LInf(np.linspace(0.05, 0.1, 6).astype(np.float32))},
    "indices": {"indices": np.arange(6) + 1},
    "batch_size": {"batch_size": 3},
    "sample_chunk": {"sample_chunk": 2},
}


def attack_problem(checkpoints=None, **changes):
    problem = {**PROBLEM, **changes}
    return run_attack(**problem, settings=AttackSettings(checkpoints=checkpoints))


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    folder = tmp_path_factory.mktemp("started")
    with pytest.raises(Unplugged):
        attack_problem(Unreliable(folder, ticks=3, every_steps=1))
    return folder


@pytest.mark.parametrize("what", CHANGES)
def test_an_attack_refuses_each_change_by_its_name(what, started):
    with pytest.raises(ValueError, match=rf"something else: .*{what.strip()} '.* there, '.* here"):
        attack_problem(Unreliable(started, ticks=99), **CHANGES[what])


def test_what_was_made_anew_and_is_the_same_goes_on(started, tmp_path):
    folder = shutil.copytree(started, tmp_path / "copy")
    found = attack_problem(Unreliable(folder, ticks=99), **make_problem())
    np.testing.assert_array_equal(found, attack_problem())


def test_versions_are_named(started, monkeypatch):
    monkeypatch.setattr(identity, "describe_software", lambda: "jax 99")
    with pytest.raises(ValueError, match=r"software '.*jax 0\..* there, 'jax 99' here"):
        attack_problem(Unreliable(started, ticks=99))


def test_settings_of_random_numbers_are_named(started):
    with jax.threefry_partitionable(False), pytest.raises(OtherWorkError, match="partitionable"):
        attack_problem(Unreliable(started, ticks=99))


def test_the_parts_of_other_rows_are_refused():
    """One image was broadcast over four rows."""
    with pytest.raises(ValueError, match=r"part attack/0 holds float32\[2, 6\] for the rows \[0"):
        driver._recall(
            "attack/0",
            {"x_adv": np.zeros((2, 6), np.float32), "rows": np.arange(2)},
            np.arange(4),
            np.zeros((4, 6), np.float32),
        )


def run_worst(checkpoints=None, **changes):
    problem = {**PROBLEM, "suite": SUITES["worst"], **changes}
    return run_suite(
        problem["rng_key"],
        problem["suite"],
        problem["posterior"],
        problem["x"],
        problem["y"],
        threat=problem["threat"],
        settings=Settings(batch_size=4, sample_chunk=3),
        checkpoints=checkpoints,
    )


@pytest.fixture(scope="module")
def started_suite(tmp_path_factory):
    """Within a session that says less, as that of a run's stage may."""
    folder = tmp_path_factory.mktemp("suite")
    checkpoints = Unreliable(folder, ticks=3, every_steps=1)
    with pytest.raises(Unplugged), checkpoints.session("stage"):
        run_worst(checkpoints)
    return folder


ENTRY = ENTRIES[1]
WEAKER = Entry(ENTRY.name, dataclasses.replace(ATTACK, num_steps=3), ENTRY.objective)
SUITE_CHANGES = {
    "key": CHANGES["key"],
    "labels": CHANGES["labels"],
    "inputs": CHANGES["inputs"],
    "draws": CHANGES["draws"],
    "apply_fn": CHANGES["apply_fn"],
    "threat": CHANGES["threat"],
    "suite": {"suite": dataclasses.replace(SUITES["worst"], entries=(WEAKER, ENTRIES[2]))},
    "suite ": {"suite": dataclasses.replace(SUITES["worst"], restarts=3)},
}


@pytest.mark.parametrize("what", SUITE_CHANGES)
def test_a_nested_suite_refuses_each_change_by_its_name(what, started_suite):
    checkpoints = Unreliable(started_suite, ticks=99)
    wanted = rf"something else: of suite worst, .*{what.strip()} '.* there, '.* here"
    with pytest.raises(ValueError, match=wanted), checkpoints.session("stage"):
        run_worst(checkpoints, **SUITE_CHANGES[what])


def test_a_suite_with_another_definition_of_an_objective_is_refused(started_suite, monkeypatch):
    other = dataclasses.replace(OBJECTIVES["mean_logit_margin"], head=objectives.dlr)
    monkeypatch.setitem(OBJECTIVES, "mean_logit_margin", other)
    checkpoints = Unreliable(started_suite, ticks=99)
    with pytest.raises(ValueError, match="objectives '"), checkpoints.session("stage"):
        run_worst(checkpoints)


@pytest.mark.slow
def test_a_table_resumes_and_refuses_another_sampler(tmp_path):
    """Its identity held an address: it never resumed."""

    def run(checkpoints=None, shift=0.0):
        sampler = Sampler(_logits, jax.tree_util.Partial(_draw, jnp.full((6, 4), shift)))
        return attacker_defender_table(
            KEY,
            sampler,
            PROBLEM["x"],
            PROBLEM["y"],
            threat=LInf(0.1),
            attack=pgd.build(num_steps=2),
            objective=OBJECTIVES["expected_loss"],
            settings=TableSettings(
                attacker_samples=(2,),
                defender_samples=(2,),
                held_out_samples=2,
                num_predictions=2,
                checkpoints=checkpoints,
            ),
        )

    with pytest.raises(Unplugged):
        run(Unreliable(tmp_path, ticks=2, every_steps=1))
    with pytest.raises(ValueError, match=r"of attackers of a fresh predictor, sampler '"):
        run(Unreliable(tmp_path, ticks=99), shift=0.25)
    found, whole = run(Unreliable(tmp_path, ticks=99)), run()
    np.testing.assert_array_equal(found.accuracies, whole.accuracies)
