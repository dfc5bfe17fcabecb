"""Checkpoints on a disk that truncates, flips and fills up."""

import resource
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.compute import checkpoint, checkpoint_store, files
from bnn_adv.compute.checkpoint import Checkpoints


class State(NamedTuple):
    weights: dict
    key: jax.Array
    empty: jax.Array
    plain: np.ndarray


def make_state(step):
    weights = {
        "a": jnp.asarray([-0.0, jnp.nan, 1e-42, step], jnp.float32),
        "b": jnp.full((2, 3), step, jnp.bfloat16),
        "n": jnp.asarray(step, jnp.uint32),
        "noise": jnp.asarray(np.random.default_rng(step).normal(size=4000)),
    }
    return State(weights, jax.random.key(step), jnp.zeros((0, 3)), np.array(step, np.float64))


def write(folder, steps, log=lambda message: None, **options):
    """Save a checkpoint, and a part, at every one of the steps."""
    checkpoints = Checkpoints(folder, every_seconds=None, every_steps=1, log=log, **options)
    with checkpoints.session("counting"):
        for step in steps:
            checkpoints.add_part(f"part {step}", {"x": np.arange(step), "y": np.ones((0, 2))})
            checkpoints.tick(step, make_state(step), {"trace": [0.1, step]})


def read(folder, identity="counting"):
    """Return the step, the state and the messages of a new start."""
    messages = []
    with Checkpoints(folder, log=messages.append).session(identity) as saved:
        return saved, messages


