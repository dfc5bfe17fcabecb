"""Runs of the zoo put into one table; what was not judged alike is refused."""

import dataclasses
import json
from pathlib import Path

import pytest

from experiments.launch.config import to_json
from experiments.launch.tables import to_record
from experiments.zoo import __main__ as zoo
from experiments.zoo.config import Config
from experiments.zoo.join import leave_out_curves, read_runs
from experiments.zoo.report import build_study, make_records
from tests.experiments.zoo.test_report import found as make_found

COMMITTED = str(Path(zoo.__file__).parent / "results" / "joined")


def make_run(folder, method, **changes):
    found = make_found(method)
    command = f"python -m experiments.zoo --{method}"
    (record,) = make_records([found], command=command, seed=3, hardware="a chip")
    folder.mkdir()
    sources = {"data mnist": changes.pop("data", "1234")}
    sources |= {"suite strong": changes.pop("code", "abcd")}
    results = {"experiment": "zoo", "sources": sources, "seconds": changes.pop("seconds", 60)}
    commit = changes.pop("commit", f"{method}-commit")
    results["environment"] = {"cpu": method, "commit": commit}
    results["data"] = {"posteriors": [found], "records": [record.to_json()]}
    (folder / "results.json").write_text(json.dumps(results))
    config = {"experiment": "zoo", **to_json(Config(num_test=1000)), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def rewrite(folder, change, name="results.json"):
    """Change a run's file as ``change`` changes what it holds."""
    path = Path(folder) / name
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


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
    assert len(joined["data"]["joined"]["states"]) == 1
    assert "The code of suites" not in joined["summary"]
    runs.append(make_run(tmp_path / "swag", "swag", code="cdef"))
    config = Config(join=tuple(runs))
    with pytest.raises(ValueError, match=r"suite strong is 'cdef'.*--join_across_code joins"):
        zoo.run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    results = zoo.run(dataclasses.replace(config, join_across_code=True), str(tmp_path / "run"))
    names = ["mnist_sgd_interval", "mnist_vi_interval"]
    known, other = {"suite strong": "abcd"}, {"suite strong": "cdef"}
    assert results["data"]["joined"]["states"] == [
        {"suites": known, "commits": ["sgd-com", "vi-comm"], "posteriors": names},
        {"suites": other, "commits": ["swag-co"], "posteriors": ["mnist_swag_interval"]},
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
    told = results["data"]["joined"]
    assert told["runs"] == 2
    assert told["seconds"] == 150
    assert told["environment"] == {"cpu": "vi", "commit": "vi-commit"}


def test_runs_joined_before_are_taken_where_they_are_named(tmp_path):
    make_run(tmp_path / "sgd", "sgd")
    zoo.run(Config(join=(str(tmp_path),)), str(tmp_path / "joined"))
    # In a folder they are no run beside those that it holds.
    assert [one["method"] for one in read_runs([str(tmp_path)]).found] == ["sgd"]
    alone, own = (read_runs([str(tmp_path / name)]) for name in ("joined", "sgd"))
    assert alone.records == own.records
    assert alone.found == leave_out_curves(own.found)
    assert alone.about == own.about
    # Their results alone are enough, wherever they lie.
    (tmp_path / "joined" / "config.json").unlink()
    assert [one["method"] for one in read_runs([str(tmp_path)]).found] == ["sgd"]
    assert read_runs([str(tmp_path / "joined")]).records == own.records


def join_two(tmp_path, **changes):
    """Return a folder with the results alone of SGD and VI joined, and the runs."""
    runs = [make_run(tmp_path / method, method, **changes) for method in ("sgd", "vi")]
    zoo.run(Config(join=tuple(runs)), str(tmp_path / "joined"))
    results = tmp_path / "results"
    results.mkdir()
    (tmp_path / "joined" / "results.json").rename(results / "results.json")
    return str(results), runs


def test_a_run_replaces_its_posterior_in_runs_joined_before(tmp_path):
    before, _ = join_two(tmp_path)
    (tmp_path / "new").mkdir()
    new = [
        make_run(tmp_path / "new" / name, name, code="cdef", commit="0123456789 with changes")
        for name in ("vi", "swag")
    ]
    for folders in ([before, *new], [*new, before]):
        with pytest.raises(ValueError, match=r"suite strong is '(abcd|cdef)'"):
            read_runs(folders)
        joined = read_runs(folders, across_code=True)
        assert [one["method"] for one in joined.found] == ["sgd", "vi", "swag"]
        # The run that VI was of before is no part of the table any more.
        assert joined.about["runs"] == 3
        assert joined.about["seconds"] == 180
        names = ["mnist_swag_interval", "mnist_vi_interval"]
        assert joined.about["states"] == [
            {
                "suites": {"suite strong": "cdef"},
                "commits": ["0123456 with changes"],
                "posteriors": names,
            },
            {
                "suites": {"suite strong": "abcd"},
                "commits": ["sgd-com"],
                "posteriors": ["mnist_sgd_interval"],
            },
        ]
        assert joined.about["judged"]["num_test"] == 1000
        assert joined.about["data"] == {"data mnist": "1234"}


def test_what_is_replaced_altogether_is_judged_no_more(tmp_path):
    before, _ = join_two(tmp_path, code="old", num_test=500, data="old")
    (tmp_path / "new").mkdir()
    new = [make_run(tmp_path / "new" / name, name) for name in ("sgd", "vi")]
    for folders in ([before, *new], [*new, before]):
        joined = read_runs(folders)
        assert joined.about == read_runs(new).about
        assert joined.about["judged"]["num_test"] == 1000


def test_runs_joined_twice_count_once(tmp_path):
    before, runs = join_two(tmp_path)
    joined = read_runs([before, runs[0]])
    assert joined.about["runs"] == 2
    assert joined.about["seconds"] == 120
    assert joined.records == read_runs(runs).records


def test_a_table_follows_from_the_runs_that_there_are(tmp_path):
    config = Config(join=(str(tmp_path / "runs"),))
    (tmp_path / "runs").mkdir()
    make_run(tmp_path / "runs" / "sgd", "sgd")
    zoo.run(config, str(tmp_path / "joined"))
    assert len(zoo.run(config, str(tmp_path / "joined"))["data"]["records"]) == 1
    make_run(tmp_path / "runs" / "vi", "vi")
    with pytest.raises(ValueError, match=r"joined \S*/vi is None there"):
        zoo.run(config, str(tmp_path / "joined"))
    # Where the runs are gone the finished table is still there.
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert len(zoo.run(config, str(tmp_path / "joined"))["data"]["records"]) == 1
    with pytest.raises(ValueError, match="no finished run"):
        zoo.run(config, str(tmp_path / "another"))


def test_a_folder_of_nothing_but_joined_runs_names_them(tmp_path):
    before, _ = join_two(tmp_path)
    (tmp_path / "tables").mkdir()
    Path(before).rename(tmp_path / "tables" / "first")
    with pytest.raises(ValueError, match=r"nothing but runs that were joined.*tables/first"):
        read_runs([str(tmp_path / "tables")])


def test_suites_that_only_one_of_two_runs_has_are_no_other_state(tmp_path):
    runs = [make_run(tmp_path / method, method) for method in ("sgd", "vi")]
    rewrite(runs[1], lambda v: v["sources"].update({"suite published": "1111"}))
    (state,) = read_runs(runs).about["states"]
    assert state["suites"] == {"suite strong": "abcd", "suite published": "1111"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"num_test": 500}, "num_test is (500|1000)"), ({"data": "5678"}, "data mnist is")],
)
def test_runs_joined_before_have_to_be_judged_alike(tmp_path, changes, words):
    before, _ = join_two(tmp_path)
    other = make_run(tmp_path / "swag", "swag", **changes)
    for folders in ([before, other], [other, before]):
        with pytest.raises(ValueError, match=words):
            read_runs(folders, across_code=True)


