"""``experiments.launch.sampled``: chains of a finished run in place of sampling."""

import dataclasses
import json

import numpy as np
import pytest

from bnn_adv.compute.identity import OtherWorkError
from bnn_adv.data import load_dataset
from bnn_adv.inference import hmc
from bnn_adv.networks import MLP
from experiments.launch.compare_config import make_comparison
from experiments.launch.presets import PRESETS
from experiments.launch.sampled import find_runs
from experiments.loss_gradients.__main__ import run as run_gradients
from experiments.loss_gradients.config import Config as GradientConfig
from experiments.loss_gradients.config import build_item
from experiments.robustness_accuracy.__main__ import run as run_robustness
from experiments.robustness_accuracy.config import SCALES as ROBUSTNESS
from experiments.robustness_accuracy.config import Config as RobustnessConfig
from tests.experiments.sampled_run import sample

GRADIENTS = {
    "items": ("digits-hmc-mixed",),
    "counts": ("1", "4"),
    "num_test": 6,
    "num_orders": 2,
    "num_images": 2,
    "mixed_num_train": 60,
    "mixed_hidden": 4,
    "checkpoint_every": 0.0,
}
NETWORK = MLP((4,), 10, "relu")
MIXED = hmc.Config(init="prior")
SMALL = {
    **{"grid_filter": ("matched",), "matched": ("sgd", "hmc"), "matched_hidden": (4,)},
    **{
        "matched_num_train": 60,
        "matched_epochs": (2,),
        "matched_num_draws": 4,
        "matched_repeats": 1,
    },
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a run that has sampled HMC on 60 digits."""
    return sample(tmp_path_factory.mktemp("sampled") / "run")


def _dataset(num_train=60, seed=0):
    return load_dataset("digits", None, num_train=num_train, num_test=5, seed=seed)


def test_draws_are_those_of_the_run(finished):
    run = find_runs([str(finished)], ["digits"])["digits"]
    run.check(NETWORK, _dataset(), MIXED, "")
    found = run.read(NETWORK, (8, 8, 1))
    with np.load(finished / "posterior" / "hmc.npz") as stored:
        np.testing.assert_array_equal(
            found.posterior.samples["logits"]["kernel"], stored["logits/kernel"]
        )
    assert found.diagnostics["num_chains"] == 2
    assert "experiments.compare" in found.diagnostics["sampled_by"]


@pytest.mark.parametrize(
    ("network", "dataset", "settings", "message"),
    [
        (MLP((5,), 10, "relu"), {}, {}, "its network is"),
        (NETWORK, {"num_train": 50}, {}, "trained on other images"),
        (NETWORK, {"seed": 1}, {}, "trained on other images"),
        (NETWORK, {}, {"temperature": 0.5}, "temperature 1.0, the study asks for 0.5"),
        (NETWORK, {}, {"init": "network"}, "init prior, the study asks for network"),
    ],
)
def test_another_posterior_is_refused(finished, network, dataset, settings, message):
    run = find_runs([str(finished)], ["digits"])["digits"]
    with pytest.raises(ValueError, match=message):
        run.check(network, _dataset(**dataset), dataclasses.replace(MIXED, **settings), "")


def test_folders_that_cannot_be_taken_are_named(finished, tmp_path):
    with pytest.raises(ValueError, match="is missing"):
        find_runs([str(tmp_path)], ["digits"])
    with pytest.raises(ValueError, match="samples no such chains; it does on: mnist"):
        find_runs([str(finished)], ["mnist"])
    with pytest.raises(ValueError, match="both of digits"):
        find_runs([str(finished), f"{finished}/"], ["digits"])


def _copy(finished, folder, **changed):
    """Copy a run with other settings in its ``config.json``."""
    (folder / "posterior").mkdir(parents=True)
    for name in ("command.txt", "posterior/hmc.json", "posterior/hmc.npz"):
        (folder / name).write_bytes((finished / name).read_bytes())
    known = json.loads((finished / "config.json").read_text("utf-8")) | changed
    kept = {key: value for key, value in known.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept), "utf-8")
    return find_runs([str(folder)], ["digits"])["digits"]


def test_replaced_draws_are_refused_before_work_starts(finished, tmp_path):
    run = _copy(finished, tmp_path / "run")
    path = run.path / "posterior" / "hmc.npz"
    with np.load(path) as stored:
        arrays = {name: np.asarray(value) for name, value in stored.items()}
    np.savez(path, **arrays | {"logits/bias": arrays["logits/bias"] + 1})
    with pytest.raises(OtherWorkError, match="its draws were replaced"):
        run.check(NETWORK, _dataset(), MIXED, "")
    path.write_bytes(b"PK")
    with pytest.raises(OtherWorkError, match="--mixed_runs="):
        run.check(NETWORK, _dataset(), MIXED, "")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hmc.num_chains": 4, "hmc.num_samples": 2}, "say 4 chains and 8 draws"),
        ({"data_hash": "other"}, "trained on other files"),
        ({"hmc.trajectory_length": None}, "have a number of steps and no length"),
        ({"num_train": None, "seed": None}, "lack num_train, seed"),
    ],
)
def test_settings_that_are_not_those_of_the_draws_are_refused(finished, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        _copy(finished, tmp_path / "run", **changed).check(NETWORK, _dataset(), MIXED, "")


def test_a_run_that_goes_while_a_study_works_ends_it(finished, tmp_path, monkeypatch):
    """A posterior that is gone is no network that failed: rows of others would be lost with it."""
    run = _copy(finished, tmp_path / "run")
    config = RobustnessConfig(**ROBUSTNESS["smoke"] | SMALL, mixed_runs=(str(run.path),))
    monkeypatch.setattr("experiments.robustness_accuracy.__main__.check", lambda config: None)
    (run.path / "posterior" / "hmc.npz").unlink()
    with pytest.raises(OtherWorkError, match=r"hmc\.npz is missing"):
        run_robustness(config, str(tmp_path / "study"))
    assert not (tmp_path / "study" / "results.json").exists()


def test_loss_gradients_are_of_those_draws(finished, tmp_path):
    config = GradientConfig(**GRADIENTS, mixed_runs=(str(finished),))
    results = run_gradients(config, str(tmp_path / "gradients"))
    (item,) = results["data"]["items"]
    assert "experiments.compare" in item["diagnostics"]["sampled_by"]
    assert item["note"].startswith("fc 4, 60 training images, 8 draws")
    more = dataclasses.replace(config, counts=("1", "9"))
    with pytest.raises(ValueError, match=r"counts must be at most the draws of .* \(8\), got 9"):
        run_gradients(more, str(tmp_path / "more"))
    assert not (tmp_path / "more").exists()


def test_robustness_is_of_those_draws(finished, tmp_path):
    config = RobustnessConfig(**ROBUSTNESS["smoke"] | SMALL, mixed_runs=(str(finished),))
    rows = run_robustness(config, str(tmp_path / "robustness"))["data"]["networks"]
    (of_hmc,) = (row for row in rows if row["method"] == "hmc")
    assert (of_hmc["status"], of_hmc["num_draws"], of_hmc["num_attacked"]) == ("done", 8, 4)
    assert "experiments.compare" in of_hmc["diagnostics"]["sampled_by"]
    twice = dataclasses.replace(config, matched_hmc_repeats=2)
    with pytest.raises(ValueError, match="one posterior a data set"):
        run_robustness(twice, str(tmp_path / "twice"))


def test_a_preset_gives_what_studies_take():
    """The command that a README names samples what the studies ask for."""
    (row,) = make_comparison(PRESETS["mixed_mnist"]).rows
    config = GradientConfig(items=("mnist-hmc-mixed",), counts=("1",))
    assert row.build(10) == build_item(config, "mnist-hmc-mixed").network
    assert PRESETS["mixed_mnist"]["num_train"] == config.mixed_num_train
