"""A run directory says what it is before anything else, and belongs to one process at a time."""

import json
import os
import shlex
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import jax
import pytest

from bnn_adv.compute import files
from experiments.launch import locks, metrics_log, run_directory
from experiments.launch.run_directory import RunDirectory

CONFIG = {"seed": 0, "epsilon": 0.1}


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / "run"
    if (tmp_path / "run").exists():
        locks.release(tmp_path / "run")


def start(folder, **changes):
    return RunDirectory(folder, "test", {**CONFIG, **changes}, "command")


@pytest.mark.parametrize("name", ["config.json", "command.txt", "environment.json"])
def test_a_start_that_a_full_disk_ends_goes_on(name, folder, monkeypatch):
    def full(path, value, write=files.write_text):
        if Path(path).name == name:
            raise OSError(28, "No space left on device")
        write(path, value)

    monkeypatch.setattr(files, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        start(folder)
    left = {path.name for path in folder.iterdir()}
    assert (
        left
        == {
            "config.json": set(),
            "command.txt": {"config.json"},
            "environment.json": {"config.json", "command.txt"},
        }[name]
    )
    monkeypatch.undo()
    # What a kill within a write leaves is this program's, whatever else lies there is not.
    (folder / f".config.json.abcdefgh{files.TEMPORARY}").write_text("{")
    run = start(folder)
    assert run.command == "command"
    assert run.environments == [run_directory.describe_environment()]
    assert not list(folder.glob("*.tmp"))


def test_leftovers_of_others_stay(folder):
    run = start(folder)
    (run.path / "partial").mkdir()
    theirs = run.path / ".notes.tmp"
    theirs.write_text("keep")
    ours = run.path / "partial" / f".row.json.12345678{files.TEMPORARY}"
    ours.write_text("half")
    start(folder)
    assert theirs.read_text() == "keep"
    assert not ours.exists()


def test_a_value_that_json_does_not_know_leaves_nothing(folder):
    with pytest.raises(ValueError, match="JSON"):
        start(folder, epsilon=float("inf"))
    assert not list(folder.iterdir())
    assert start(folder).environment


def work_elsewhere(folder):
    """Start another process that opens the run and says so; it works until its input ends."""
    program = f"""
        import sys
        from experiments.launch.run_directory import RunDirectory
        run = RunDirectory({str(folder)!r}, "test", {CONFIG!r}, "command")
        print("open", flush=True)
        sys.stdin.read()
    """
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stdout.readline() == "open\n"
    return process


@pytest.mark.slow
def test_a_second_process_is_told_and_a_dead_ones_lock_is_taken_over(folder):
    with work_elsewhere(folder) as other:
        with pytest.raises(BlockingIOError, match=rf"in use by process {other.pid} on .* since"):
            start(folder)
        other.kill()
    # The file is still there, and nobody behind it.
    assert f"process {other.pid}" in (folder / locks.NAME).read_text()
    run = start(folder)
    assert f"process {os.getpid()}" in (folder / locks.NAME).read_text()
    # The same process may look again.
    start(folder)
    run.finish({"rows": []})
    assert not (folder / locks.NAME).exists()
    # Nobody works in a finished run: it is read by any number.
    assert start(folder).read_results() == {"rows": []}
    assert not (folder / locks.NAME).exists()


def test_a_kill_after_the_results_leaves_nothing_that_stays(folder):
    run = start(folder)
    run.finish({"rows": []})
    files.write_json(folder / "partial" / "row.json", {})
    (folder / locks.NAME).write_text("process 1")
    assert start(folder).read_results() == {"rows": []}
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "command.txt", "environment.json", "results.json")
    }


def test_a_torn_line_is_cut_off_and_said(folder, capsys):
    run = start(folder)
    run.log(stage_seconds=1.5)
    run.log(stage_seconds=2.0)
    path = folder / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    run = start(folder)
    assert "The last line of metrics.jsonl was torn and is cut off" in capsys.readouterr().err
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[0] == whole.splitlines(keepends=True)[0]
    assert "torn" in json.loads(lines[1])["message"]
    assert run.sum_logged("stage_seconds") == 1.5
    assert metrics_log.cut_torn_line(path) == ""
    # Zeros, as some file systems leave them after a power cut.
    path.write_bytes(whole + b"\0" * 20)
    start(folder)
    assert start(folder).sum_logged("stage_seconds") == 3.5
    path.write_bytes(b"{damaged\n" + whole)
    with pytest.raises(ValueError, match=r"Line 1 of .*metrics.jsonl is damaged"):
        start(folder).sum_logged("stage_seconds")


