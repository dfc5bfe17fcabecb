"""Settings of ``experiments.loss_gradients``; its run is that of ``make reproduce``."""

import dataclasses
import zlib

import pytest

from bnn_adv.inference import hmc, svi
from experiments.launch.config import to_json
from experiments.loss_gradients import __main__ as loss_gradients
from experiments.loss_gradients.config import SCALES, Config, build_item


def scaled(name, **changes):
    return Config(**SCALES[name] | changes)


def test_paper_scale_is_tables_3_and_4():
    config = scaled("paper")
    sampled = build_item(config, "fashion_mnist-hmc")
    assert isinstance(sampled.settings, hmc.Config)
    assert (sampled.settings.num_samples, sampled.settings.step_size) == (500, 0.001)
    assert (sampled.settings.num_integration_steps, sampled.size) == (10, "fc 1024")
    fitted = build_item(config, "mnist-vi")
    assert isinstance(fitted.settings, svi.Config)
    assert (fitted.settings.num_epochs, fitted.settings.learning_rate) == (5, 0.01)
    assert (fitted.settings.kl_weight, fitted.settings.init) == ("published", "published")
    assert (fitted.settings.num_samples, fitted.size) == (500, "conv 512")
    other = build_item(config, "fashion_mnist-vi")
    assert (other.settings.num_epochs, other.settings.learning_rate) == (10, 0.001)
    assert other.size == "conv 1024"


@pytest.mark.parametrize("scale", SCALES)
def test_scales_are_valid(scale):
    config = scaled(scale)
    assert set(to_json(config)) >= {"seed", "data_dir", "checkpoint_every"}


def test_sizes_by_data_set():
    config = scaled("cpu")
    sizes = [build_item(config, name).size for name in config.items]
    assert sizes == ["fc 64", "conv 512", "fc 64", "conv 32", "fc 32"]
    assert build_item(scaled("paper", vi_protocol="corrected"), "mnist-vi").settings.init == (
        "network"
    )


def test_mixed_chains_stand_beside_the_published_ones():
    """Trajectories of the prior's scale; keys of the published items stay those of their place."""
    config = scaled("cpu")
    items = [build_item(config, name) for name in config.items]
    assert [item.stream for item in items[:4]] == [0, 1, 2, 3]
    assert build_item(config, "digits-hmc").stream == 4
    (mnist,), fashion = items[4:], build_item(config, "fashion_mnist-hmc-mixed")
    assert (mnist.stream, fashion.stream) == (
        zlib.crc32(b"mnist-hmc-mixed"),
        zlib.crc32(b"fashion_mnist-hmc-mixed"),
    )
    assert [item.num_train for item in items] == [0] * 4 + [6000]
    settings = mnist.settings
    assert (settings.num_chains, settings.num_warmup, settings.num_samples) == (4, 50, 100)
    assert (settings.trajectory_length, settings.init, settings.adapt) == (
        1.3,
        "prior",
        "step_size",
    )
    # At the step of 0.0032 to which it adapts these are some 400 leapfrog steps.
    assert settings.trajectory_length / 0.0032 < settings.max_integration_steps
    assert mnist.title == "MNIST, HMC of long trajectories"
    assert items[0].settings.trajectory_length is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": ("cifar-vi",)}, "items must be one of mnist-hmc, .*, got 'cifar-vi'"),
        ({"items": ("mnist-vi", "mnist-vi")}, "items must not name anything twice"),
        (
            {"counts": ("1", "501")},
            r"counts must be at most the draws of mnist-hmc \(500\), got 501",
        ),
        ({"counts": ("10", "1")}, "counts must rise, got 10,1"),
        ({"counts": ("1", "ten")}, "whole numbers of at least 1, got 1,ten"),
        ({"vi_hidden": ("cifar:3",)}, "pairs such as mnist:512"),
        ({"vi_epochs": ("3", "mnist:4")}, "pairs such as mnist:512"),
        ({"num_test": 0}, "num_test must be at least 1, got 0"),
        ({"hmc_step_size": -1.0}, "hmc_step_size must be at least 0, got -1.0"),
    ],
)
def test_wrong_settings_are_named_before_work_starts(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        loss_gradients.run(dataclasses.replace(Config(), **changes), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
