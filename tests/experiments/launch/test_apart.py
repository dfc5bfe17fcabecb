"""``experiments.launch.apart``: parts of a run in processes of their own."""

import concurrent.futures
import functools
import multiprocessing
import os
import time
from pathlib import Path

import jax
import pytest

from experiments.launch import apart, stages
from experiments.launch.run_directory import RunDirectory

QUICK = "jax_disable_most_optimizations"


def note(run, part):
    """Compute a stage, and say where, and how programs are compiled there."""
    stages.cached(run, f"part-{part}", lambda: {"part": part})
    return part, os.getpid(), run.is_apart, jax.config.read(QUICK)


def wait(run, part):
    """Say who works, and go on for ever."""
    (run.path / f"{part}.pid").write_text(str(os.getpid()))
    time.sleep(600)


def fail(run, part):
    """Fail on one part only."""
    if part == "b":
        raise ValueError("no b")
    return part


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "run", "test", {"jobs": 2, "seed": 0}, "python -m test")


def test_functions_that_other_processes_do_not_find_are_refused(run, monkeypatch):
    monkeypatch.setattr(note, "__module__", "experiments.study.__main__")
    with pytest.raises(ValueError, match=r"study.__main__.note .* a function of another module"):
        apart.work_apart(functools.partial(functools.partial(note), run), run, ("a",), 1)


def _never(*_, **__):
    raise AssertionError("computed again")


@pytest.mark.slow
def test_processes_fill_the_stages_and_the_whole_is_timed(run):
    started = time.monotonic()
    jax.config.update(QUICK, True)
    try:
        found = apart.work_apart(note, run, ("a", "b", "c"), 2)
    finally:
        jax.config.update(QUICK, False)
    assert [part for part, *_ in found] == ["a", "b", "c"]
    assert os.getpid() not in {pid for _, pid, *_ in found}
    assert all(is_apart for _, _, is_apart, _ in found)
    # Other programs would give other numbers.
    assert all(is_quick for *_, is_quick in found)
    assert not run.is_apart
    assert [stages.cached(run, f"part-{part}", _never)["part"] for part in "abc"] == list("abc")
    # What several processes did at once counts once.
    assert 0 < stages.spent(run) <= time.monotonic() - started + 0.01
    assert run.sum_logged("part_seconds") >= 0


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(run):
    """However it ends: they would go on writing beside whoever resumes the run."""
    context = multiprocessing.get_context("spawn")
    parent = context.Process(target=apart.work_apart, args=(wait, run, ("a", "b"), 2))
    parent.start()
    notes = [run.path / f"{part}.pid" for part in "ab"]
    _wait_for(lambda: all(path.exists() and path.read_text() for path in notes))
    pids = [int(path.read_text()) for path in notes]
    parent.kill()
    parent.join()
    _wait_for(lambda: not any(map(_is_running, pids)))


def _wait_for(holds, seconds=240):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def _is_running(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # One that nobody waits for stays as a zombie.
    return status.rpartition(")")[2].split()[0] != "Z"


def test_what_one_part_raises_is_raised(run, monkeypatch):
    def pool(workers, context, **_):
        assert (workers, context.get_start_method()) == (2, "spawn")
        return concurrent.futures.ThreadPoolExecutor(workers)

    monkeypatch.setattr(apart, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(apart, "_work", lambda work, run, part: work(run, part))
    assert apart.work_apart(fail, run, ("a", "c"), 9) == ["a", "c"]
    with pytest.raises(ValueError, match="no b"):
        apart.work_apart(fail, run, ("a", "b"), 2)


def test_one_process_works_where_it_is(run, monkeypatch):
    monkeypatch.setattr(apart, "ProcessPoolExecutor", _never)
    found = apart.work_apart(note, run, ("a", "b"), 1) + apart.work_apart(note, run, ("c",), 8)
    assert found == [(part, os.getpid(), False, False) for part in "abc"]


def test_the_number_of_processes_is_no_part_of_what_is_computed(run):
    apart.work_apart(note, run, ("a",), 1)
    again = RunDirectory(run.path, "test", {"jobs": 5, "seed": 0}, "python -m test")
    assert stages.cached(again, "part-a", _never) == {"part": "a"}
    with pytest.raises(ValueError, match="seed is 0 there, 1 here"):
        RunDirectory(run.path, "test", {"jobs": 5, "seed": 1}, "python -m test")


def test_a_gpu_is_shared_only_where_several_processes_use_it(monkeypatch):
    monkeypatch.setattr(apart.os, "environ", {})
    apart.share_devices(1)
    assert apart.os.environ == {}
    apart.share_devices(2)
    assert apart.os.environ == {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
