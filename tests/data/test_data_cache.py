from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from bnn_adv.compute import files
from bnn_adv.data import cache

ARRAYS = {"x": np.arange(600, dtype=np.uint8).reshape(20, 30), "y": np.arange(3, dtype=np.int32)}


def load(folders, *, decode=lambda: dict(ARRAYS), digest="d1"):
    return cache.cached(decode, name="tiny", digest=digest, folders=folders)


def must_not_decode():
    raise AssertionError("the source was decoded although there is a sound cache")


def assert_same(found):
    assert found.keys() == ARRAYS.keys()
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(found[key], array, strict=True)


def test_second_load_does_not_decode(tmp_path):
    assert_same(load([tmp_path]))
    assert_same(load([tmp_path], decode=must_not_decode))


def test_another_source_is_decoded(tmp_path):
    load([tmp_path])
    with pytest.raises(AssertionError, match="was decoded"):
        load([tmp_path], decode=must_not_decode, digest="d2")


def damage_middle(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes([content[half] ^ 0xFF]) + content[half + 1 :]


@pytest.mark.parametrize(
    "damage", [damage_middle, lambda c: c[: len(c) // 2], lambda c: b"", lambda c: b"not a zip"]
)
def test_damaged_cache_is_rebuilt(tmp_path, caplog, damage):
    load([tmp_path])
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING, "bnn_adv.data.cache"):
        assert_same(load([tmp_path]))
    assert path.name in caplog.text
    assert_same(load([tmp_path], decode=must_not_decode))


@pytest.mark.parametrize(
    "change", [{"x": ARRAYS["x"] + 1}, {"x": ARRAYS["x"].reshape(30, 20)}, {"digest": "other"}]
)
def test_sound_zip_with_other_content_is_rebuilt(tmp_path, change):
    load([tmp_path])
    (path,) = tmp_path.iterdir()
    files.write_arrays(path, {**files.read_arrays(path), **change})
    assert_same(load([tmp_path]))
    assert_same(load([tmp_path], decode=must_not_decode))


def test_missing_digest_is_rebuilt(tmp_path):
    load([tmp_path])
    (path,) = tmp_path.iterdir()
    files.write_arrays(path, ARRAYS)
    assert_same(load([tmp_path]))
    assert "digest" in files.read_arrays(path)


def test_unwritable_folder_falls_back_to_the_next(tmp_path, monkeypatch):
    source, user = tmp_path / "source", tmp_path / "user"
    write = files.write_arrays

    def write_only_to_user(path, arrays):
        if Path(path).parent == source:
            raise PermissionError(13, "Permission denied", str(path))
        write(path, arrays)

    monkeypatch.setattr(files, "write_arrays", write_only_to_user)
    assert_same(load([source, user]))
    assert [path.parent for path in tmp_path.rglob("*.npz")] == [user]
    assert_same(load([source, user], decode=must_not_decode))


def test_folder_marked_read_only_is_left_alone_even_by_root(tmp_path):
    source, user = tmp_path / "source", tmp_path / "user"
    source.mkdir()
    source.chmod(0o555)
    assert_same(load([source, user]))
    source.chmod(0o755)
    assert list(source.iterdir()) == []
    assert len(list(user.iterdir())) == 1


def test_nowhere_to_write_still_returns_the_arrays(tmp_path, monkeypatch):
    def disk_full(path, arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_arrays", disk_full)
    assert_same(load([tmp_path / "a", tmp_path / "b"]))


def test_failed_decoding_leaves_nothing(tmp_path):
    def fail():
        raise ValueError("damaged source")

    with pytest.raises(ValueError, match="damaged source"):
        load([tmp_path], decode=fail)
    assert list(tmp_path.iterdir()) == []


def test_user_folder_follows_the_environment(home, monkeypatch):
    assert files.user_folder() == home / "cache" / "bnn_adv"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.user_folder() == home / ".cache" / "bnn_adv"


def test_files_digest_sees_names_and_contents_but_not_order(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"one")
    b.write_bytes(b"two")
    digest = cache.files_digest([a, b])
    assert cache.files_digest([b, a]) == digest
    b.write_bytes(b"twp")
    assert cache.files_digest([a, b]) != digest
    b.write_bytes(b"two")
    assert cache.files_digest([a, b]) == digest
    assert cache.files_digest([a, b.rename(tmp_path / "c")]) != digest


SHAPES = {"x": (20, 30), "y": (3,)}
BYTES = {"x": ARRAYS["x"], "y": np.arange(3, dtype=np.uint8)}


def load_expected(folder, decode=lambda: dict(BYTES), check=lambda arrays: ""):
    return cache.cached(
        decode, name="tiny", digest="d1", folders=[folder], expected=SHAPES, check=check
    )


@pytest.mark.parametrize(
    "change",
    [
        {"x": np.zeros((20, 31), np.uint8)},
        {"x": np.zeros((20, 30), np.float64)},
        {"more": np.zeros(2, np.uint8)},
        {"digest": np.array("d" * 1000)},
        {"digest": np.zeros(9, np.uint8)},
    ],
)
def test_a_file_that_announces_other_arrays_is_not_read(tmp_path, change, monkeypatch, caplog):
    load_expected(tmp_path)
    (path,) = tmp_path.iterdir()
    files.write_arrays(path, {**files.read_arrays(path), **change})
    read = []
    monkeypatch.setattr(files, "read_arrays", lambda path: read.append(path))
    found = load_expected(tmp_path)
    np.testing.assert_array_equal(found["x"], BYTES["x"])
    assert not read
    assert "announces other arrays" in caplog.text


def test_what_was_written_wrongly_is_found_by_the_published_checksum(tmp_path, caplog):
    wrong = {**BYTES, "x": BYTES["x"][::-1].copy()}
    load_expected(tmp_path, decode=lambda: wrong)

    def check(arrays):
        return "" if arrays["x"][0, 1] == 1 else "holds other data than published: x."

    np.testing.assert_array_equal(load_expected(tmp_path, check=check)["x"], BYTES["x"])
    assert "holds other data than published: x." in caplog.text
    load_expected(tmp_path, decode=must_not_decode, check=check)
