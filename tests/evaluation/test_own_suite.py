"""Suites and objectives of one's own are objects: every part of an evaluation takes them."""

import dataclasses

import jax
import numpy as np
import pytest

import bnn_adv
from bnn_adv.attacks import fgsm, pgd
from bnn_adv.attacks.objectives import OBJECTIVES, Objective, get_objective, margin
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.evaluation.suites import Entry, Suite
from tests import flat
from tests.conftest import random_posterior


def logits(values, aim):
    return values


def squared(reduced, aim):
    """Rises with the margin, as its square does not."""
    return margin(reduced, aim) ** 3


MINE = Objective("cubed_margin", logits, "mean", squared)
SUITE = Suite((Entry("cubed", pgd.build(num_steps=3), MINE),), "mine", worst_case=True)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def problem():
    posterior = random_posterior(4, scale=3.0, seed=2)
    x = np.random.default_rng(1).uniform(0.05, 0.95, (8, 6)).astype(np.float32)
    y = np.asarray(bnn_adv.posteriors.posterior.predict_log_probs(posterior, x)).argmax(-1)
    return posterior, x, y


def evaluate(problem, suite=SUITE, **options):
    options = {"num_probe": 0, "num_curve": 0, "batch_size": 8, "progress": None, **options}
    return flat.evaluate(*problem, threat=bnn_adv.LInf(0.1), rng_key=KEY, suite=suite, **options)


@pytest.mark.slow
def test_the_attack_climbs_it(problem):
    found = evaluate(problem)
    assert found.per_attack[0].objective == "cubed_margin"
    # The sign of the gradient is that of the margin's: the same steps, but for its random key.
    entry = Entry("cubed", pgd.build(num_steps=3), "mean_logit_margin")
    known = evaluate(problem, dataclasses.replace(SUITE, entries=(entry,)))
    np.testing.assert_array_equal(found.arrays["broken"], known.arrays["broken"])
    assert found.arrays["broken"].any()
    assert str(found)
    assert found.to_html()
    result = bnn_adv.run_suite(KEY, SUITE, *problem, threat=bnn_adv.LInf(0.1))
    assert result.accuracies["worst"] == found.adversarial_accuracy


@pytest.mark.slow
def test_signs_of_masking_look_at_it(problem):
    found = evaluate(problem, num_probe=4)
    checks = {check.name: check for check in found.checks}
    shares = checks["zero_gradients"].evidence["objectives"]
    assert set(shares) == {*OBJECTIVES, "cubed_margin"}
    assert checks["weak_iteration"].evidence["pgd"].keys() == {"cubed_margin"}
    assert "cubed_margin" not in OBJECTIVES


@pytest.mark.slow
def test_a_predictor_that_draws_anew_is_attacked_by_it(problem):
    _, x, y = problem
    draws = problem[0].samples
    noise = jax.tree_util.Partial(lambda p, key: jax.tree.map(lambda w: w[0], p), draws)
    sampler = bnn_adv.Sampler(problem[0].apply_fn, noise)
    found = evaluate((sampler, x, y), num_samples=1, num_predictions=2)
    assert [row["objective"] for row in found.fresh.per_entry] == ["cubed_margin", None, None]


@pytest.mark.slow
def test_a_checkpoint_of_another_definition_is_refused(problem, tmp_path):
    class Stopped(Exception):
        pass

    class Stopping(Checkpoints):
        left = 2

        def tick(self, step, tree, meta=None):
            super().tick(step, tree, meta)
            self.left -= 1
            if not self.left:
                raise Stopped

    def keeper(cls):
        return cls(tmp_path, every_seconds=None, every_steps=1, log=lambda message: None)

    with pytest.raises(Stopped):
        evaluate(problem, checkpoints=keeper(Stopping), batch_size=4)
    other = dataclasses.replace(MINE, head=margin)
    entry = dataclasses.replace(SUITE.entries[0], objective=other)
    changed = dataclasses.replace(SUITE, entries=(entry,))
    with pytest.raises(ValueError, match=r"something else.*objectives '"):
        evaluate(problem, changed, checkpoints=keeper(Checkpoints), batch_size=4)
    assert evaluate(problem, checkpoints=keeper(Checkpoints), batch_size=4).record


def test_objectives_are_found_by_name_path_or_as_they_are():
    assert get_objective(MINE) is MINE
    assert get_objective("dlr") is OBJECTIVES["dlr"]
    assert get_objective(f"{__name__}:MINE") is MINE
    with pytest.raises(ValueError, match="SUITE is no objective: it is a Suite"):
        get_objective(f"{__name__}:SUITE")
    with pytest.raises(TypeError, match="Need an Objective or the name of one, got int"):
        get_objective(3)