def test_a_posterior_in_two_results_of_joined_runs_is_refused(tmp_path):
    before, runs = join_two(tmp_path)
    zoo.run(Config(join=(runs[0],)), str(tmp_path / "again"))
    with pytest.raises(ValueError, match=r"mnist_sgd_interval is in .*results and in .*again"):
        read_runs([before, str(tmp_path / "again")])


def test_joined_runs_that_do_not_say_how_they_were_judged_are_refused(tmp_path):
    before, _ = join_two(tmp_path)
    rewrite(before, lambda values: values["data"]["joined"].pop("judged"))
    with pytest.raises(
        ValueError, match=r"results does not say what a table has to know: 'judged'"
    ):
        read_runs([before])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.pop("data"), "'data' is missing"),
        (lambda v: v.update(data=None), "does not say"),
        (lambda v: v["data"].update(posteriors=[], records=[]), "not those of its posteriors"),
        (lambda v: v["data"].update(records=[]), "not those of its posteriors"),
        (lambda v: v["data"]["posteriors"][0].pop("shift"), "'shift' is missing"),
        (lambda v: v["data"]["posteriors"][0]["radii"][0].pop("flags"), "'flags' is missing"),
        (lambda v: v["data"]["posteriors"][0].update(method="abc"), "method 'abc' is none of sgd"),
        (lambda v: v["data"]["posteriors"][0].update(method="vi"), "not those of its posteriors"),
        (lambda v: v.pop("sources"), "'sources' is missing"),
        (lambda v: v["sources"].pop("suite strong"), "no hashes of the code of its suites"),
        (lambda v: v["sources"].pop("data mnist"), "no hash of its data mnist"),
        (lambda v: v.update(seconds=None), "does not say"),
    ],
)
def test_a_run_that_does_not_say_all_is_refused_by_name(tmp_path, change, words):
    folder = make_run(tmp_path / "a", "sgd")
    rewrite(folder, change)
    with pytest.raises(ValueError, match=rf"--join: .*a .*{words}"):
        read_runs([folder])


