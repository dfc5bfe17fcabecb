"""Runs of the zoo put into one table; what was not judged alike is refused."""

import dataclasses
import json

import pytest

from experiments.zoo import __main__ as zoo
from experiments.zoo.config import Config
from experiments.zoo.join import leave_out_curves, read_runs
from experiments.zoo.report import make_records
from tests.experiments.zoo.test_report import found as make_found


def make_run(folder, method, **changes):
    found = make_found(method)
    command = f"python -m experiments.zoo --{method}"
    (record,) = make_records([found], command=command, seed=3, hardware="a chip")
    folder.mkdir()
    sources = {"data mnist": changes.pop("data", "1234")}
    sources |= {"suite strong": changes.pop("code", "abcd")}
    results = {"experiment": "zoo", "sources": sources, "seconds": changes.pop("seconds", 60)}
    results["environment"] = {"cpu": method, "commit": f"{method}-commit"}
    results["data"] = {"posteriors": [found], "records": [record.to_json()]}
    (folder / "results.json").write_text(json.dumps(results))
    config = {"experiment": "zoo", "num_test": 1000, "suite": "strong", **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_rows_of_two_runs_stand_in_one_table_with_their_own_commands(tmp_path):
    runs = make_run(tmp_path / "a", "sgd"), make_run(tmp_path / "b", "vi")
    results = zoo.run(Config(join=runs), str(tmp_path / "run"))
    names = [record["name"] for record in results["data"]["records"]]
    assert names == ["mnist_sgd_interval", "mnist_vi_interval"]
    (commands,) = [table for table in results["tables"] if table["title"] == "Commands"]
    assert commands["rows"] == [
        ["python -m experiments.zoo --sgd", "mnist_sgd_interval"],
        ["python -m experiments.zoo --vi", "mnist_vi_interval"],
    ]
    # A claim needs both.
    assert any(
        "keeps more under attack than" in verdict["claim"] for verdict in results["verdicts"]
    )
    page = (tmp_path / "run" / "zoo.html").read_text("utf-8")
    assert all(name in page for name in names)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"num_test": 500}, "num_test is 500"), ({"data": "5678"}, "data mnist is '5678'")],
)
def test_what_was_judged_otherwise_is_refused_before_a_folder_is_made(tmp_path, changes, words):
    runs = make_run(tmp_path / "a", "sgd"), make_run(tmp_path / "b", "vi", **changes)
    with pytest.raises(ValueError, match=words):
        zoo.run(Config(join=runs), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_attacks_of_other_code_are_joined_where_it_is_asked_for_and_said(tmp_path):
    runs = [make_run(tmp_path / method, method) for method in ("sgd", "vi")]
    joined = zoo.run(Config(join=tuple(runs)), str(tmp_path / "alike"))
    assert "states" not in joined["data"]["joined"]
    runs.append(make_run(tmp_path / "swag", "swag", code="cdef"))
    config = Config(join=tuple(runs))
    with pytest.raises(ValueError, match=r"suite strong is 'cdef'.*--join_across_code joins"):
        zoo.run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    results = zoo.run(dataclasses.replace(config, join_across_code=True), str(tmp_path / "run"))
    names = ["mnist_sgd_interval", "mnist_vi_interval"]
    assert results["data"]["joined"]["states"] == [
        {"commits": ["sgd-com", "vi-comm"], "posteriors": names},
        {"commits": ["swag-co"], "posteriors": ["mnist_swag_interval"]},
    ]
    assert results["summary"].endswith(
        "between runs: mnist_swag_interval (commits swag-co); "
        "all others (commits sgd-com, vi-comm)."
    )
    # Of the data there is no choice.
    runs.append(make_run(tmp_path / "map", "map", data="5678"))
    with pytest.raises(ValueError, match=r"data mnist is '5678'.*judged alike\.$"):
        read_runs(runs, across_code=True)


def test_curves_of_selective_accuracy_stay_with_the_runs():
    one = make_found("vi")
    score = one["shift"]["scores"]["entropy"]
    score["selective"] = score["selective_mixed_attacked"] = {"area": 0.5, "accuracy": [1.0]}
    (left,) = leave_out_curves([one])
    assert set(left["shift"]["scores"]["entropy"]) == {"clean", "both_attacked"}
    assert {**left, "shift": None} == {**one, "shift": None}
    assert leave_out_curves([{**one, "shift": None}])[0]["shift"] is None


def test_a_posterior_in_two_runs_is_refused(tmp_path):
    runs = make_run(tmp_path / "a", "sgd"), make_run(tmp_path / "b", "sgd")
    with pytest.raises(ValueError, match=r"mnist_sgd_interval is in .*a and in .*b"):
        read_runs(runs)


def test_what_runs_took_is_added_up(tmp_path):
    for method, seconds in (("sgd", 60), ("vi", 90)):
        make_run(tmp_path / method, method, seconds=seconds)
    results = zoo.run(Config(join=(str(tmp_path),)), str(tmp_path.parent / "joined"))
    assert results["data"]["joined"] == {
        "runs": 2,
        "seconds": 150,
        "environment": {"cpu": "vi", "commit": "vi-commit"},
    }


def test_what_was_joined_is_not_joined_again(tmp_path):
    """Its record names no data and no settings by which its posteriors were judged."""
    make_run(tmp_path / "sgd", "sgd")
    zoo.run(Config(join=(str(tmp_path),)), str(tmp_path / "joined"))
    # In a folder it is no run beside those that it holds; by itself it is refused.
    found, _ = read_runs([str(tmp_path)])
    assert [one["method"] for one in found] == ["sgd"]
    with pytest.raises(ValueError, match=r"joined joins others itself: name those, "):
        read_runs([str(tmp_path / "joined")])


def test_a_folder_stands_for_the_runs_in_it(tmp_path):
    (tmp_path / "notes" / "more").mkdir(parents=True)
    for name, method in (("notes/more/a", "vi"), ("b", "sgd")):
        make_run(tmp_path / name, method)
    make_run(tmp_path.parent / "elsewhere", "swag")
    (tmp_path / "link").symlink_to(tmp_path.parent / "elsewhere")
    found, _ = read_runs([str(tmp_path)])
    assert [one["method"] for one in found] == ["sgd", "vi", "swag"]
    # One that has not finished is named, not left out.
    (tmp_path / "b" / "results.json").unlink()
    with pytest.raises(ValueError, match=r"--join: .*b is no finished run"):
        read_runs([str(tmp_path)])


@pytest.mark.parametrize("text", [None, "{", '{"experiment": "compare"}'])
def test_what_is_no_finished_run_is_refused_by_name(tmp_path, text):
    folder = make_run(tmp_path / "a", "sgd")
    path = tmp_path / "a" / "results.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=r"--join: .*no (finished )?run"):
        read_runs([folder])