def test_a_suite_whose_parts_cannot_be_told_apart_is_refused():
    entry = SUITE.entries[0]
    with pytest.raises(ValueError, match="no entries"):
        Suite((), "mine")
    with pytest.raises(ValueError, match="one name: cubed"):
        Suite((entry, entry), "mine")
    other = Entry("other", fgsm.build(), dataclasses.replace(MINE, head=margin))
    with pytest.raises(ValueError, match=r"Two objectives .* are called 'cubed_margin'"):
        Suite((entry, other), "mine")
    with pytest.raises(ValueError, match="Unknown objective 'dlrr'"):
        Suite((Entry("a", fgsm.build(), "dlrr"),), "mine")


def test_entries_alone_are_a_suite(problem):
    found = evaluate(problem, Suite((Entry("mine", pgd.build(num_steps=2), MINE),)))
    assert (found.suite, found.per_attack[0].name) == ("own", "mine")
    listed = Suite([SUITE.entries[0]])
    assert hash(listed) == hash(Suite(SUITE.entries))


def test_what_is_no_suite_is_refused_before_work(problem):
    posterior, x, y = problem
    for wrong in (None, list(SUITE.entries), SUITE.entries[0]):
        with pytest.raises(TypeError, match=r"Need a Suite .* got .*become one by Suite"):
            evaluate(problem, wrong)
        with pytest.raises(TypeError, match="Need a Suite"):
            bnn_adv.run_suite(KEY, wrong, posterior, x, y, threat=bnn_adv.LInf(0.1))
    for wrong in (SUITE.entries[0], (pgd.build(),), "fast"):
        with pytest.raises(TypeError, match="A suite is made of entries"):
            Suite(wrong)
    for wrong, name in (("pgd", "'pgd'"), (pgd, "bnn_adv.attacks.pgd")):
        with pytest.raises(TypeError, match=f"entry 'a' must be an Attack.* got {name}"):
            Entry("a", wrong, "dlr")
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        Entry("a", dataclasses.replace(pgd.build(), num_steps=0), "dlr")
    for wrong in (0, 2.5, True):
        with pytest.raises(ValueError, match="restarts must be at least 1"):
            dataclasses.replace(SUITE, restarts=wrong)
    for wrong in (True, "bar"):
        with pytest.raises(TypeError, match="progress must be 'auto', None or a function"):
            evaluate(problem, progress=wrong)
    with pytest.raises(TypeError, match=r"settings must be EvaluationSettings.*, got dict"):
        bnn_adv.evaluate(
            posterior, x, y, threat=bnn_adv.LInf(0.1), rng_key=KEY, settings={"num_probe": 0}
        )


@pytest.mark.slow
def test_suites_run_by_name(problem):
    named = bnn_adv.run_suite(KEY, "corrected", *problem, threat=bnn_adv.LInf(0.1))
    found = bnn_adv.run_suite(
        KEY, bnn_adv.get_suite("corrected"), *problem, threat=bnn_adv.LInf(0.1)
    )
    assert named.accuracies == found.accuracies


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reduce": "max"}, "reduce must be one of mean, log_mean_exp"),
        ({"reduce": "log_mean_exp", "linear_head": True}, "needs reduce='mean'"),
        ({"normalise": True}, "needs linear_head=True"),
    ],
)
def test_parts_of_an_objective_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ValueError, match=f"'cubed_margin': .*{words}"):
        dataclasses.replace(MINE, **change)


def test_shapes_of_an_objective_are_checked(problem):
    """A statistic of shape [B] would be spread to [B, B], and a head read another image's."""
    flat_one = Objective("flat", margin, "mean", lambda reduced, aim: reduced[:, 0])
    wide = Objective("wide", logits, "mean", lambda reduced, aim: reduced)
    for wrong, words in (
        (flat_one, r"statistic .* 'flat' .*\(8, K\), got \(8,\)"),
        (wide, r"head .* 'wide' .*\(8,\), got \(8, 4\)"),
    ):
        with pytest.raises(ValueError, match=words):
            evaluate(problem, Suite((Entry("a", fgsm.build(), wrong),)))


def test_progress_is_shown_unless_it_is_silenced(problem, monkeypatch, capsys):
    from bnn_adv.compute import progress

    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    evaluate(problem)
    assert capsys.readouterr().err == ""
    evaluate(problem, progress="auto")
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("mine cubed: ") and "image-steps" in line for line in lines)
    seen = []
    evaluate(problem, progress=lambda *report: seen.append(report))
    assert seen[-1] == ("cubed", 24, 24)
    assert capsys.readouterr().err == ""
