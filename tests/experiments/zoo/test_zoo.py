"""``experiments.zoo`` for real, at a tiny size: it resumes, and its page holds what was found."""

import dataclasses

import jax
import numpy as np
import pytest

from bnn_adv.attacks import batches
from bnn_adv.inference import hmc
from experiments.zoo import __main__ as zoo
from experiments.zoo import measure
from experiments.zoo.config import SCALES, Config
from experiments.zoo.record import PosteriorRecord
from tests.experiments.sampled_run import sample

TINY = Config(
    **{
        **SCALES["smoke"],
        "methods": ("sgd",),
        "trainings": ("interval",),
        "num_test": 4,
        "num_curve": 0,
        "num_shift": 0,
    }
)


@pytest.mark.slow
def test_a_posterior_is_trained_attacked_certified_and_shown(tmp_path, monkeypatch):
    build = zoo.build_study
    monkeypatch.setattr(zoo, "build_study", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        zoo.run(TINY, str(tmp_path / "run"))
    # Nothing is trained or attacked again.
    monkeypatch.setattr(zoo, "build_study", build)
    monkeypatch.setattr(measure._Judged, "_train", lambda self: 1 / 0)
    results = zoo.run(TINY, str(tmp_path / "run"))
    (record,) = [PosteriorRecord.from_json(r) for r in results["data"]["records"]]
    assert record.name == "digits_sgd_interval"
    assert record.radii[0].num_test == 4
    assert record.radii[0].certified.value <= record.radii[0].attacked.value
    page = (tmp_path / "run" / "zoo.html").read_text("utf-8")
    assert "digits_sgd_interval" in page


@pytest.mark.slow
def test_a_long_evaluation_goes_on_where_it_stopped(tmp_path, monkeypatch):
    learns = {"trainings": ("standard",), "num_epochs": 40, "learning_rate": 0.02}
    config = dataclasses.replace(TINY, **learns, num_shift=3, checkpoint_every=1e-6)
    run, found = tmp_path / "run", {}

    def interrupt(name, real):
        """Run what is evaluated first to its end, and stop before the part is written."""

        def stop(*args, **options):
            found[name] = real(*args, **options)
            raise InterruptedError

        monkeypatch.setattr(measure, name, stop)
        with pytest.raises(InterruptedError):
            zoo.run(config, str(run))

    def resume(name, real):
        """Let what goes on attack nothing again."""

        def evaluate(*args, **options):
            with monkeypatch.context() as patch:
                patch.setattr(batches, "advance", lambda *_: 1 / 0)
                return real(*args, **options)

        monkeypatch.setattr(measure, name, evaluate)

    for name in ("evaluate", "evaluate_shift"):
        real = getattr(measure, name)
        interrupt(name, real)
        resume(name, real)
    (record,) = zoo.run(config, str(run))["data"]["posteriors"]
    assert not (run / "checkpoints").exists()
    assert any(record["radii"][0]["clean"])
    clean = found["evaluate"].arrays["clean_correct"].tolist()
    assert record["radii"][0]["clean"] == clean
    shares = {name: score["both_attacked"] for name, score in record["shift"]["scores"].items()}
    expected = found["evaluate_shift"].to_dict()["scores"]
    assert shares == {name: score["both_attacked"] for name, score in expected.items()}


@pytest.mark.slow
def test_the_mean_of_the_weights_is_attacked_as_a_network(tmp_path, monkeypatch):
    own = {"methods": ("vi",), "trainings": ("standard",), "num_draws": 3}
    config = dataclasses.replace(TINY, **own, suite="fast")
    attacked, real = [], measure.evaluate

    def evaluate(posterior, *args, **options):
        found = real(posterior, *args, **options)
        attacked.append((jax.tree.map(np.asarray, posterior.samples), found))
        return found

    monkeypatch.setattr(measure, "evaluate", evaluate)
    (found,) = zoo.run(config, str(tmp_path / "run"))["data"]["posteriors"]
    (draws, _), (mean, evaluation) = attacked
    for known, own in zip(jax.tree.leaves(draws), jax.tree.leaves(mean), strict=True):
        assert len(known) == 3
        assert np.ptp(known, axis=0).max() > 0
        np.testing.assert_allclose(own, np.mean(known, axis=0, keepdims=True), atol=1e-6)
    (told,) = found["means"]
    assert told["clean"] == evaluation.arrays["clean_correct"].tolist()
    left = evaluation.arrays["clean_correct"] & ~evaluation.arrays["broken"]
    assert told["standing"] == (left & np.array(told["published"])).tolist()


def test_what_leaves_nothing_to_train_is_refused(tmp_path):
    config = dataclasses.replace(TINY, methods=("hmc",), trainings=("adversarial",))
    with pytest.raises(ValueError, match="leave nothing to train"):
        zoo.run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_of_chains_as_many_draws_predict_as_of_others_and_all_are_judged(tmp_path):
    own = {"methods": ("hmc",), "trainings": ("standard",), "hmc_draws": 12, "num_draws": 3}
    config = dataclasses.replace(TINY, **own, suite="fast", num_test=2)
    results = zoo.run(config, str(tmp_path / "run"))
    (found,) = results["data"]["posteriors"]
    assert found["num_draws"] == 3
    # Two chains of six: of three draws in all there would be none to compare.
    assert found["diagnostics"]["num_chains"] == 2
    assert found["diagnostics"]["max_rhat"] is not None
    with np.load(tmp_path / "run" / "posterior" / "digits_hmc_standard.npz") as stored:
        assert {len(array) for array in stored.values()} == {12}


@pytest.mark.slow
def test_hmc_may_be_what_another_run_has_sampled(tmp_path, monkeypatch):
    finished = sample(tmp_path / "sampled")

    def never(*_, **__):
        raise AssertionError("sampled again")

    monkeypatch.setattr(hmc, "run", never)
    own = {"methods": ("hmc",), "trainings": ("standard",), "num_train_hmc": 60, "num_draws": 3}
    config = dataclasses.replace(TINY, **own, num_test=2, mixed_runs=(str(finished),))
    results = zoo.run(config, str(tmp_path / "run"))
    (found,) = results["data"]["posteriors"]
    assert (found["num_draws"], found["diagnostics"]["num_chains"]) == (3, 2)
    assert "experiments.compare" in found["diagnostics"]["sampled_by"]
    for changed, message in (
        ({"hmc_hidden": 5}, "its network is"),
        ({"num_draws": 9}, "has 8 draws, and as many as --num_draws, 9, predict"),
        ({"trainings": ("interval",)}, "samples no such chains"),
    ):
        with pytest.raises(ValueError, match=message):
            zoo.run(dataclasses.replace(config, **changed), str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