def test_radii_are_compared_whatever_was_asked_for(tmp_path):
    runs = [make_run(tmp_path / "sgd", "sgd"), make_run(tmp_path / "vi", "vi", epsilons=[0.1])]
    assert len(read_runs(runs).records) == 2
    rewrite(runs[1], lambda v: v["data"]["posteriors"][0]["radii"][0].update(epsilon=0.2))
    with pytest.raises(ValueError, match=r"radii of mnist is \[0.2\]"):
        read_runs(runs)


def test_what_was_trained_otherwise_stands_in_the_table_and_is_no_rival(tmp_path):
    runs = [make_run(tmp_path / "sgd", "sgd"), make_run(tmp_path / "vi", "vi", width=64)]
    results = zoo.run(Config(join=tuple(runs)), str(tmp_path / "run"))
    (verdict,) = [v for v in results["verdicts"] if "keeps more under attack than" in v["claim"]]
    assert "not judged: trained with width 64 and 16" in verdict["measured"]


def test_a_folder_stands_for_the_runs_in_it(tmp_path):
    (tmp_path / "notes" / "more").mkdir(parents=True)
    for name, method in (("notes/more/a", "vi"), ("b", "sgd")):
        make_run(tmp_path / name, method)
    make_run(tmp_path.parent / "elsewhere", "swag")
    (tmp_path / "link").symlink_to(tmp_path.parent / "elsewhere")
    found = read_runs([str(tmp_path)]).found
    assert [one["method"] for one in found] == ["sgd", "vi", "swag"]
    # One that has not finished is named, not left out.
    (tmp_path / "b" / "results.json").unlink()
    with pytest.raises(ValueError, match=r"--join: .*b is no finished run"):
        read_runs([str(tmp_path)])


def test_the_committed_table_can_be_joined_with_ones_own_run(tmp_path):
    before = read_runs([COMMITTED], across_code=True)
    own = before.found[0]
    judged, data = before.about["judged"], before.about["data"]
    config = {"experiment": "zoo", **to_json(Config()), **judged}
    with pytest.raises(ValueError, match=r"joined and '\w+' also: .*--join_across_code"):
        read_runs([COMMITTED])
    results = {
        "experiment": "zoo",
        "sources": {**data, "suite strong": "of today"},
        "data": {"posteriors": [own], "records": [before.records[0].to_json()]},
        "seconds": 60,
        "environment": {"commit": "zz"},
    }
    for name, value in (("config", config), ("results", results)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    joined = read_runs([COMMITTED, str(tmp_path)], across_code=True)
    assert joined.records == before.records
    assert joined.about["states"][-1]["posteriors"] == [before.records[0].name]


@pytest.mark.parametrize("text", [None, "{", '{"experiment": "compare"}'])
def test_what_is_no_finished_run_is_refused_by_name(tmp_path, text):
    folder = make_run(tmp_path / "a", "sgd")
    path = tmp_path / "a" / "results.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=r"--join: .*no (finished )?run"):
        read_runs([folder])


def test_the_committed_table_says_what_its_data_say():
    """It is made anew where what it says of them has changed."""
    committed = json.loads((Path(COMMITTED) / "results.json").read_text("utf-8"))
    joined = read_runs([COMMITTED], across_code=True)
    study = to_record(build_study(joined.found, joined.records))
    for name in ("tables", "verdicts"):
        assert json.loads(json.dumps(study[name])) == committed[name]
    assert committed["data"]["joined"] == json.loads(json.dumps(joined.about))
