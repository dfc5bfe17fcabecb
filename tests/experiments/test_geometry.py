"""``experiments.geometry`` from its settings to its page."""

import dataclasses

import pytest

from experiments import geometry
from experiments.geometry_config import SCALES, Config, normalise

TINY = dataclasses.replace(
    Config(),
    **SCALES["smoke"] | {"steps": (2, 6), "mirror_steps": 4, "ensemble_epochs": 2},
)


@pytest.mark.parametrize("scale", SCALES)
def test_scales_are_settings(scale):
    config = normalise(dataclasses.replace(Config(), **SCALES[scale]))
    assert config.num_seeds >= 2


def test_lists_from_the_command_line_become_numbers():
    config = normalise(dataclasses.replace(Config(), widths=("3", "5")))
    assert config.widths == (3, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": ("a",)}, "--widths needs whole numbers, got a"),
        ({"steps": (5, 5)}, "--steps needs two rising numbers"),
        ({"methods": ("mcmc",)}, "--methods must be of hmc, vi, ensemble"),
        ({"supports": ()}, "--supports must be of moons"),
        (
            {"posterior_samples": 10},
            r"--posterior_samples must be a multiple of",
        ),
        ({"thickness": 0.3}, r"--thickness must lie in \(0, 0.25\]"),
        ({"num_seeds": 1}, "--num_seeds must be at least 2, got 1"),
        ({"mirror_points": 50}, r"--mirror_points must be at most --num_probe \(40\)"),
        ({"activation": "step"}, "Unknown --activation: step"),
    ],
)
def test_settings_are_checked_before_work(changes, message):
    with pytest.raises(ValueError, match=message):
        normalise(dataclasses.replace(Config(), **changes))


def test_an_interrupted_run_ends_with_the_same_numbers(tmp_path, capsys, monkeypatch):
    folder, seen = tmp_path / "run", []

    def interrupt(data):
        seen.append(data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(geometry, "build_study", interrupt)
        with pytest.raises(KeyboardInterrupt):
            geometry.run(TINY, str(folder), scale="smoke")
    # Finished stages are read back; a lost one is computed anew.
    next((folder / "partial").glob("posterior-*-ensemble-*.json")).unlink()
    results = geometry.run(TINY, str(folder), scale="smoke")
    assert results["data"] == seen[0]
    assert {row["method"] for row in results["data"]["posteriors"]} == {"ensemble", "prior"}
    assert {f["file"] for f in results["figures"]} >= {"figures/means.png", "figures/mirror.png"}
    assert len(results["verdicts"]) >= 8
    assert (folder / "report.html").exists()
    capsys.readouterr()
    geometry.run(TINY, str(folder), scale="smoke")
    assert "The theory of the supplement" in capsys.readouterr().out