def test_seconds_are_those_of_the_computation(tmp_path, monkeypatch):
    """By a clock of the test's own: what was before a session, or between two, is not counted."""
    now = [100.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    checkpoints = Checkpoints(tmp_path, every_seconds=None, every_steps=1)
    now[0] = 150.0
    with checkpoints.session("counting"):
        now[0] = 153.0
        checkpoints.tick(1, make_state(1))
    assert checkpoints.seconds == 3.0
    for again in (checkpoints, Checkpoints(tmp_path, log=lambda message: None)):
        now[0] += 1000.0
        with again.session("counting"):
            now[0] += 2.0
            assert again.seconds == 5.0


def steps_on_disk(folder):
    return sorted(int(path.name) for path in (folder / "steps").iterdir())


def damage(folder, step, how):
    """Damage the arrays of a checkpoint, everything in it, its record, or its newest part."""
    paths = [path for path in (folder / "steps" / f"{step}").rglob("*") if path.is_file()]
    if how == "truncated":
        for path in paths:
            if path.parent.name == "d":
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "empty":
        for path in paths:
            path.write_bytes(b"")
    elif how == "record":
        (path,) = (path for path in paths if '"text"' in _text(path))
        path.write_text(_text(path).replace("0.1", "0.2"))
    else:
        path = folder / "parts" / f"{step:012d}.npz"
        path.write_bytes(path.read_bytes()[:-30])


def _text(path):
    return path.read_text("utf-8", errors="ignore")


def assert_is(saved, step):
    assert saved.step == step
    assert saved.meta == {"trace": [0.1, step]}
    state = saved.fit(make_state(0))
    assert isinstance(state, State)
    for found, expected in zip(
        jax.tree.leaves(state), jax.tree.leaves(make_state(step)), strict=True
    ):
        assert found.dtype == expected.dtype
        if jnp.issubdtype(found.dtype, jax.dtypes.prng_key):
            found, expected = jax.random.key_data(found), jax.random.key_data(expected)
        assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()
    assert list(saved.parts) == [f"part {i}" for i in range(1, step + 1)]
    for i in range(1, step + 1):
        np.testing.assert_array_equal(saved.parts[f"part {i}"]["x"], np.arange(i))
        assert saved.parts[f"part {i}"]["y"].shape == (0, 2)


@pytest.mark.slow
def test_what_is_read_is_what_was_written_to_the_bit_and_two_are_kept(tmp_path):
    assert read(tmp_path / "new") == (None, [])
    assert not (tmp_path / "new").exists()
    write(tmp_path, range(1, 5))
    assert steps_on_disk(tmp_path) == [3, 4]
    saved, messages = read(tmp_path)
    assert_is(saved, 4)
    assert messages == [f"Resuming from checkpoint 4 in {tmp_path}."]
    # Each part was written once.
    assert len(list((tmp_path / "parts").iterdir())) == 4


@pytest.mark.slow
@pytest.mark.parametrize("how", ["truncated", "empty", "record", "part"])
def test_the_one_before_a_damaged_checkpoint_is_used_and_said(tmp_path, how):
    write(tmp_path, range(1, 4))
    damage(tmp_path, 3, how)
    saved, messages = read(tmp_path)
    assert_is(saved, 2)
    assert f"Checkpoint 3 in {tmp_path} is damaged and is not used" in messages[0]
    assert messages[1] == f"Resuming from checkpoint 2 in {tmp_path}."
    # The run goes on from there and writes step 3 again.
    write(tmp_path, [3])
    assert_is(read(tmp_path)[0], 3)
    assert steps_on_disk(tmp_path) == [2, 3]


@pytest.mark.slow
def test_where_all_are_damaged_the_work_starts_over_and_says_so(tmp_path):
    write(tmp_path, range(1, 4))
    damage(tmp_path, 3, "truncated")
    damage(tmp_path, 2, "empty")
    saved, messages = read(tmp_path)
    assert saved is None
    assert messages[-1] == f"No checkpoint in {tmp_path} can be used: starting over."
    write(tmp_path, range(1, 4))
    assert_is(read(tmp_path)[0], 3)


@pytest.mark.parametrize("largest", [100, 8000])
def test_a_full_disk_does_not_end_the_run(tmp_path, largest):
    """Files cannot grow beyond a size: of the part, then of the state's arrays."""
    write(tmp_path, [1, 2])
    messages = []
    checkpoints = Checkpoints(tmp_path, every_seconds=None, every_steps=1, log=messages.append)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with checkpoints.session("counting"):
        checkpoints.add_part("part 3", {"x": np.arange(3), "y": np.ones((0, 2))})
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
        try:
            checkpoints.tick(3, make_state(3), {"trace": [0.1, 3]})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "checkpoint of step 3 could not be written" in messages[-1]
        assert "too large" in messages[-1].lower()
        assert_is(read(tmp_path)[0], 2)
        assert not list(tmp_path.rglob("*tmp*"))
        assert len(list((tmp_path / "parts").iterdir())) == 2
        # There is room again: what was finished meanwhile is not lost.
        checkpoints.add_part("part 4", {"x": np.arange(4), "y": np.ones((0, 2))})
        checkpoints.tick(4, make_state(4), {"trace": [0.1, 4]})
    assert_is(read(tmp_path)[0], 4)
    assert steps_on_disk(tmp_path) == [2, 4]


def test_saves_when_it_is_time_and_not_before(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("bnn_adv.compute.checkpoint.time.monotonic", lambda: clock[0])
    checkpoints = Checkpoints(tmp_path, every_seconds=10, every_steps=50, log=lambda _: None)
    with checkpoints.session("counting"):
        for step, seconds, expected in (
            (10, 5, []),
            (20, 4, []),
            (21, 2, [21]),
            (40, 1, [21]),
            (71, 1, [21, 71]),
            (72, 10, [71, 72]),
        ):
            clock[0] += seconds
            checkpoints.tick(step, make_state(step))
            found = steps_on_disk(tmp_path) if tmp_path.joinpath("steps").exists() else []
            assert found == expected
        assert checkpoints.seconds == 23
    clock[0] += 1000
    again = Checkpoints(tmp_path, log=lambda _: None)
    with again.session("counting"):
        clock[0] += 2
        assert again.seconds == 25
    again.remove()
    assert not tmp_path.exists()


def test_an_interrupt_from_the_keyboard_saves_what_was_completed(tmp_path):
    checkpoints = Checkpoints(tmp_path, log=lambda _: None)

    def work():
        with checkpoints.session("counting"):
            checkpoints.add_part("part 1", {"x": np.arange(1), "y": np.ones((0, 2))})
            checkpoints.tick(1, make_state(1), {"trace": [0.1, 1]})
            # Finished, but after the last tick: does not belong to the saved state.
            checkpoints.add_part("part 2", {"x": np.arange(2)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert_is(read(tmp_path)[0], 1)


def test_checkpoints_of_something_else_are_refused(tmp_path):
    write(tmp_path, [1])
    with pytest.raises(ValueError, match=r"something else: 'counting' there, 'sorting' here"):
        read(tmp_path, "sorting")
    saved, _ = read(tmp_path)
    with pytest.raises(ValueError, match="the program needs"):
        saved.fit({"weights": 1})
    other = make_state(0)
    other.weights["a"] = jnp.zeros(7)
    with pytest.raises(ValueError, match=r"float32\[4\] in the checkpoint, float32\[7\]"):
        saved.fit(other)
    for options in ({"every_seconds": -1}, {"every_steps": 0}, {"keep": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            Checkpoints(tmp_path, **options)


def test_sessions_nest_and_the_package_does_not_import_orbax(tmp_path):
    checkpoints = Checkpoints(tmp_path, every_seconds=None, every_steps=1, log=lambda _: None)
    with checkpoints.session("outer"), checkpoints.session("inner"):
        for _ in range(3):
            checkpoints.tick(None, {})
    with checkpoints.session("outer") as saved, checkpoints.session("inner") as same:
        assert same is saved
        assert saved.step == 2
        assert saved.fit({}) == {}
    assert "orbax" not in vars(checkpoint_store)


def test_a_part_that_was_replaced_is_not_used(tmp_path):
    """The part of another chain has the same name, shapes and rows."""
    write(tmp_path, [1, 2])
    path = tmp_path / "parts" / f"{2:012d}.npz"
    arrays = files.read_arrays(path)
    files.write_arrays(path, {**arrays, "0": arrays["0"] + 1})
    saved, messages = read(tmp_path)
    assert saved.step == 1
    assert list(saved.parts) == ["part 1"]
    assert any("its part 000000000002.npz was replaced" in message for message in messages)
