"""``experiments.half_moons``: failures, settings, errors; its run is that of ``make reproduce``."""

import dataclasses
import zlib

import pytest

from bnn_adv.compute import files
from bnn_adv.inference import hmc
from experiments.half_moons import __main__ as half_moons
from experiments.half_moons.config import SCALES, Cell, Config, hmc_config, list_cells, list_counts
from experiments.launch.config import make

TINY = Config(
    hidden=(3,),
    num_train=(60,),
    num_warmup=(20,),
    num_samples=8,
    num_leapfrog=4,
    step_size=0.02,
    num_held_out=40,
    num_points=6,
    num_ticks=16,
    norms=("linf",),
    epsilons=(0.1,),
    num_attacked=4,
    least_accuracy=0.0,
    checkpoint_every=0.0,
)


def test_networks_that_fail_are_rows(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise FloatingPointError("The energy is not finite at transition 3.")

    monkeypatch.setattr(hmc, "run", fail)
    config = dataclasses.replace(TINY, hidden=(3, 4))
    results = half_moons.run(config, str(tmp_path / "run"))
    assert [n["left_out"] for n in results["data"]["networks"]] == [
        "The energy is not finite at transition 3."
    ] * 2
    assert files.read_json(tmp_path / "run" / "results.json")["figures"] == []


@pytest.mark.slow
def test_networks_below_the_limit_are_listed(tmp_path):
    config = dataclasses.replace(TINY, least_accuracy=1.0, num_warmup=(0,), num_samples=4)
    (network,) = half_moons.run(config, str(tmp_path / "run"))["data"]["networks"]
    assert network["left_out"] == "accuracy below 100 %"
    assert 0 <= network["diagnostics"]["held_out_accuracy"] < 1


def test_paper_scale_is_the_published_grid():
    paper = Config(**SCALES["paper"])
    cells = list_cells(paper)
    assert len(cells) == 4 * 3 * 3
    assert cells[0] == Cell(32, 5000, 100)
    assert cells[-1] == Cell(512, 15000, 500)
    assert (paper.num_samples, paper.num_leapfrog, paper.step_size) == (250, 10, 0.001)
    assert (paper.num_points, paper.least_accuracy) == (100, 0.8)
    assert list_counts(250) == (1, 3, 10, 30, 100, 250)
    for overlay in SCALES.values():
        Config(**overlay)


def test_mixed_networks_stand_beside_the_grid():
    """Keys of the grid come from its numbers as before, those of the newcomers from names."""
    config = Config(**SCALES["cpu"])
    cells = list_cells(config)
    assert cells[:9] == [Cell(h, n, 200) for h in (32, 128, 256) for n in (5000, 10000, 15000)]
    assert all(cell.streams == (cell.hidden, cell.num_train, 200) for cell in cells[:9])
    mixed = cells[9:]
    assert {cell.kind for cell in mixed} == {"mixed"}
    assert len({cell.hidden for cell in mixed}) >= 2
    assert mixed[0].streams == (zlib.crc32(mixed[0].name.encode()),)
    settings = hmc_config(config, mixed[0])
    assert settings.trajectory_length >= 1
    assert settings.num_chains == 4
    assert hmc_config(config, cells[0]).trajectory_length is None


def test_text_of_a_command_line_becomes_numbers():
    given = {"hidden": ("32", "64"), "epsilons": ("0.1",)}
    assert make(Config, given) == Config(hidden=(32, 64), epsilons=(0.1,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": ()}, "hidden needs at least 1 of them, got nothing"),
        ({"hidden": (32, 0)}, "hidden must be at least 1, got 0"),
        ({"hidden": ("32",)}, "hidden must be an integer, got '32'"),
        (
            {"num_attacked": 9},
            "num_attacked must be at most the draws, .* = 8, or 0 for all, got 9",
        ),
        ({"norms": ("linf", "l7")}, "norms must be one of linf, l2, l1, got 'l7'"),
        ({"epsilons": (-0.1,)}, "epsilons must be at least 0, got -0.1"),
        ({"least_accuracy": 1.5}, "least_accuracy must be at most 1, got 1.5"),
        ({"step_size": 0.0}, "step_size must be above 0, got 0.0"),
    ],
)
def test_errors_come_before_work(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        half_moons.run(dataclasses.replace(TINY, **change), str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