@pytest.mark.parametrize("name", ["config.json", "results.json", "environment.json"])
@pytest.mark.parametrize("content", ['{"a": ', "", "[1, 2]"])
def test_a_damaged_file_is_named(name, content, folder):
    run = start(folder)
    if name == "results.json":
        run.finish({"rows": []})
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name} is damaged"):
        start(folder).read_results()
    assert (folder / name).read_text() == content


def test_environments_of_all_starts_are_listed_once_each(folder, monkeypatch):
    first = start(folder).environment
    for version in ("1.0", "1.0", "2.0"):
        there = {**first, "jax": version}
        monkeypatch.setattr(run_directory, "describe_environment", lambda there=there: there)
        run = start(folder)
    assert run.environment == first
    assert run.environments == [first, {**first, "jax": "1.0"}, {**first, "jax": "2.0"}]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be pinned here")
def test_only_cores_that_a_run_may_use_are_counted(folder):
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert start(folder).environment["cpu_count"] == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_of_another_methods_run_the_method_alone_is_named(folder):
    start(folder, method="vi", **{"vi.num_epochs": 3})
    locks.release(folder)
    with pytest.raises(ValueError, match=r"settings: method is 'vi' there, 'hmc' here\. Give"):
        start(folder, method="hmc", **{"hmc.num_samples": 5})


def test_another_run_is_refused_by_what_differs(folder):
    start(folder)
    locks.release(folder)
    with pytest.raises(ValueError, match=r"epsilon is 0.1 there, 0.2 here"):
        start(folder, epsilon=0.2)
    with pytest.raises(ValueError, match=r"draws_hash is None there, 'ab' here"):
        start(folder, draws_hash="ab")
    with jax.default_prng_impl("rbg"), pytest.raises(ValueError, match=r"jax_settings .*'rbg'"):
        start(folder)
    with (
        jax.threefry_partitionable(False),
        pytest.raises(ValueError, match=r"jax_settings .*False"),
    ):
        start(folder)
    # It was not left locked by that.
    assert not (folder / locks.NAME).exists()


def test_what_json_does_not_know_is_null_and_said_once(folder, capsys):
    run = start(folder)
    nan, inf = float("nan"), float("inf")
    for loss in (nan, -inf, 2.0):
        run.log(loss=loss, chains=[{"rhat": inf, "draws": 3}], seconds=loss, name="sgd")

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [r["loss"] for r in records if "loss" in r] == [None, None, 2.0]
    assert records[0]["chains"] == [{"rhat": None, "draws": 3}]
    assert records[0]["name"] == "sgd"
    message = "NaN or infinite: chains/0/rhat, loss, seconds. metrics.jsonl holds null instead."
    assert [r["message"] for r in records if "message" in r] == [message]
    assert capsys.readouterr().err.count(message) == 1
    assert run.sum_logged("seconds") == 2.0


def test_lines_of_older_runs_may_hold_nan(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"seconds": 1.5}\n{"seconds": NaN}\n{"seconds": null}\n')
    assert metrics_log.total(path, "seconds") == 1.5


@pytest.mark.parametrize(
    "value",
    ["plain", "two words", "it's", 'say "no"', "runs/*", "$HOME", "a;b", "method=hmc|vi", "", "é"],
)
def test_the_command_can_be_pasted_into_a_shell(value, folder, monkeypatch):
    arguments = [f"--grid_filter={value}", "--workdir", value]
    monkeypatch.setattr(sys, "argv", ["prog", *arguments])
    command = run_directory.describe_command("experiments.robustness_accuracy")
    words = ["python", "-m", "experiments.robustness_accuracy", *arguments]
    assert shlex.split(command) == words
    run = RunDirectory(folder, "test", CONFIG, command)
    assert shlex.split((folder / "command.txt").read_text("utf-8")) == words
    assert run.command == command


def test_a_shell_gives_the_words_back(monkeypatch):
    arguments = ["--a=it's two  words", "--b=*", "--c=$HOME", "--d=`x`"]
    monkeypatch.setattr(sys, "argv", ["prog", *arguments])
    command = run_directory.describe_command("experiments.half_moons")
    script = command.replace("python -m experiments.half_moons", "printf '%s\\n'", 1)
    result = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == arguments


def test_a_folder_is_started_by_its_name(monkeypatch):
    module = types.SimpleNamespace(__spec__=types.SimpleNamespace(name="experiments.x.__main__"))
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setattr(sys, "argv", ["prog", "--scale=cpu"])
    assert run_directory.describe_command("experiments.y") == "python -m experiments.x --scale=cpu"
