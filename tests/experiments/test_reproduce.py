"""Every experiment at its smallest scale, in one folder with one page."""

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from bnn_adv.compute import files
from bnn_adv.inference import METHODS
from experiments import reproduce
from experiments.launch import study
from experiments.launch.tables import to_record
from experiments.loss_gradients.report import CONDITIONS
from experiments.samplers import config as samplers
from experiments.table2 import __main__ as table2
from tests.experiments.baseline import assert_same

ITEMS_KEPT = ("half_moons", "ensembles", "robustness_accuracy", "loss_gradients", "table2")
SMOKE = reproduce.Config(scale="smoke")


@pytest.fixture(scope="module", autouse=True)
def few_samplers():
    """Every method compiles for seconds, and is run where it is tested by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(samplers.SCALES["smoke"], "methods", ("mclmc",))
        yield


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Every item, stopped before its results are written, and what they would have been."""
    folder, seen = tmp_path_factory.mktemp("reproduce") / "smoke", {}

    def stop(run, name, config, scale, study):
        seen[name] = json.loads(json.dumps(to_record(study)))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "_write", stop)
        for name in reproduce.ITEMS:
            with pytest.raises(KeyboardInterrupt):
                reproduce.reproduce(dataclasses.replace(SMOKE, only=(name,)), str(folder))
            assert not (folder / name / "results.json").exists()
    # A posterior that is lost is trained again.
    next((folder / "geometry" / "partial").glob("posterior-*-ensemble-*.json")).unlink()
    return folder, seen


def _never(*_, **__):
    raise AssertionError("trained again")


@pytest.fixture(scope="module")
def finished(stopped):
    folder, _ = stopped
    with pytest.MonkeyPatch.context() as patch:
        # Its gradients are taken again, from the draws that were kept.
        patch.setitem(METHODS, "hmc", _never)
        patch.setitem(METHODS, "svi", _never)
        return folder, reproduce.reproduce(SMOKE, str(folder))


def test_a_run_that_is_stopped_ends_with_the_same_numbers(stopped, finished):
    _, seen = stopped
    _, results = finished
    assert list(seen) == list(reproduce.ITEMS)
    for found in results:
        for part in ("data", "tables", "claims", "verdicts"):
            assert found[part] == seen[found["experiment"]][part]


def test_numbers_are_those_of_the_first_version(finished):
    """Moving code and renaming settings changed none."""
    _, results = finished
    for found in results:
        if found["experiment"] in ITEMS_KEPT:
            assert_same(found["experiment"], _without_newcomers(found["data"]))


def _without_newcomers(data):
    """Return a record without what was added beside the published settings, which is named so."""

    def is_new(row):
        return row.get("hmc") == "mixed" or row.get("name", "").endswith("-mixed")

    return data | {
        name: [row for row in rows if not is_new(row)]
        for name, rows in data.items()
        if name in ("items", "networks")
    }


def test_no_stage_is_computed_twice_but_the_one_that_was_lost(finished):
    folder, _ = finished
    again = {}
    for name in reproduce.ITEMS:
        lines = (folder / name / "metrics.jsonl").read_text("utf-8").splitlines()
        stages = [record["stage"] for record in map(json.loads, lines) if "stage" in record]
        assert stages
        again[name] = len(stages) - len(set(stages))
    assert again == {**dict.fromkeys(reproduce.ITEMS, 0), "geometry": 1}


def test_every_experiment_leaves_its_results(finished):
    folder, results = finished
    assert [r["experiment"] for r in results] == list(reproduce.ITEMS)
    for found in results:
        own = folder / found["experiment"]
        assert {"results.json", "report.html", "command.txt", "config.json"} <= {
            path.name for path in own.iterdir()
        }
        assert found["scale"] == "smoke"
        assert found["tables"]
        assert found["figures"]
        for figure in found["figures"]:
            assert len(figure["caption"]) > 80
            png = own / figure["file"]
            assert png.read_bytes().startswith(b"\x89PNG")
            assert png.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_one_page_shows_all(finished):
    folder, results = finished
    page = (folder / "report.html").read_text("utf-8")
    assert page.count("data:image/png") == sum(len(r["figures"]) for r in results)
    for found in results:
        assert found["command"] in page
        assert found["title"] in page
    record = files.read_json(folder / "results.json")
    assert len(record["verdicts"]) == sum(len(r["verdicts"]) for r in results) > 0


def test_a_finished_item_is_read_back(finished):
    folder, results = finished
    config = reproduce.Config(scale="smoke", only=("table2",))
    before = (folder / "table2" / "results.json").stat().st_mtime_ns
    assert reproduce.reproduce(config, str(folder)) == results
    assert (folder / "table2" / "results.json").stat().st_mtime_ns == before


def of(finished, name):
    folder, results = finished
    (found,) = (each for each in results if each["experiment"] == name)
    return folder / name, found, {figure["file"] for figure in found["figures"]}


