"""``experiments.launch.sampled``: chains of a finished run in place of sampling."""

import dataclasses

import numpy as np
import pytest

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


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a run that has sampled HMC on 60 digits."""
    return sample(tmp_path_factory.mktemp("sampled") / "run")


def _dataset(num_train=60, seed=0):
    return load_dataset("digits", None, num_train=num_train, num_test=5, seed=seed)


def test_draws_are_those_of_the_run(finished):
    run = find_runs([str(finished)], ["digits"])["digits"]
    run.check(NETWORK, _dataset(), hmc.Config(), "")
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
    ],
)
def test_another_posterior_is_refused(finished, network, dataset, settings, message):
    run = find_runs([str(finished)], ["digits"])["digits"]
    with pytest.raises(ValueError, match=message):
        run.check(network, _dataset(**dataset), hmc.Config(**settings), "")


def test_folders_that_cannot_be_taken_are_named(finished, tmp_path):
    with pytest.raises(ValueError, match="is missing"):
        find_runs([str(tmp_path)], ["digits"])
    with pytest.raises(ValueError, match="samples no such chains; it does on: mnist"):
        find_runs([str(finished)], ["mnist"])
    with pytest.raises(ValueError, match="both of digits"):
        find_runs([str(finished), f"{finished}/"], ["digits"])


def test_replaced_draws_are_refused(finished, tmp_path):
    copy = tmp_path / "run"
    (copy / "posterior").mkdir(parents=True)
    for name in ("config.json", "command.txt", "posterior/hmc.json"):
        (copy / name).write_bytes((finished / name).read_bytes())
    with np.load(finished / "posterior" / "hmc.npz") as stored:
        arrays = {name: np.asarray(value) for name, value in stored.items()}
    arrays["logits/bias"] = arrays["logits/bias"] + 1
    np.savez(copy / "posterior" / "hmc.npz", **arrays)
    with pytest.raises(ValueError, match="its draws were replaced"):
        find_runs([str(copy)], ["digits"])["digits"].read(NETWORK, (8, 8, 1))


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
    own = {"grid_filter": ("matched",), "matched": ("sgd", "hmc"), "matched_hidden": (4,)}
    small = {"matched_num_train": 60, "matched_epochs": 2, "matched_num_draws": 4}
    config = RobustnessConfig(
        **ROBUSTNESS["smoke"] | own | small, matched_repeats=1, mixed_runs=(str(finished),)
    )
    rows = run_robustness(config, str(tmp_path / "robustness"))["data"]["networks"]
    (of_hmc,) = (row for row in rows if row["method"] == "hmc")
    assert (of_hmc["status"], of_hmc["num_draws"], of_hmc["num_attacked"]) == ("done", 8, 4)
    twice = dataclasses.replace(config, matched_hmc_repeats=2)
    with pytest.raises(ValueError, match="one posterior a data set"):
        run_robustness(twice, str(tmp_path / "twice"))


def test_a_preset_gives_what_studies_take():
    """The command that a README names samples what the studies ask for."""
    (row,) = make_comparison(PRESETS["mixed_mnist"]).rows
    config = GradientConfig(items=("mnist-hmc-mixed",), counts=("1",))
    assert row.build(10) == build_item(config, "mnist-hmc-mixed").network
    assert PRESETS["mixed_mnist"]["num_train"] == config.mixed_num_train
