"""Every experiment at its smallest scale, in one folder with one page."""

import dataclasses

import pytest

from bnn_adv import files
from experiments import reproduce, table2
from experiments.evaluate_config import EvaluateConfig


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduce") / "smoke"
    results = reproduce.reproduce(reproduce.Config(scale="smoke"), str(folder))
    return folder, results


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


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"scale": "huge"}, "Unknown --scale: huge. Known: smoke, cpu, paper"),
        ({"only": ("table9",)}, "Unknown --only: table9. Known: table2"),
    ],
)
def test_errors_come_before_work(config, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        reproduce.reproduce(reproduce.Config(**config), str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_another_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no reproduction"):
        reproduce.reproduce(reproduce.Config(scale="smoke"), str(tmp_path))


@pytest.mark.parametrize("scale", ["smoke", "cpu", "paper"])
def test_table2_turns_text_into_settings(scale):
    config = table2.Config(**table2.SCALES[scale], seed=3)
    chosen = table2.to_evaluate_config(config)
    assert chosen.seed == 3
    assert {"deterministic", "vi"} <= set(chosen.models)
    kinds = {field.name: type(field.default) for field in dataclasses.fields(EvaluateConfig)}
    assert {name: type(getattr(chosen, name)) for name in kinds} == kinds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hidden", "takes flags of experiments.evaluate as name=value"),
        ("width=3", "takes flags of experiments.evaluate as name=value"),
        ("hidden=wide", "hidden takes a value of type int, got 'wide'"),
        ("fresh=1", "fresh is true or false"),
        ("hidden=0", "--hidden must be at least 1"),
    ],
)
def test_table2_refuses_what_it_cannot_read(text, message):
    with pytest.raises(ValueError, match=message):
        table2.to_evaluate_config(table2.Config(preset="digits", settings=(text,)))