def test_geometry_has_its_posteriors_and_pictures(finished):
    _, results, pictures = of(finished, "geometry")
    assert {row["method"] for row in results["data"]["posteriors"]} == {"ensemble", "prior"}
    assert pictures >= {"figures/means.png", "figures/mirror.png"}
    assert len(results["verdicts"]) >= 8


def test_loss_gradients_have_every_condition(finished):
    _, results, pictures = of(finished, "loss_gradients")
    for item in results["data"]["items"]:
        assert list(item["conditions"]) == list(CONDITIONS)
        assert item["conditions"]["posterior"]["counts"] == [1, 4, 8]
        assert len(item["images"]) == 2
        assert np.shape(item["image_norms"]) == (2, 3)
        # Products of groups of draws, for the interval of the expectation's norm.
        assert np.shape(item["conditions"]["posterior"]["products"]) == (8, 8)
        assert item["conditions"]["prior"]["num_group_chains"] == 8
    assert pictures == {
        f"figures/{name}.png"
        for name in (
            *("pixels_digits_hmc", "pixels_digits_vi", "pixels_digits_hmc_mixed"),
            *("strips", "norms"),
        )
    }
    chains = [i["conditions"]["posterior"]["num_group_chains"] for i in results["data"]["items"]]
    assert chains == [2, 8, 2]
    assert (len(results["claims"]), len(results["verdicts"])) == (9, 6)
    assert set(results["sources"]) >= {"data digits", "data digits, 100 examples"}


def test_half_moons_count_what_attacks_miss(finished):
    _, results, pictures = of(finished, "half_moons")
    network, mixed = results["data"]["networks"]
    assert (mixed["hmc"], mixed["hidden"], mixed["num_train"]) == ("mixed", 8, 100)
    assert len(mixed["gradients"]["chains"]) == 2 * 2 * 10
    assert (network["hidden"], network["num_train"], network["num_warmup"]) == (8, 200, 60)
    assert len(network["distances"]["linf"]) == 10
    assert network["gradients"]["counts"] == [1, 3, 10, 20]
    # The mean over all draws is that of the two chains' means.
    chains = np.reshape(network["gradients"]["chains"], (2, 20))
    np.testing.assert_allclose(
        chains.mean(axis=0), network["gradients"]["posterior"], rtol=1e-3, atol=1e-6
    )
    assert {row["protocol"] for row in network["attacked"]} == {"published", "corrected", "strong"}
    for row in network["attacked"]:
        counts = row["comparison"]
        # What an attack leaves and what the grid leaves differ by exactly what is counted.
        broken = counts["missed"] - counts["between"] - counts["unexplained"]
        assert 10 * counts["accuracy"] == pytest.approx(10 * counts["truth"] + broken)
    assert pictures == {
        f"figures/{n}{kind}.png"
        for n in ("components", "decay", "truth_linf")
        for kind in ("", "_mixed")
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"scale": "huge"}, "scale must be one of smoke, cpu, paper, got 'huge'"),
        ({"only": ("table9",)}, "only must be one of table2, .*, got 'table9'"),
    ],
)
def test_errors_come_before_work(config, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        reproduce.reproduce(reproduce.Config(**config), str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_every_study_is_an_item_with_all_scales():
    """A folder of ``experiments`` that has scales is a study."""
    root = Path(reproduce.__file__).parent
    folders = [path.parent for path in root.glob("*/__main__.py")]
    modules = {
        each.name: importlib.import_module(f"experiments.{each.name}.__main__") for each in folders
    }
    items = {name: module for name, module in modules.items() if hasattr(module, "SCALES")}
    assert sorted(items) == sorted([*reproduce.ITEMS, *reproduce.APART])
    for module in items.values():
        for scale in study.SCALES:
            found = reproduce.item_config(module, reproduce.Config(scale=scale, seed=3))
            assert found.seed == 3


def test_another_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no reproduction"):
        reproduce.reproduce(reproduce.Config(scale="smoke"), str(tmp_path))


@pytest.mark.parametrize("scale", ["smoke", "cpu", "paper"])
def test_table2_turns_text_into_settings(scale):
    config = table2.Config(**table2.SCALES[scale], seed=3)
    chosen = table2.to_comparison(config)
    assert chosen.config.seed == 3
    assert {"deterministic", "vi"} <= {row.name for row in chosen.rows}
    if scale == "smoke":
        assert [row.network.hidden for row in chosen.rows] == [16, 16]
        assert (chosen.config.fresh, chosen.config.suites) == (False, ("published", "corrected"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hidden", "takes flags of experiments.compare as name=value"),
        ("width=3", "Unknown settings: width"),
        ("mlp.hidden=wide", "--mlp.hidden must be an integer, got 'wide'"),
        ("fresh=1", "fresh is true or false"),
        ("mlp.hidden=0", "--mlp.hidden must be at least 1, got 0"),
    ],
)
def test_table2_refuses_what_it_cannot_read(text, message):
    with pytest.raises(ValueError, match=message):
        table2.to_comparison(table2.Config(preset="digits", settings=(text,)))
